"""Plain text for people: aligned tables, durations and sizes; colours on a terminal only."""

import os
import sys
from collections.abc import Sequence

RED, GREEN, BOLD = "31", "32", "1"
CAPABILITY_NAMES = {12: "net_admin"}
"""By number (linux/capability.h), those that a role of ours may have."""


def coloured(text: str, colour: str) -> str:
    """`text` in `colour`, where somebody sees colours (https://no-color.org)."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Lines with columns under each other; no blanks at the ends."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in (header, *rows)
    ]


def duration(seconds: float) -> str:
    """The two largest units: 3d 4h, 5m 12s, 0s."""
    left = int(seconds)
    units: list[str] = []
    for size, name in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if left >= size or units or size == 1:
            units.append(f"{left // size}{name}")
            left %= size
    return " ".join(unit for unit in units[:2] if not unit.startswith("0") or len(units) == 1)


def count(number: int, what: str) -> str:
    """So many of them, in words: 1 rule, 2 rules."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size(count: int) -> str:
    """Bytes in the unit that gives the shortest number."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def capabilities(mask: int) -> str:
    """The capabilities of a bit mask by name, or none."""
    names = [CAPABILITY_NAMES.get(bit, f"cap_{bit}") for bit in range(mask.bit_length()) if mask >> bit & 1]
    return ",".join(names) or "none"
