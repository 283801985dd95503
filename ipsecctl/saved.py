"""The saved information of an instance: read, checked, never believed beyond what is needed, never executed."""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ipsecctl.arguments import DEFAULT_SPD

STATE_NAME = "state.json"
MAX_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What of it ipsecctl needs."""

    spd_path: str
    here: bool
    """Saved since the machine booted, by an instance in the present network namespace."""
    elsewhere: bool
    """Saved since the machine booted, by an instance in another network namespace."""
    ip_forward_before: str
    """What net.ipv4.ip_forward must be again, "0" or "1"; empty if it was not changed."""


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


def read(instance: str) -> Saved | None:
    """The saved information of `instance`; None if there is none, or none that may be trusted."""
    if unsafe(instance):
        return None
    try:
        descriptor = os.open(f"{instance}/{STATE_NAME}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            fields = json.loads(file.read(MAX_BYTES))
        this_boot = fields["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        this_namespace = fields["network_namespace"] == os.stat("/proc/thread-self/ns/net").st_ino
        spd_path, before = fields["spd_path"], fields["ip_forward_before"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(spd_path, str) or before not in ("", "0", "1"):
        return None
    return Saved(
        spd_path=spd_path,
        here=this_boot and this_namespace,
        elsewhere=this_boot and not this_namespace,
        ip_forward_before=before,
    )


def spd_path_of(instance: str) -> str:
    """The policy file of the running instance, from its saved information; the default one if there is none."""
    information = read(instance)
    return information.spd_path if information is not None and information.spd_path else DEFAULT_SPD
