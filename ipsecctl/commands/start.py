"""`ipsecctl start`: runs ipsecd as a daemon, and says what it says."""

import argparse
import subprocess

from ipsecctl import exit_codes, lock_file
from ipsecctl.modules import environment, module_command

START_WITHIN_S = 30.0
"""The supervisor gives itself ten seconds, and some more to undo a start that failed."""


def run(options: argparse.Namespace) -> int:
    """Starts the instance; 0 if it runs then, also if it did before."""
    lock = lock_file.look(options.instance)
    if lock.held:
        print(f"ipsecd is already running (pid {lock.pid})")
        return exit_codes.OK
    return start(options.instance, options.spd)


def start(instance: str, spd: str | None) -> int:
    """Starts ipsecd, whose lines go where ours go; its exit code."""
    arguments = ["-d", "--instance", instance]
    if spd is not None:
        arguments += ["-f", spd]
    try:
        done = subprocess.run(
            module_command("supervisor", *arguments),
            stdin=subprocess.DEVNULL,
            env=environment(),
            timeout=START_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"ipsecctl: ipsecd did not say within {START_WITHIN_S:g} s whether it has started")
        return exit_codes.STRANGE
    return exit_codes.OK if done.returncode == 0 else exit_codes.STRANGE
