"""`ipsecctl disable`: ipsecd does not come up at boot, and the next stop ends secure mode."""

import argparse

from ipsecctl.at_boot import change
from ipsecctl.record import Record


def run(options: argparse.Namespace) -> int:
    """Has it not come up at boot; what runs goes on. 0 if all who start things at boot know."""
    with Record() as record:
        return change(options.instance, record, enabled=False)
