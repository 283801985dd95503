"""`ipsecctl confirm`: the policy that would go back by itself stays."""

import argparse

from ipc import messages as m
from ipsecctl import lock_file
from ipsecctl.client import ask
from ipsecctl.errors import CommandError

CONFIRM_WITHIN_S = 15.0


def run(options: argparse.Namespace) -> int:
    """Confirms; 1 if nothing waits for that."""
    if not lock_file.look(options.instance).held:
        raise CommandError("IPsec is not running")
    done = ask(options.instance, m.ConfirmCommand(), CONFIRM_WITHIN_S)
    for line in done.lines:
        print(line)
    return done.exit_code
