"""`ipsecctl rekey`: has SAs take new keys now."""

import argparse

from ipc.wishes import OperatorVerb
from ipsecctl.wishes import carry_out


def run(options: argparse.Namespace) -> int:
    """Rekeys; 0 if all that was meant is rekeyed."""
    return carry_out(options, OperatorVerb.REKEY, options.target)
