"""`ipsecctl enable`: ipsecd comes up at boot."""

import argparse

from ipsecctl.at_boot import change
from ipsecctl.record import Record


def run(options: argparse.Namespace) -> int:
    """Has it come up at boot; 0 if all who start things at boot know."""
    with Record() as record:
        return change(options.instance, record, enabled=True)
