"""`ipsecctl reload`: has the policy file read again."""

import argparse

from ipc import messages as m
from ipsecctl import lock_file
from ipsecctl.client import ask
from ipsecctl.errors import CommandError

RELOAD_WITHIN_S = 130.0


def run(options: argparse.Namespace) -> int:
    """Reloads; 0 if the file is in force now."""
    if not lock_file.look(options.instance).held:
        raise CommandError("IPsec is not running")
    done = ask(options.instance, m.ReloadCommand(), RELOAD_WITHIN_S)
    for line in done.lines:
        print(line)
    return done.exit_code
