"""How much longer than usual everything may take: for machines that are many times slower, such as emulators.

The bounds that people are promised (a start within ten seconds, a status within two) are for ordinary machines.
IPSECD_PATIENCE, a number from 1 to 100 in the environment of ipsecctl or ipsecd, multiplies them.
"""

import os

VARIABLE = "IPSECD_PATIENCE"
LONGEST = 100.0


def patient(seconds: float) -> float:
    """The bound `seconds`, as it is on this machine; a value of IPSECD_PATIENCE that makes no sense counts as 1."""
    try:
        factor = float(os.environ.get(VARIABLE, "1"))
    except ValueError:
        return seconds
    return seconds * min(factor, LONGEST) if factor >= 1.0 else seconds
