"""`ipsecctl insecure`: the kernel passes again what no policy is about."""

import argparse
import sys

from ipc import kept
from ipsecctl import exit_codes, lock_file, secure_mode
from ipsecctl.asker import asker
from ipsecctl.record import Record

QUESTION = "Packets that no rule is about will pass in clear. Leave secure mode? [y/N] "
RUNNING = "secure mode is off: the policy of ipsecd goes on, what it is not about passes in clear"
STOPPED = "secure mode is off: ipsecd does not run, so everything passes in clear"


def run(options: argparse.Namespace) -> int:
    """Leaves secure mode; 0 if it is off then, 1 if the operator thought better of it."""
    with Record() as record:
        instance = options.instance
        if not secure_mode.is_on() and not kept.is_secure(instance):
            record.say("secure mode is not on")
            return exit_codes.OK
        if not options.yes and not _agreed():
            record.say("ipsecctl: secure mode stays on")
            return exit_codes.STRANGE
        record.detail(f"end of secure mode of {instance}, asked for by {asker()}")
        secure_mode.leave(instance)
        record.say(RUNNING if lock_file.look(instance).held else STOPPED)
        return exit_codes.OK


def _agreed() -> bool:
    """Whether the operator says yes; a command that runs without a terminal is not asked."""
    if not sys.stdin.isatty():
        return True
    print(QUESTION, end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
