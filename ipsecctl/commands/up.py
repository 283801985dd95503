"""`ipsecctl up`: has the SAs of a rule negotiated, and waits for them."""

import argparse

from ipc.wishes import OperatorVerb
from ipsecctl.wishes import carry_out


def run(options: argparse.Namespace) -> int:
    """Brings the rule up; 0 if it is."""
    return carry_out(options, OperatorVerb.UP, options.rule)
