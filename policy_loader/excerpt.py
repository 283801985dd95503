"""The line of a policy file that a complaint is about, with a mark below the place, and without any secret."""

import re
from collections.abc import Mapping, Sequence

from ipc.value import value

WIDEST = 120
"""Characters of a line that are shown."""
BEFORE = 60
"""Of which so many stand before the place, in a longer line."""

_MASK = "***"
_HEADER = re.compile(r"[ \t]*\[{1,2}[ \t]*(?:setup|proposals|addresses|defaults|peers|rules)(?:[\].][^\"'=]*)?$")
_KEY = re.compile(r"[ \t]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*")


@value
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


def hidden_of_broken(text: str, place: Place, public: Mapping[str, bool]) -> tuple[range, ...]:
    """What must not be shown of a line of a text that is not TOML, and so can't be followed.

    What looks like a key may be part of a secret of several lines, and a quote that is missing makes one value of two.
    So a header is shown, and a key that is known; its value only if `public` says so of the key, and nothing in it can
    end or begin another value.
    """
    lines = text.split("\n")
    start = sum(len(line) + 1 for line in lines[: place.line - 1])
    line = lines[place.line - 1]
    end = start + len(line)
    if any(text[:start].count(quotes) % 2 for quotes in ('"""', "'''")):
        return (range(start, end + 1),)
    if _HEADER.match(line):
        return ()
    key = _KEY.match(line)
    if key is None or key[1] not in public:
        return (range(start, end + 1),)
    if public[key[1]] and not any(char in line[key.end() :] for char in "=\"'#"):
        return ()
    return (range(start + key.end(), end + 1),)
