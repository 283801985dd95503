"""`ipsecctl check`: all that is wrong with a policy file, and what is doubtful. Nothing is changed.

With --kernel a namespace aside tells what only the kernel can refuse.
"""

import argparse
import json
import re

from ipsecctl import exit_codes
from ipsecctl.arguments import DEFAULT_SPD
from ipsecctl.errors import BadPolicy
from ipsecctl.kernel_check import refusals
from ipsecctl.output import BOLD, GREEN, RED, coloured, count
from ipsecctl.policy_check import Checked, check, missing_interfaces

_PLACE = re.compile(r"(?P<file>.*?):(?P<line>\d+):(?P<column>\d+): (?P<key>.*?): (?P<text>.*)")


def run(options: argparse.Namespace) -> int:
    """Says it; 0 if the file is good, with warnings or without, 1 if not."""
    path = options.file or DEFAULT_SPD
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    checked: Checked | None = None
    try:
        checked = check(path, look_up=True)
        warnings = (*checked.warnings, *missing_interfaces(checked.policy))
        errors = refusals(checked.policy) if options.kernel else ()
    except BadPolicy as error:
        errors = error.complaints
    if options.json:
        found = {"file": path, "good": not errors, **_lists(errors, warnings)}
        print(json.dumps(found, indent=2))
    else:
        print("\n".join([*errors, *(f"warning: {one}" for one in warnings), _summary(path, errors, warnings, checked)]))
    return exit_codes.STRANGE if errors else exit_codes.OK


def _summary(path: str, errors: tuple[str, ...], warnings: tuple[str, ...], checked: Checked | None) -> str:
    if checked is None or errors:
        return coloured(f"{path} is not good: {count(len(errors), 'error')}", RED)
    said = f"{path} is good: {count(checked.policy.rules, 'rule')}"
    if warnings:
        return coloured(f"{said}, {count(len(warnings), 'warning')}", BOLD)
    return coloured(said, GREEN)


def _lists(errors: tuple[str, ...], warnings: tuple[str, ...]) -> dict[str, list[dict[str, object]]]:
    return {"errors": [_plain(one) for one in errors], "warnings": [_plain(one) for one in warnings]}


def _plain(complaint: str) -> dict[str, object]:
    """A complaint in its parts; one that is about no place in a file has a text only."""
    first = complaint.partition("\n")[0]
    place = _PLACE.fullmatch(first)
    if place is None:
        return {"text": first}
    return {**place.groupdict(), "line": int(place["line"]), "column": int(place["column"])}
