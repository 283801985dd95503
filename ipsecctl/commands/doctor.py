"""`ipsecctl doctor`: what this machine can do for IPsec, what is missing, and the remedy. Nothing is changed."""

import argparse
import json

from ipsecctl import exit_codes
from ipsecctl.arguments import DEFAULT_SPD
from ipsecctl.checkup import Check, Verdict, examine
from ipsecctl.output import BOLD, GREEN, RED, coloured, table

_COLOURS = {Verdict.OK: GREEN, Verdict.NOTE: BOLD, Verdict.MISSING: RED}


def run(options: argparse.Namespace) -> int:
    """Says it, a line for each thing; 0 if ipsecd can work here, 1 if not."""
    checks = examine(options.instance, options.spd or DEFAULT_SPD)
    able = all(check.verdict is not Verdict.MISSING for check in checks)
    if options.json:
        print(json.dumps({"able": able, "checks": checks}, default=_plain, indent=2))
    else:
        print("\n".join(render(checks)))
    return exit_codes.OK if able else exit_codes.STRANGE


def render(checks: tuple[Check, ...]) -> list[str]:
    """Aligned lines; a remedy stands behind what is not as it should be."""
    rows = [(one.verdict.value, one.name, one.found + (f"; {one.remedy}" if one.remedy else "")) for one in checks]
    lines = table(("", "", ""), rows)[1:]
    return [coloured(line, _COLOURS[one.verdict]) for line, one in zip(lines, checks, strict=True)]


def _plain(check: Check) -> object:
    return {"name": check.name, "verdict": check.verdict.value, "found": check.found, "remedy": check.remedy}
