"""ipsecd's own policy language: TOML text to values, with the line and column of every key.

`tomllib` alone decides what is TOML and what it says. It gives no positions, so a second walk over the same text,
made only when something has to be said about the file, finds where each key and list item stands. That walk may take
for granted what tomllib has checked, which keeps it short: it must only not be confused, never judge.
"""

import bisect
import re
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from policy_loader.errors import Key, PolicyError, Problem, printable

_AT = re.compile(r"^(?P<text>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.DOTALL)
_STRAY = "a character that must not stand here: is a quote missing, or is this a control character?"
_NO_END = "a quote is missing: the text that begins before this has no end"
_TWICE = "a key or table that stands there already, or that another one excludes"
_WORDS = (
    ("Illegal character", _STRAY),
    ("Found invalid character", _STRAY),
    ("Unterminated string", _NO_END),
    ('Expected "', _NO_END),
    ("Invalid value", 'not a value: text stands in quotes ("like this"), numbers and true and false without'),
    ("Invalid statement", 'neither a table ("[peers.NAME]") nor a key with its value ("key = ...")'),
    ("Invalid initial character for a key part", "no key: a key has letters, digits, - and _, or stands in quotes"),
    ("Invalid date or datetime", "a date that does not exist; text stands in quotes"),
    ("Invalid hex value", r"behind \u stand four hex digits, behind \U eight; for a backslash write two"),
    ("Escaped character", r"\u or \U with a number that is no character"),
    ("Unescaped", r"a backslash that begins nothing known: write two, or use single quotes"),
    ("Expected '=' after a key", 'behind a key comes "=": key = "value"'),
    ("Expected newline", "something stands behind the value: one key a line"),
    ("Expected ']", 'the table\'s header has no end: "]" is missing'),
    ("Unclosed array", 'a list has no end here: "," or "]" is missing'),
    ("Unclosed inline table", 'a table in braces has no end here: "," or "}" is missing'),
    ("Cannot ", _TWICE),
    ("Duplicate inline table key", _TWICE),
)
"""How tomllib's sentences begin, and what an operator is told instead: never the text itself, which may be a secret."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*+")
_SPACE = re.compile(r"[ \t]*+")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]++|"(?:[^"\\]|\\.)*+"|'[^']*+'""")
_STRING = re.compile(
    r'"""(?:\\[\s\S]|[^\\])*?""""{0,2}'  # up to two quotes may stand before the closing three
    r"|'''[\s\S]*?''''{0,2}"
    r'|"(?:[^"\\]|\\.)*+"'
    r"|'[^']*+'"
)
_SCALAR = re.compile(r"[^,\]}#\n]++")

LONGEST_COMPLAINT = 8000
"""In characters: less than a message holds."""


class Position(NamedTuple):
    """Both from 1; the column counts characters."""

    line: int
    column: int


class Document:
    """A policy file that is TOML: its path, its values, and where they stand."""

    def __init__(self, path: str, data: Mapping[str, Any], text: str) -> None:
        self.path = path
        self.data = data
        self._text = text
        self._offsets: dict[Key, int] | None = None
        self._line_starts: list[int] = []

    def position(self, key: Key) -> Position:
        """Where `key` stands, or, if it is missing, the table that should have it."""
        offsets = self._positions()
        while key and key not in offsets:
            key = key[:-1]
        offset = offsets.get(key, 0)
        lines = self._line_starts
        line = bisect.bisect_right(lines, offset)
        return Position(line, offset - lines[line - 1] + 1)

    def complaint(self, problem: Problem) -> str:
        """`problem` as FILE:LINE:COLUMN: key: text."""
        line, column = self.position(problem.key)
        key = ".".join(printable(part) for part in problem.key if isinstance(part, str))
        return f"{printable(self.path)}:{line}:{column}: {key or 'file'}: {problem.text}"[:LONGEST_COMPLAINT]

    def _positions(self) -> dict[Key, int]:
        if self._offsets is None:
            self._offsets = _Walk(self._text).offsets()
            self._line_starts = [0, *(found.end() for found in re.finditer("\n", self._text))]
        return self._offsets


def parse(path: str, content: bytes) -> Document:
    """The values of a policy file; PolicyError where it is not TOML in UTF-8, whatever it is instead."""
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        raise _syntax_error(path, "not UTF-8, which a policy must be", line, column) from None
    try:
        return Document(path, tomllib.loads(text), text)
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(path, str(error), text) from None
    except RecursionError:
        raise _syntax_error(path, "lists or tables are nested too deeply", 1, 1) from None
    except ValueError:  # an integer of thousands of digits, of which tomllib does not say the place
        raise _syntax_error(path, "a number has too many digits", 1, 1) from None


def _syntax_error(path: str, text: str, line: int, column: int) -> PolicyError:
    return PolicyError((f"{printable(path)}:{line}:{column}: syntax: {text}",))


def _toml_error(path: str, text: str, source: str) -> PolicyError:
    found = _AT.match(text)
    if found is None:
        return _syntax_error(path, "this is not TOML", 1, 1)
    words = next((ours for theirs, ours in _WORDS if found["text"].startswith(theirs)), "this is not TOML")
    if found["line"] is not None:
        return _syntax_error(path, words, int(found["line"]), int(found["column"]))
    return _syntax_error(path, f"{words}, at the end of the file", source.count("\n") + 1, 1)


class _Walk:
    """Goes once over TOML that tomllib has accepted, and notes the offset of each key and list item."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._offsets: dict[Key, int] = {}
        self._table_counts: dict[Key, int] = {}

    def offsets(self) -> dict[Key, int]:
        """Offset in characters by key. What is nested too deeply to be followed is left out."""
        try:
            self._document()
        except RecursionError:
            return self._offsets
        return self._offsets

    def _document(self) -> None:
        table: Key = ()
        while not self._ended():
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._key_and_value(table)

    def _ended(self) -> bool:
        self._skip(_BLANK)
        return self._at >= len(self._text)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            # Not TOML after all: go on behind it, so that the walk ends.
            self._at += 1
            return ""
        self._at = found.end()
        return found[0]

    def _header(self) -> Key:
        start = self._at
        many = self._text.startswith("[[", start)
        self._at += 2 if many else 1
        parts = self._key_parts()
        self._at += 2 if many else 1
        table: Key = ()
        for name, _ in parts[:-1]:
            table = self._last_of((*table, name))
            self._offsets.setdefault(table, start)
        table = (*table, parts[-1][0])
        if many:
            self._offsets.setdefault(table, start)
            self._table_counts[table] = self._table_counts.get(table, 0) + 1
            table = self._last_of(table)
        self._offsets.setdefault(table, start)
        return table

    def _last_of(self, table: Key) -> Key:
        count = self._table_counts.get(table)
        return table if count is None else (*table, count - 1)

    def _key_parts(self) -> list[tuple[str, int]]:
        parts = []
        while True:
            self._skip(_SPACE)
            start = self._at
            raw = self._skip(_KEY_PART)
            parts.append((next(iter(tomllib.loads(f"{raw} = 0"))) if raw[:1] in ("'", '"') else raw, start))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _key_and_value(self, table: Key) -> None:
        key = table
        for name, start in self._key_parts():
            key = (*key, name)
            self._offsets.setdefault(key, start)
        self._at += 1  # the "="
        self._skip(_SPACE)
        self._value(key)

    def _value(self, key: Key) -> None:
        first = self._text[self._at : self._at + 1]
        if first == "[":
            self._list(key)
        elif first == "{":
            self._inline_table(key)
        else:
            self._skip(_STRING if first in ("'", '"') else _SCALAR)

    def _list(self, key: Key) -> None:
        self._at += 1
        index = 0
        while not self._ended():
            if self._text.startswith("]", self._at):
                self._at += 1
                return
            if self._text.startswith(",", self._at):
                self._at += 1
                continue
            self._offsets[*key, index] = self._at
            self._value((*key, index))
            index += 1

    def _inline_table(self, key: Key) -> None:
        self._at += 1
        while not self._ended():
            if self._text.startswith("}", self._at):
                self._at += 1
                return
            if self._text.startswith(",", self._at):
                self._at += 1
                continue
            self._key_and_value(key)
