"""The line of a policy file that a complaint is about, with a mark below the place, and without any secret."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

WIDEST = 120
"""Characters of a line that are shown."""
BEFORE = 60
"""Of which so many stand before the place, in a longer line."""

_MASK = "***"
_HEADER_OR_REMARK = re.compile(r"[ \t]*(?:\[[^\"'=]*$|#|$)")
_KEY = re.compile(r"[ \t]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Both from 1; the column counts characters."""

    line: int
    column: int


def excerpt(text: str, place: Place, hidden: Sequence[range]) -> str:
    """Two lines, with a line's end before each: the line, and the mark. From a hidden place on a line is not shown.

    Nothing where the line is blank.
    """
    lines = text.split("\n")
    start = sum(len(line) + 1 for line in lines[: place.line - 1])
    line = lines[place.line - 1]
    if not line.strip():
        return ""
    cuts = [max(one.start, start) - start for one in hidden if one.start <= start + len(line) and one.stop > start]
    column = place.column - 1
    if cuts:
        line = line[: min(cuts)] + _MASK
        column = min(column, min(cuts))
    first = max(0, column - BEFORE) if len(line) > WIDEST else 0
    shown = "".join(char if char.isprintable() else " " for char in line[first : first + WIDEST])
    return f"\n    {shown.rstrip()}\n    {' ' * (column - first)}^"


def hidden_of_broken(text: str, place: Place, public: Collection[str]) -> tuple[range, ...]:
    """What must not be shown of a line of a text that is not TOML, and so can't be followed.

    Headers and remarks may be shown, and a key; its value only if the key is in `public`, and only up to the place if
    another value may follow. A line that may be within a text of several lines is hidden whole.
    """
    lines = text.split("\n")
    start = sum(len(line) + 1 for line in lines[: place.line - 1])
    line = lines[place.line - 1]
    end = start + len(line)
    if any(text[:start].count(quotes) % 2 for quotes in ('"""', "'''")):
        return (range(start, end + 1),)
    if _HEADER_OR_REMARK.match(line):
        return ()
    key = _KEY.match(line)
    if key is None:
        return (range(start, end + 1),)
    if key[1] not in public:
        return (range(start + key.end(), end + 1),)
    if any(char in line[place.column - 1 :] for char in "=\"'"):
        return (range(start + max(place.column - 1, key.end()), end + 1),)
    return ()
