"""`ipsecctl restart`: stop, then start. A policy file that is not good is found before anything is stopped."""

import argparse
import os

from ipsecctl import exit_codes, saved
from ipsecctl.commands.start import start
from ipsecctl.commands.stop import stop
from ipsecctl.errors import CommandError
from ipsecctl.policy_check import errors_of
from ipsecctl.record import Record


def run(options: argparse.Namespace) -> int:
    """Stops and starts the instance, with the policy file it had if no other is named; the exit code of the start."""
    with Record() as record:
        return restart(options.instance, options.spd, record)


def restart(instance: str, spd: str | None, record: Record) -> int:
    """Checks, stops, starts; the exit code of the start, or why there was no stop."""
    path = os.path.abspath(spd or saved.spd_path_of(instance))
    try:
        errors, code = errors_of(path), exit_codes.STRANGE
    except CommandError as error:
        errors, code = (str(error),), error.exit_code
    if errors:
        record.say(*errors, "ipsecctl: not restarted: the policy file is not good")
        return code
    stop(instance, record)
    return start(instance, path, record)
