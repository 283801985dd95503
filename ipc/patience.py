"""How much longer than usual everything may take: for machines that are many times slower, such as emulators.

The bounds that people are promised (a start within ten seconds, a status within two) are for ordinary machines.
IPSECD_PATIENCE, a number from 1 to 100 in the environment of ipsecctl or ipsecd, multiplies them.
"""

import os

VARIABLE = "IPSECD_PATIENCE"
LONGEST = 100.0
PER_RULE_S = 0.005
"""What each rule of a policy adds to a bound: many times what it takes, so that very many rules are never too many."""
PER_BYTE_S = PER_RULE_S / 100
"""The same for each byte of a policy file; a rule has a hundred or more."""


def patient(seconds: float) -> float:
    """The bound `seconds`, as it is on this machine; a value of IPSECD_PATIENCE that makes no sense counts as 1."""
    try:
        factor = float(os.environ.get(VARIABLE, "1"))
    except ValueError:
        return seconds
    return seconds * min(factor, LONGEST) if factor >= 1.0 else seconds


def for_policy(seconds: float, *, size_bytes: int = 0, rules: int = 0) -> float:
    """The bound `seconds` for what has to do with a policy of this size, as it is on this machine."""
    return patient(seconds + size_bytes * PER_BYTE_S + rules * PER_RULE_S)


def for_policy_file(seconds: float, path: str) -> float:
    """The same for the policy in this file, if there is one."""
    try:
        return for_policy(seconds, size_bytes=os.stat(path).st_size)
    except OSError:
        return patient(seconds)
