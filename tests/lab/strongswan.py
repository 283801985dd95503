"""A strongSwan to talk to: Debian's packages, a daemon for each namespace, its own files laid over /usr for it alone.

With `kernel_esp` it uses the kernel's ESP, else its own in user space (kernel-libipsec), always in UDP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.lab.foreign import Foreign
from tests.lab.namespaces import Namespace, run
from tests.lab.spd import LEFT_ID, PSK, RIGHT_ID
from tests.lab.waiting import wait_until

PACKAGES = (
    "libstrongswan",
    "libstrongswan-standard-plugins",
    "libstrongswan-extra-plugins",
    "libcharon-extra-plugins",
    "strongswan-libcharon",
    "strongswan-swanctl",
    "charon-systemd",
)
_PLUGINS = (
    "random nonce openssl aes ccm ctr sha1 sha2 hmac kdf gcm curve25519 chapoly pem pkcs1 pkcs8 x509 pubkey "
    "constraints socket-default updown vici"
)
_ANY_LOG_LEVEL = 1

# The daemon's plugins are where it was built to look for them, in /usr; the overlay is read-only and its alone.
_LAUNCH = 'mount --make-rprivate / && mount -t overlay strongswan -o ro,lowerdir="$1/usr:/usr" /usr && exec "$2"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One connection of swanctl.conf: a peer, by PSK if nothing else is said, with one Child SA, named `net`.

    If nothing else is said it is that of the right one of `namespaces.gateways()`, as `spd.Pair` has it.
    """

    local_address: str = "10.9.0.2"
    remote_address: str = "10.9.0.1"
    local_id: str = RIGHT_ID
    remote_id: str = LEFT_ID
    psk: str = PSK
    local_net: str = "10.2.0.0/24"
    remote_net: str = "10.1.0.0/24"
    ike_proposals: str = "aes256gcm16-prfsha256-x25519"
    esp_proposals: str = "aes256gcm16"
    mode: str = "tunnel"
    local_auth: str = "auth = psk"
    """Lines of `local` besides `id`."""
    remote_auth: str = "auth = psk"
    settings: str = ""
    """More lines of the connection."""
    fragment_bytes: int = 1280
    """The longest IP packet of an IKE message that goes in fragments (RFC 7383)."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Certificates and keys, by path below the directory of swanctl.conf."""
    charon: str = ""
    """More lines of strongswan.conf for the daemon."""

    def text(self) -> str:
        """As swanctl.conf."""
        return f"""\
connections {{
  peer {{
    version = 2
    local_addrs = {self.local_address}
    remote_addrs = {self.remote_address}
    proposals = {self.ike_proposals}
    {self.settings}
    local {{
      {self.local_auth}
      id = "{self.local_id}"
    }}
    remote {{
      {self.remote_auth}
      id = "{self.remote_id}"
    }}
    children {{
      net {{
        mode = {self.mode}
        local_ts = {self.local_net}
        remote_ts = {self.remote_net}
        esp_proposals = {self.esp_proposals}
      }}
    }}
  }}
}}
secrets {{
  ike-peer {{
    secret = "{self.psk}"
  }}
}}
"""


class StrongSwan(Foreign):
    """A running charon in `namespace`, from `with` to its end. Unavailable where its packages can't be fetched."""

    def __init__(
        self, namespace: Namespace, connection: Connection, *, kernel_esp: bool = False, log_level: int = _ANY_LOG_LEVEL
    ) -> None:
        super().__init__(namespace, "strongswan", PACKAGES)
        self._connection = connection
        self._kernel_esp = kernel_esp
        self._log_level = log_level
        self._vici = f"unix://{self.vici_socket}"

    def swanctl(self, *arguments: str, check: bool = True, timeout_s: float = 20.0) -> str:
        """Runs swanctl against this daemon."""
        environment = (f"STRONGSWAN_CONF={self._state}/strongswan.conf", f"SWANCTL_DIR={self._state}/swanctl")
        enter = ("nsenter", "-t", str(self.pid), "-m", "-n", "-r")
        command = ("swanctl", *arguments, "--uri", self._vici)
        return run([*enter, "env", *environment, *command], check=check, timeout_s=timeout_s)

    @property
    def vici_socket(self) -> Path:
        """Where it takes commands."""
        return self._state / "charon.vici"

    def configure(self, text: str, files: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Another swanctl.conf, and certificates and keys for it, for the next --load-all."""
        (self._state / "swanctl/swanctl.conf").write_text(text)
        for path, content in files.items():
            file = self._state / "swanctl" / path
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)

    def initiate(self) -> str:
        """Brings the connection up; LabError, with what swanctl said, if it can't."""
        return self.swanctl("--initiate", "--child", "net", "--timeout", "10")

    def list_sas(self) -> str:
        """All its SAs, as swanctl prints them."""
        return self.swanctl("--list-sas")

    def _start(self) -> None:
        (self._state / "strongswan.conf").write_text(self._settings())
        (self._state / "swanctl").mkdir()
        self.configure(self._connection.text(), self._connection.files)
        settings = f"STRONGSWAN_CONF={self._state}/strongswan.conf"
        launch = ("sh", "-c", _LAUNCH, "sh", str(self._root), "/usr/sbin/charon-systemd")
        self._launch("env", settings, *launch)
        self.swanctl("--load-all", "--noprompt")

    def _answers(self) -> bool:
        return self.vici_socket.exists() and "uptime" in self.swanctl("--stats", check=False)

    def _settings(self) -> str:
        esp = "kernel-netlink" if self._kernel_esp else "kernel-libipsec kernel-netlink"
        return f"""\
charon-systemd {{
  load = {_PLUGINS} {esp}
  retransmit_tries = 3
  {self._connection.charon}
  fragment_size = {self._connection.fragment_bytes}
  plugins {{
    vici {{
      socket = {self._vici}
    }}
  }}
  journal {{
    default = -1
  }}
  filelog {{
    log {{
      path = {self._log}
      time_format = %T
      default = {self._log_level}
      flush_line = yes
    }}
  }}
}}
"""


def wait_for_child_sa(peer: StrongSwan, *, timeout_s: float = 10.0) -> float:
    """Waits until `peer` has an installed Child SA; seconds that took."""
    return wait_until("an installed Child SA", lambda: "INSTALLED" in peer.list_sas(), timeout_s=timeout_s)
