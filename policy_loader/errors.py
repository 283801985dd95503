"""What is wrong with a policy, and where: the error family of the loader, which never holds the value of a secret."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

Key = tuple[str | int, ...]
"""The way to a value of the file: names of tables and keys, and indices (from 0) into lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong (or, as a warning, doubtful) at `key`: what it is, and what would be right."""

    key: Key
    text: str


class PolicyError(Exception):
    """The family: a policy is not good. `complaints` are all that was found, FILE:LINE:COLUMN: key: text each."""

    def __init__(self, complaints: Iterable[str]) -> None:
        self.complaints = tuple(complaints)
        super().__init__("\n".join(self.complaints))


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the known one that is meant, or all of them."""
    words = list(known)
    close = difflib.get_close_matches(word[:100], words, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return "known: " + ", ".join(words) if words else "there are none"


def printable(text: str, longest: int = 200) -> str:
    """`text` with control characters escaped, and not endless: fit for one line of a log."""
    clean = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: longest + 1])
    return clean if len(clean) <= longest else clean[:longest] + "…"
