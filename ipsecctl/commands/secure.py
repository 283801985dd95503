"""`ipsecctl secure`: from now on the kernel drops what the policy does not allow, with or without ipsecd."""

import argparse

from ipc import kept
from ipsecctl import exit_codes, lock_file, secure_mode
from ipsecctl.asker import asker
from ipsecctl.record import Record

ON = "secure mode is on"
RUNNING = f"{ON}: what the policy does not allow is dropped"
STOPPED = f"{ON}: ipsecd does not run, so everything is dropped"


def run(options: argparse.Namespace) -> int:
    """Enters secure mode; with --boot only if it is remembered. 0 if it is as asked."""
    with Record() as record:
        if options.boot:
            return at_boot(options.instance, record)
        record.detail(f"secure mode of {options.instance}, asked for by {asker()}")
        secure_mode.remember(options.instance)
        secure_mode.enter()
        record.say(RUNNING if lock_file.look(options.instance).held else STOPPED)
        return exit_codes.OK


def at_boot(instance: str, record: Record) -> int:
    """What the boot does: enters the mode if it was on when the machine went down."""
    if not kept.is_secure(instance):
        record.say("secure mode was not on: nothing to do")
        return exit_codes.OK
    secure_mode.enter()
    record.say(f"{ON}, as before the boot: everything is dropped until ipsecd runs")
    return exit_codes.OK
