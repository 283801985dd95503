"""`ipsecctl down`: deletes the SAs of a rule, or all of a peer, and tells the peer."""

import argparse

from ipc.wishes import OperatorVerb
from ipsecctl.wishes import carry_out


def run(options: argparse.Namespace) -> int:
    """Takes it down; 0 if it is."""
    return carry_out(options, OperatorVerb.DOWN, options.target)
