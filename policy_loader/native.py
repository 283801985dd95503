"""ipsecd's own policy language: TOML text to values, with the line and column of every key.

`tomli` (the standard library's parser, compiled: large policies are read in a quarter of the time) alone decides what
is TOML and what it says. It gives no positions, so a second walk over the same text, made only when something has to be
said about the file, finds where each key and list item stands. That walk may take for granted what tomli has checked,
which keeps it short: it must only not be confused, never judge.

A complaint shows the line that it is about, and never a secret: values are shown only where `reader.is_public` says so.
"""

import bisect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import tomli

from policy_loader.errors import Key, PolicyError, Problem, may_be_two, printable
from policy_loader.excerpt import Place, excerpt, hidden_of_broken
from policy_loader.reader import is_public, public_keys

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
"""How tomli's sentences begin, and what an operator is told instead: never the text itself, which may be a secret."""

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
_MANY_BRACKETS = re.compile(r"(?:[\[{]\s*){20}")
_MANY_DIGITS = re.compile(r"[0-9_]{4000}")

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
        self._places: _Walk | None = None
        self._line_starts: list[int] = []

    def position(self, key: Key) -> Position:
        """Where `key` stands, or, if it is missing, the table that should have it."""
        offset = self._offset(key)
        line = bisect.bisect_right(self._line_starts, offset)
        return Position(line, offset - self._line_starts[line - 1] + 1)

    def complaint(self, problem: Problem) -> str:
        """`problem` as FILE:LINE:COLUMN: key: text, and below it the line itself with a mark."""
        line, column = self.position(problem.key)
        key = ".".join(printable(part) for part in problem.key if isinstance(part, str))
        shown = excerpt(self._text, Place(line=line, column=column), self._walk().hidden)
        return _complaint(self.path, Position(line, column), f"{key or 'file'}: {problem.text}", shown)

    def _offset(self, key: Key) -> int:
        offsets = self._walk().offsets
        while key and key not in offsets:
            key = key[:-1]
        return offsets.get(key, 0)

    def _walk(self) -> "_Walk":
        if self._places is None:
            self._places = _Walk(self._text)
            self._line_starts = [0, *(found.end() for found in re.finditer("\n", self._text))]
        return self._places


def parse(path: str, content: bytes) -> Document:
    """The values of a policy file; PolicyError where it is not TOML in UTF-8, whatever it is instead."""
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        text = content.decode("utf-8", "replace").replace("\r\n", "\n")
        raise _syntax_error(path, "not UTF-8, which a policy must be", text, Position(line, column)) from None
    try:
        return Document(path, tomli.loads(text), text)
    except tomli.TOMLDecodeError as error:
        words = next((ours for theirs, ours in _WORDS if error.msg.startswith(theirs)), "this is not TOML")
        raise _syntax_error(path, words, text, Position(error.lineno, error.colno)) from None
    except RecursionError:
        place = _place_of(_MANY_BRACKETS, text)
        raise _syntax_error(path, "lists or tables are nested too deeply", text, place) from None
    except ValueError:  # an integer of thousands of digits, of which tomli does not say the place
        raise _syntax_error(path, "a number has too many digits", text, _place_of(_MANY_DIGITS, text)) from None


def _place_of(pattern: re.Pattern[str], text: str) -> Position:
    found = pattern.search(text)
    before = text[: found.start()] if found else ""
    return Position(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _syntax_error(path: str, what: str, text: str, place: Position) -> PolicyError:
    where = Place(line=place.line, column=place.column)
    shown = excerpt(text, where, hidden_of_broken(text, where, public_keys()))
    return PolicyError((_complaint(path, place, f"syntax: {what}", shown),))


def _complaint(path: str, place: Position, what: str, shown: str) -> str:
    text = f"{printable(path)}:{place.line}:{place.column}: {what}"
    return f"{text[: LONGEST_COMPLAINT - len(shown)]}{shown}"


class _Walk:
    """Goes once over TOML that tomli has accepted, and notes the offset of each key and list item."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._table_counts: dict[Key, int] = {}
        self.offsets: dict[Key, int] = {}
        """Offset in characters by key."""
        self.hidden: list[range] = []
        """Where values stand that may be secrets, in order."""
        self._document()

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
            self.offsets.setdefault(table, start)
        table = (*table, parts[-1][0])
        if many:
            self.offsets.setdefault(table, start)
            self._table_counts[table] = self._table_counts.get(table, 0) + 1
            table = self._last_of(table)
        self.offsets.setdefault(table, start)
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
            parts.append((next(iter(tomli.loads(f"{raw} = 0"))) if raw[:1] in ("'", '"') else raw, start))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _key_and_value(self, table: Key) -> None:
        key = table
        for name, start in self._key_parts():
            key = (*key, name)
            self.offsets.setdefault(key, start)
        self._at += 1  # the "="
        self._skip(_SPACE)
        start = self._at
        self._value(key)
        # Of a table in braces, each value is judged by itself.
        value = self._text[start : self._at]
        if not value.startswith("{") and (not is_public(key) or may_be_two(value)):
            self.hidden.append(range(start, self._at))

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
            self.offsets[*key, index] = self._at
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
