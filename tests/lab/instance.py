"""One complete instance of ipsecd in a namespace: started by ipsecctl, looked at, hurt, stopped, and what it left."""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ipc.generations import TEMPLATES_NAME
from ipc.ownership import TUN_INTERFACE
from ipc.process import process_start_time
from ipc.roles import MODULES, Role, uid_of
from tests.lab.namespaces import LabError, Namespace
from tests.lab.waiting import wait_until

IPSECCTL = Path(sys.executable).parent / "ipsecctl"
"""The operator's tool, as installed beside the interpreter that runs this."""
_COMMAND_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRole:
    """A process of an instance: (pid, start time) names it for good."""

    role: Role
    pid: int
    start_time: float
    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """One IKE SA and the SPIs of its Child SAs, as status shows them, in hex."""

    peer: str
    state: str
    spi_i: str
    spi_r: str
    children: tuple[str, ...]
    """Each "RULE in SPI out SPI"."""
    algorithms: tuple[str, ...]
    """Of the Child SAs."""


class Instance:
    """An instance of ipsecd in `namespace`, with a private directory of its own; `with` stops it and removes that."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._base = Path(tempfile.mkdtemp(prefix="ipsecd-lab-"))
        self._base.chmod(0o711)  # the roles reach their sockets below it, under uids of their own
        self.directory = self._base / "run"
        self.spd = self._base / "ipsec.spd"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def write_spd(self, text: str, mode: int = 0o600) -> Path:
        """Writes the SPD of this instance and returns its path."""
        self.spd.write_text(text)
        self.spd.chmod(mode)
        return self.spd

    def write_templates(self, text: str) -> None:
        """Writes the templates beside the SPD."""
        path = self.spd.with_name(TEMPLATES_NAME)
        path.write_text(text)
        path.chmod(0o600)

    def ctl(self, *arguments: str, check: bool = True, timeout_s: float = _COMMAND_TIMEOUT_S) -> str:
        """Runs ipsecctl on this instance, in its namespace."""
        return self.namespace.run(
            str(IPSECCTL), "--instance", str(self.directory), *arguments, check=check, timeout_s=timeout_s
        )

    def start(self, spd: str, mode: int = 0o600) -> str:
        """Starts it under this SPD; LabError, with what ipsecctl said, if it does not start."""
        return self.ctl("start", "--spd", str(self.write_spd(spd, mode)))

    def start_refused(self, spd: str, mode: int = 0o600) -> str:
        """What ipsecctl says where it must refuse to start; LabError if it starts after all."""
        try:
            self.start(spd, mode)
        except LabError as error:
            return str(error)
        raise LabError("it started, though it must not")

    def stop(self) -> str:
        """Stops it by ipsecctl."""
        return self.ctl("stop")

    def status(self) -> Any:
        """The status, as parsed JSON; LabError where there is none."""
        output = self.ctl("status", "--json", check=False)
        try:
            return json.loads(output)
        except ValueError as error:
            raise LabError(f"{self.namespace}: no status: {output}") from error

    def tunnels(self) -> list[Tunnel]:
        """Its IKE SAs, as status shows them."""
        return [
            Tunnel(
                peer=one["peer"],
                state=one["state"],
                spi_i=one["spi_i"],
                spi_r=one["spi_r"],
                children=tuple(
                    f"{child['rule']} in {child['spi_in']} out {child['spi_out']}" for child in one["children"]
                ),
                algorithms=tuple(child["algorithms"] for child in one["children"]),
            )
            for one in self.status()["tunnels"]
        ]

    def wait_for_tunnel(self, *, timeout_s: float = 30.0) -> Tunnel:
        """Waits for an IKE SA with a Child SA and returns it."""

        def is_up() -> bool:
            return any(one.children for one in self.tunnels())

        wait_until(f"{self.namespace}: a tunnel is up", is_up, timeout_s=timeout_s, every_s=0.1)
        return next(one for one in self.tunnels() if one.children)

    def roles(self) -> list[RunningRole]:
        """Its processes, as /proc shows them."""
        found = (self._role_of(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
        return sorted((one for one in found if one is not None), key=lambda one: one.pid)

    def role(self, role: Role) -> RunningRole | None:
        """Its process of this role, if there is one."""
        return next((one for one in self.roles() if one.role is role), None)

    def kill(self, role: Role) -> RunningRole:
        """Kills the process of this role by SIGKILL and returns who it was; LabError if there is none."""
        victim = self.role(role)
        if victim is None:
            raise LabError(f"{self.namespace}: no {role} to kill")
        self.kill_process(victim)
        return victim

    def kill_process(self, victim: RunningRole) -> None:
        """Kills this one by SIGKILL; harmless if it is gone."""
        _kill(victim)

    def die(self) -> None:
        """Kills the supervisor; its roles die with it, and the TUN goes that it held. All else is left as it is."""
        self.kill(Role.SUPERVISOR)
        wait_until("its roles are gone with it", lambda: not self.roles())
        wait_until("the device is gone with its holder", lambda: TUN_INTERFACE not in self.namespace.ip("link"))

    def wait_for_successor(self, victim: RunningRole, *, timeout_s: float = 30.0) -> float:
        """Waits for another process of the victim's role that has dropped its privileges; seconds that took."""
        uid = uid_of(victim.role)

        def is_back() -> bool:
            found = self.role(victim.role)
            return found is not None and found.uid == uid and (found.pid, found.start_time) != identity

        identity = (victim.pid, victim.start_time)

        return wait_until(f"{victim.role} is back", is_back, timeout_s=timeout_s, every_s=0.01)

    def log(self) -> str:
        """What its processes logged to files in its directory."""
        texts = [path.read_text(errors="replace") for path in sorted(self._base.rglob("*log*")) if path.is_file()]
        return "\n".join(texts)

    def files(self) -> list[Path]:
        """What is in its directory: sockets, lock, saved information; not its log, which stays."""
        found = self.directory.rglob("*") if self.directory.exists() else ()
        return sorted(path for path in found if not path.is_dir() and path.suffix != ".log")

    def remove(self) -> None:
        """Kills what still runs and removes its directory; harmless if it is gone."""
        for one in self.roles():
            _kill(one)
        shutil.rmtree(self._base, ignore_errors=True)

    def _role_of(self, pid: int) -> RunningRole | None:
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
                line = file.read()
            if os.fsencode(self.directory) not in line:
                return None
            words = line.decode(errors="replace").split("\0")
            if str(self.directory) not in words:
                return None
            modules = {module: role for role, module in MODULES.items()}
            names = [Path(word).name for word in words]
            # `ipsecd` is the supervisor by its own name.
            role = next((modules[name] for name in names if name in modules), None)
            role = role or (Role.SUPERVISOR if "ipsecd" in names[:2] else None)
            if role is None:
                return None
            return RunningRole(
                role=role,
                pid=pid,
                start_time=process_start_time(pid),
                uid=_uid(pid),
            )
        return None


def _uid(pid: int) -> int:
    """The effective uid; the owner of /proc/PID says nothing of a process that is not dumpable."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[2] for line in lines if line.startswith("Uid:")))


def _kill(victim: RunningRole) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(victim.pid)
        try:
            if process_start_time(victim.pid) == victim.start_time:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except FileNotFoundError:
            return
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkState:
    """All that an instance could leave in a namespace, each thing a line of text."""

    things: frozenset[str]

    @classmethod
    def of(cls, namespace: Namespace) -> Self:
        """What is there now. What the kernel changes by itself (neighbours, counters, lifetimes) is not in it."""
        listings = {
            "address": _addresses(namespace),
            "rule": namespace.ip("rule") + namespace.ip("-6", "rule"),
            "route": namespace.ip("route", "show", "table", "all")
            + namespace.ip("-6", "route", "show", "table", "all"),
            "xfrm policy": _unindented(namespace.ip("xfrm", "policy")),
            "xfrm state": _unindented(namespace.ip("xfrm", "state")),
            "default policy": namespace.ip("xfrm", "policy", "getdefault", check=False),
            "socket": _sockets(namespace),
            "nftables": _nftables(namespace),
            "forwarding": namespace.run("cat", "/proc/sys/net/ipv4/ip_forward"),
        }
        return cls(
            things=frozenset(
                f"{kind}: {' '.join(line.split())}"
                for kind, text in listings.items()
                for line in text.splitlines()
                if line.strip()
            )
        )

    def since(self, before: "NetworkState") -> list[str]:
        """What is here now and was not before, and what was and is not ("gone: ...")."""
        return sorted(self.things - before.things) + sorted(f"gone: {one}" for one in before.things - self.things)


def _addresses(namespace: Namespace) -> str:
    """Each interface with its addresses; whether there is a carrier changes by itself."""
    lines = namespace.ip("-brief", "address").splitlines()
    return "\n".join(" ".join(line.split()[:1] + line.split()[2:]) for line in lines)


def _unindented(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line[:1].strip())


def _sockets(namespace: Namespace) -> str:
    """UDP, TCP and raw sockets by local address; inode and counters left out."""
    lines = []
    for kind in ("udp", "udp6", "tcp", "tcp6", "raw", "raw6"):
        rows = namespace.run("cat", f"/proc/net/{kind}", check=False).splitlines()[1:]
        lines += [f"{kind} {row.split()[1]}" for row in rows if len(row.split()) > 1]
    return "\n".join(lines)


def _nftables(namespace: Namespace) -> str:
    """The tables, where the tool to list them is installed."""
    if shutil.which("nft") is None:
        return ""
    return namespace.run("nft", "list", "tables", check=False)


def leftovers(instance: Instance, before: NetworkState) -> list[str]:
    """What a stopped instance has left: processes, files, sockets, and kernel objects; each a line for people."""
    found = [f"process: {one.role} {one.pid}" for one in instance.roles()]
    found += [f"file: {path}" for path in instance.files()]
    return found + NetworkState.of(instance.namespace).since(before)
