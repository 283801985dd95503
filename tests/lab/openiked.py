"""An OpenIKED to talk to: Debian's package, a daemon for each namespace, over the kernel's ESP."""

from collections.abc import Mapping
from pathlib import Path

from tests.lab.debian import LIBRARIES
from tests.lab.foreign import Foreign
from tests.lab.namespaces import Namespace, run
from tests.lab.pki import key_pem, some_key

PACKAGES = ("openiked", "libevent-2.1-7")
_USER, _UID = "_iked", 60790

# Its files and its user are where it was built to look for them, in /etc: the overlay is read-only and its alone.
_LAUNCH = 'mount --make-rprivate / && mount -t overlay openiked -o ro,lowerdir="$1/etc:/etc" /etc && shift && exec "$@"'


class OpenIked(Foreign):
    """A running iked in `namespace`, from `with` to its end. Unavailable where its packages can't be fetched.

    `settings` is iked.conf; `files` are keys and certificates, by path below /etc/iked.
    """

    def __init__(self, namespace: Namespace, settings: str, files: Mapping[str, bytes] | None = None) -> None:
        super().__init__(namespace, "openiked", PACKAGES)
        self._log = self._state / "output"
        self._settings = settings
        self._files = files or {}

    def control(self, *arguments: str, check: bool = True) -> str:
        """Runs ikectl against this daemon."""
        return run(self._program("ikectl", "-s", str(self._socket), *arguments), check=check, timeout_s=20.0)

    def show_sas(self) -> str:
        """All its SAs and flows."""
        return self.control("show", "sa", check=False)

    def configure(self, settings: str) -> None:
        """Another iked.conf, in force at once."""
        (self._state / "etc/iked.conf").write_text(settings)
        self.control("reload")

    @property
    def _socket(self) -> Path:
        return self._state / "iked.sock"

    def _program(self, name: str, *arguments: str) -> list[str]:
        return ["env", f"LD_LIBRARY_PATH={self._root}/{LIBRARIES}", f"{self._root}/usr/sbin/{name}", *arguments]

    def _start(self) -> None:
        etc = self._state / "etc"
        empty = self._state / "empty"
        empty.mkdir()
        self._state.chmod(0o711)
        folders = ("ca", "certs", "crls", "ocsp", "private", "pubkeys/fqdn", "pubkeys/ipv4", "pubkeys/ipv6")
        for folder in (*folders, "pubkeys/ufqdn"):
            (etc / "iked" / folder).mkdir(parents=True)
        # It does not start without a key of its own, used or not.
        for path, content in {"private/local.key": key_pem(some_key("p256")), **self._files}.items():
            (etc / "iked" / path).write_bytes(content)
        (etc / "iked.conf").write_text(self._settings)
        (etc / "iked.conf").chmod(0o600)
        user = f"{_USER}:x:{_UID}:{_UID}::{empty}:/usr/sbin/nologin\n"
        (etc / "passwd").write_text(Path("/etc/passwd").read_text() + user)
        (etc / "group").write_text(Path("/etc/group").read_text() + f"{_USER}:x:{_UID}:\n")
        daemon = self._program("iked", "-dvv", "-f", "/etc/iked.conf", "-s", str(self._socket))
        self._launch("sh", "-c", _LAUNCH, "sh", str(self._state), *daemon)

    def _answers(self) -> bool:
        return self._socket.exists() and "config_getpolicy" in self.log()
