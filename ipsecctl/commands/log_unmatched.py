"""`ipsecctl log-unmatched`: has packets that no rule is about logged, or not any more, while ipsecd runs."""

import argparse

from ipc import messages as m
from ipc.patience import patient
from ipsecctl import lock_file
from ipsecctl.client import ask
from ipsecctl.errors import CommandError

DONE_WITHIN_S = patient(15.0)


def run(options: argparse.Namespace) -> int:
    """Switches it; 0 if it is as asked."""
    if not lock_file.look(options.instance).held:
        raise CommandError("IPsec is not running")
    done = ask(options.instance, m.LogUnmatchedCommand(on=options.switch == "on"), DONE_WITHIN_S)
    for line in done.lines:
        print(line)
    return done.exit_code
