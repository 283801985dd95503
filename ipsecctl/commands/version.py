"""`ipsecctl version`."""

import argparse

from ipsecctl import exit_codes


def run(_options: argparse.Namespace) -> int:
    """Says the version of the installed package."""
    from importlib.metadata import version

    print(f"ipsecd {version('ipsecd')}")
    return exit_codes.OK
