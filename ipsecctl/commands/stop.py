"""`ipsecctl stop`: an orderly stop through the supervisor; without one, the cleaning up that it would have done."""

import argparse
import time

from ipc import messages as m
from ipsecctl import exit_codes, lock_file
from ipsecctl.cleanup import clean_up, wait_until_gone
from ipsecctl.client import ask
from ipsecctl.errors import NoAnswer

STOP_WITHIN_S = 15.0


def run(options: argparse.Namespace) -> int:
    """Stops the instance; 1 if it did not run, or did not stop by itself."""
    return stop(options.instance)


def stop(instance: str) -> int:
    """Stops `instance` and says each step; the exit code."""
    lock = lock_file.look(instance)
    if not lock.held:
        print(f"ipsecctl: IPsec is not running: no process holds {lock.path}")
        print("ipsecctl: cleaning up anyway")
        _say(clean_up(instance))
        return exit_codes.STRANGE
    deadline = time.monotonic() + STOP_WITHIN_S
    try:
        _say(ask(instance, m.StopCommand(), m.CommandDone, STOP_WITHIN_S).lines)
    except NoAnswer as error:
        print(f"ipsecctl: {error}")
    if wait_until_gone(instance, deadline):
        print("IPsec stopped")
        return exit_codes.OK
    print(f"ipsecctl: ipsecd (pid {lock.pid}) did not stop within {STOP_WITHIN_S:g} s: ending it")
    _say(clean_up(instance))
    return exit_codes.STRANGE


def _say(lines: tuple[str, ...]) -> None:
    for line in lines:
        print(f"  {line}")
