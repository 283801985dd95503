"""`ipsecctl confirm`: what would be undone by itself stays: a start, secure mode, or the policy of a reload."""

import argparse

from ipc import messages as m
from ipsecctl import exit_codes, lock_file, pending, secure_mode
from ipsecctl.client import ask
from ipsecctl.errors import CommandError

CONFIRM_WITHIN_S = 15.0


def run(options: argparse.Namespace) -> int:
    """Confirms; 1 if nothing waits for that."""
    if pending.end(options.instance):
        if secure_mode.is_on():
            secure_mode.remember(options.instance)
        print("confirmed: it stays")
        return exit_codes.OK
    if not lock_file.look(options.instance).held:
        raise CommandError("IPsec is not running")
    done = ask(options.instance, m.ConfirmCommand(), CONFIRM_WITHIN_S)
    for line in done.lines:
        print(line)
    return done.exit_code
