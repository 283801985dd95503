"""The saved information of an instance: read, checked, never believed beyond what is needed, never executed."""

import json
import os
import stat
from typing import Any, NamedTuple

from ipsecctl.arguments import DEFAULT_SPD

STATE_NAME = "state.json"
MAX_BYTES = 65536


class SavedProcess(NamedTuple):
    """A role's process, as the supervisor knew it last."""

    role: str
    pid: int
    start_time: float
    """Seconds since boot."""


class Saved(NamedTuple):
    """What of it ipsecctl needs; all empty if there is none, or none that may be trusted."""

    path: str
    exists: bool
    spd_path: str = ""
    network_namespace: int = 0
    """The instance's, an inode; 0 if it is not known, or was saved before the machine booted."""
    ip_forward_before: str = ""
    """What net.ipv4.ip_forward must be again, "0" or "1"; empty if it was not changed."""
    roles: tuple[SavedProcess, ...] = ()
    """Its processes; none if it was saved before the machine booted."""

    @property
    def here(self) -> bool:
        """Saved since the machine booted, by an instance in the present network namespace."""
        return self.network_namespace == _present_namespace()

    @property
    def elsewhere(self) -> bool:
        """Saved since the machine booted, by an instance in another network namespace."""
        return self.network_namespace not in (0, _present_namespace())


def unsafe(instance: str) -> str:
    """Why nothing in the run directory may be trusted or removed; empty if all is well, or if there is none."""
    try:
        facts = os.lstat(instance)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{instance}: {error.strerror}"
    if not stat.S_ISDIR(facts.st_mode):
        return f"{instance}: not a directory"
    if facts.st_uid != 0:
        return f"{instance}: belongs to uid {facts.st_uid}, not to root"
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{instance}: others than root may write there (mode {stat.S_IMODE(facts.st_mode):04o})"
    return ""


def read(instance: str) -> Saved:
    """The saved information of `instance`."""
    path = f"{instance}/{STATE_NAME}"
    nothing = Saved(path=path, exists=os.path.lexists(path))
    if unsafe(instance):
        return nothing
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            fields = json.loads(file.read(MAX_BYTES))
        this_boot = fields["boot_id"] == _boot_id()
        saved = Saved(
            path=path,
            exists=True,
            spd_path=str(fields["spd_path"]),
            network_namespace=int(fields["network_namespace"]) if this_boot else 0,
            ip_forward_before=str(fields["ip_forward_before"]),
            roles=tuple(_process(one) for one in fields["roles"]) if this_boot else (),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return nothing
    return saved if saved.ip_forward_before in ("", "0", "1") else nothing


def spd_path_of(instance: str) -> str:
    """The policy file of the running instance, from its saved information; the default one if there is none."""
    return read(instance).spd_path or DEFAULT_SPD


def _process(fields: Any) -> SavedProcess:
    return SavedProcess(role=str(fields["role"]), pid=int(fields["pid"]), start_time=float(fields["start_time"]))


def _present_namespace() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
