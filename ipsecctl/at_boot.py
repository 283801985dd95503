"""Whether ipsecd comes up at boot: our own file, which `ipsecctl start --boot` obeys, and systemd where it is there."""

import os
import shutil
import subprocess

from ipc import kept
from ipsecctl import exit_codes, lock_file
from ipsecctl.asker import asker
from ipsecctl.errors import CommandError
from ipsecctl.record import Record

UNITS = ("ipsecd.service", "ipsecd-secure.service")
SYSTEMD_AT_WORK = "/run/systemd/system"
"""It is there if and only if systemd started this machine (sd_booted(3))."""
SYSTEMCTL_WITHIN_S = 60.0


def change(instance: str, record: Record, *, enabled: bool) -> int:
    """Tells it to all who start things at boot; the exit code."""
    verb = "enable" if enabled else "disable"
    record.detail(f"{verb} of {instance}, asked for by {asker()}")
    try:
        kept.set_enabled(instance, enabled)
    except OSError as error:
        raise CommandError(f"{kept.directory(instance)}: {error.strerror}") from error
    problem = _tell_systemd(verb) if instance == kept.DEFAULT_INSTANCE else ""
    if problem:
        record.say(f"ipsecctl: {problem}")
    if enabled:
        record.say("ipsecd comes up at boot")
    else:
        running = lock_file.look(instance).held
        record.say("ipsecd does not come up at boot" + ("; a stop ends secure mode too" if running else ""))
    return exit_codes.STRANGE if problem else exit_codes.OK


def _tell_systemd(verb: str) -> str:
    """Has systemd enable or disable the units; what went wrong, empty if nothing did or there is no systemd."""
    systemctl = shutil.which("systemctl")
    if systemctl is None or not os.path.isdir(SYSTEMD_AT_WORK):
        return ""
    try:
        done = subprocess.run(
            [systemctl, "--no-ask-password", verb, *UNITS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SYSTEMCTL_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"systemctl {verb}: {error}"
    if done.returncode:
        said = " ".join(done.stdout.split())[-500:] or f"exit code {done.returncode}"
        return f"systemctl {verb} {' '.join(UNITS)}: {said}"
    return ""
