"""strongSwan sets up the same tunnels as we do in bench.handshake: what it costs the other one, on the same machine.

A charon in each of two namespaces, with the same peers, algorithms and selectors, and with ESP in user space as well
(kernel-libipsec). It writes no log, asks for no cookies, lists no addresses for MOBIKE, and has the hash tables that
its manual wants for many IKE SAs. The left one is told over its control socket (vici) to initiate all of them, and to
wait for none.
"""

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespaces import Gateways, LabError
from tests.lab.strongswan import Connection, StrongSwan
from tests.lab.waiting import wait_until

SILENT = -1
_CHARON = "dos_protection = no\n  ikesa_table_size = 256\n  ikesa_table_segments = 16\n  threads = 16"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_VICI_REQUEST, _VICI_RESPONSE = 0, 1
_KEY_VALUE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CharonPeer:
    """One of the tunnels, from one side."""

    name: str
    local_address: str
    remote_address: str
    local_id: str
    remote_id: str
    psk: str
    """Empty where it is by certificates: then these."""
    certificate: Path | None
    key: Path | None
    local_net: str
    remote_net: str
    ike: str
    esp: str

    @property
    def connection(self) -> str:
        """Its section of `connections`."""
        how, own = ("psk", "") if self.psk else ("pubkey", f"certs = {self.name}.pem")
        return f"""\
  {self.name} {{
    version = 2
    mobike = no
    local_addrs = {self.local_address}
    remote_addrs = {self.remote_address}
    proposals = {self.ike}
    local {{
      auth = {how}
      {own}
      id = "{self.local_id}"
    }}
    remote {{
      auth = {how}
      id = "{self.remote_id}"
    }}
    children {{
      {self.name} {{
        local_ts = {self.local_net}
        remote_ts = {self.remote_net}
        esp_proposals = {self.esp}
      }}
    }}
  }}
"""

    @property
    def secret(self) -> str:
        """Its section of `secrets`."""
        if not self.psk:
            return ""
        return f'  ike-{self.name} {{\n    id = "{self.remote_id}"\n    secret = "{self.psk}"\n  }}\n'


def configuration(peers: list[CharonPeer]) -> str:
    """swanctl.conf."""
    connections = "".join(peer.connection for peer in peers)
    return f"connections {{\n{connections}}}\nsecrets {{\n{''.join(peer.secret for peer in peers)}}}\n"


def _files(peers: list[CharonPeer], authority: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for peer in peers:
        if peer.certificate is not None and peer.key is not None:
            files[f"x509/{peer.name}.pem"] = peer.certificate.read_bytes()
            files[f"ecdsa/{peer.name}.pem"] = peer.key.read_bytes()
            files["x509ca/ca.pem"] = authority.read_bytes()
    return files


class Vici:
    """Commands to a charon over its control socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20.0)
        self._socket.connect(str(path))

    def initiate(self, name: str) -> None:
        """Has a connection begun, and does not wait for it."""
        answer = self._ask("initiate", {"child": name, "ike": name, "timeout": "-1"})
        if b"success\x00\x03yes" not in answer:
            raise LabError(f"charon does not initiate {name}: {answer!r}")

    def established(self) -> int:
        """How many IKE SAs stand."""
        answer = self._ask("stats", {})
        counts = answer.partition(b"ikesas")[2]
        return _number(counts, b"total") - _number(counts, b"half-open")

    def close(self) -> None:
        """Says no more."""
        self._socket.close()

    def _ask(self, command: str, values: dict[str, str]) -> bytes:
        packet = bytes((_VICI_REQUEST, len(command))) + command.encode()
        for key, value in values.items():
            packet += bytes((_KEY_VALUE, len(key))) + key.encode() + len(value).to_bytes(2) + value.encode()
        self._socket.sendall(len(packet).to_bytes(4) + packet)
        answer = self._read(int.from_bytes(self._read(4)))
        if answer[:1] != bytes((_VICI_RESPONSE,)):
            raise LabError(f"charon does not know {command}")
        return answer[1:]

    def _read(self, count: int) -> bytes:
        data = self._socket.recv(count, socket.MSG_WAITALL)
        if len(data) != count:
            raise LabError("charon hung up")
        return data


def _number(answer: bytes, key: bytes) -> int:
    """The number at the first `key` in a vici message."""
    _, found, rest = answer.partition(bytes((_KEY_VALUE, len(key))) + key)
    if not found:
        raise LabError(f"charon tells no {key.decode()}")
    return int(rest[2 : 2 + int.from_bytes(rest[:2])])


@dataclass(frozen=True, slots=True, kw_only=True)
class CharonResult:
    """CPU milliseconds per handshake of either side, and how many a second."""

    initiator_ms: float
    responder_ms: float
    per_second: float


def measure(nets: Gateways, left: list[CharonPeer], right: list[CharonPeer], authority: Path) -> CharonResult:
    """One run between fresh daemons."""
    anything = Connection(
        local_address="127.0.0.1",
        remote_address="127.0.0.1",
        local_id="nobody",
        remote_id="nobody",
        psk="nobody",
        local_net="127.0.0.1/32",
        remote_net="127.0.0.1/32",
        charon=_CHARON,
    )
    with (
        StrongSwan(nets.left, anything, log_level=SILENT) as initiator,
        StrongSwan(nets.right, anything, log_level=SILENT) as responder,
    ):
        for daemon, peers in ((initiator, left), (responder, right)):
            daemon.configure(configuration(peers), _files(peers, authority))
            daemon.swanctl("--load-all", "--noprompt")
        vici = Vici(initiator.vici_socket)
        before = [cpu_s(daemon.pid) for daemon in (initiator, responder)]
        started = time.monotonic()
        for peer in left:
            vici.initiate(peer.name)
        wait_until("all of charon's tunnels are up", lambda: vici.established() >= len(left), timeout_s=60.0)
        elapsed = time.monotonic() - started
        ours, theirs = (
            (cpu_s(daemon.pid) - then) * 1000 / len(left)
            for daemon, then in zip((initiator, responder), before, strict=True)
        )
        vici.close()
    return CharonResult(initiator_ms=ours, responder_ms=theirs, per_second=len(left) / elapsed)


def cpu_s(pid: int) -> float:
    """User and system time of a process, in seconds (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
