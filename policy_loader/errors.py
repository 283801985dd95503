"""What is wrong with a policy, and where: the error family of the loader, which never holds the value of a secret."""

import difflib
import re
from collections.abc import Collection, Iterable

from ipc.value import value

Key = tuple[str | int, ...]
"""The way to a value of the file: names of tables and keys, and indices (from 0) into lists."""


@value
class Problem:
    """One thing that is wrong (or, as a warning, doubtful) at `key`: what it is, and what would be right."""

    key: Key
    text: str


class PolicyError(Exception):
    """The family: a policy is not good. `complaints` are all that was found, FILE:LINE:COLUMN: key: text each."""

    def __init__(self, complaints: Iterable[str]) -> None:
        self.complaints = tuple(complaints)
        super().__init__("\n".join(self.complaints))


MOST_PROBLEMS = 1000
"""No more are looked for: one message holds so many, and nobody reads more."""
_ANOTHER_KEY = re.compile(r"""\s=|=\s|=["']""")
_MOST_COMPARED = 100
_MOST_LISTED = 24


def nearest(word: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown word: the known one that is meant, or those there are."""
    if not known:
        return "there are none"
    candidates = [other for other in known if len(known) <= _MOST_COMPARED or other[:1] == word[:1]]
    close = difflib.get_close_matches(word[:100], candidates[:_MOST_COMPARED], n=1)
    if close:
        return f'did you mean "{printable(close[0])}"?'
    listed = ", ".join(printable(other, 40) for other in sorted(known)[:_MOST_LISTED])
    return f"known: {listed}" + (", …" if len(known) > _MOST_LISTED else "")


def printable(text: str, longest: int = 200) -> str:
    """`text` with control characters escaped, and not endless: fit for one line of a log."""
    clean = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: longest + 1])
    return clean if len(clean) <= longest else clean[:longest] + "…"


def quoted(text: str, longest: int = 60) -> str:
    """`text` as it stood in a policy, in quotes; but not if it may be two values between which a quote is missing."""
    return "this" if may_be_two(text) else f'"{printable(text, longest)}"'


def may_be_two(value: str) -> bool:
    """Whether a value looks as if it had swallowed another key with its own: a secret may be in it."""
    return bool(_ANOTHER_KEY.search(value))
