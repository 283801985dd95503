"""A parsed file to a draft: every table by its declaration in `model.py`, and everything that is wrong with its shape.

The templates (`/etc/ipsec.templates`) are read first, by the same code: what they say of [setup], [proposals.NAME],
[addresses] and [defaults] holds where the policy file itself says nothing.
"""

import functools
import marshal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ipc.types import Action
from ipc.value import value
from policy_loader import values
from policy_loader.addresses import Spans, check_group_name, parse_spans
from policy_loader.errors import Key, Problem, nearest, printable
from policy_loader.keys import KeyFacts, keys_of
from policy_loader.model import (
    DEFAULT_PROPOSALS,
    DEFAULTS,
    Draft,
    PeerEntry,
    ProposalSet,
    Reference,
    Rule,
    RuleEntry,
    Setup,
)
from policy_loader.values import BadItems

T = TypeVar("T")

_Parsers = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class _TopLevel:
    kind: type
    header: str


_SHARED: Mapping[str, _TopLevel] = {
    "setup": _TopLevel(dict, "[setup]"),
    "proposals": _TopLevel(dict, "[proposals.NAME]"),
    "addresses": _TopLevel(dict, "[addresses]"),
    "defaults": _TopLevel(dict, "[defaults.peers] or [defaults.rules]"),
}
_OWN: Mapping[str, _TopLevel] = {
    "peers": _TopLevel(dict, "[peers.NAME]"),
    "rules": _TopLevel(list, "[[rules]], as often as there are rules"),
}
TABLES: Mapping[str, _TopLevel] = {**_SHARED, **_OWN}


@value
class Templates:
    """What a file of templates says, or the shared part of a policy file with that filled in."""

    setup: Mapping[str, Any] = field(default_factory=dict)
    """Values by key."""
    proposals: Mapping[str, ProposalSet] = field(default_factory=dict)
    groups: Mapping[str, Spans] = field(default_factory=dict)
    peers: Mapping[str, Any] = field(default_factory=dict)
    """Defaults by key."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


NO_TEMPLATES = Templates()


def read_templates(data: Mapping[str, Any]) -> Templates:
    """The templates of a parsed file, with all that is wrong with them."""
    reader = _Reader(data, _SHARED, NO_TEMPLATES)
    reader.refuse_unknown("; peers and rules stand in the policy file itself")
    return reader.templates()


@value
class WasRead:
    """A file that was read, and what came of it: nothing was wrong with it."""

    data: Mapping[str, Any] = field(repr=False)
    templates: Templates = field(repr=False)
    draft: Draft = field(repr=False)

    def rules_for(self, data: Mapping[str, Any], templates: Templates) -> Mapping[bytes, Rule]:
        """Its rules by their tables, if what stands in `data` beside rules and peers makes the same of a table."""
        if self.templates != templates or _exactly(_shared_of(self.data)) != _exactly(_shared_of(data)):
            return {}
        tables = self.data.get("rules", ())
        return {_exactly(tables[rule.index]): rule for rule in self.draft.rules}


def _shared_of(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data.get(name) for name in ("addresses", "defaults")}


def _exactly(table: Any) -> bytes:
    """What tells a table from every other one: 1, 1.0 and true, too, which are equal to Python."""
    try:
        return marshal.dumps(table, 2)
    except ValueError:  # a date, which has no place in a policy
        return b""


def read(data: Mapping[str, Any], templates: Templates = NO_TEMPLATES, former: WasRead | None = None) -> Draft:
    """The draft of a parsed policy file, with all that is wrong with its shape.

    Of rules that stand in `former` just so, it has the same objects.
    """
    reader = _Reader(data, TABLES, templates)
    reader.refuse_unknown("")
    return reader.draft({} if former is None else former.rules_for(data, templates))


def is_public(key: Key) -> bool:
    """Whether a message may show what stands at `key`: only where a key is known, and known to hold no secret."""
    match [part for part in key if isinstance(part, str)]:
        case ["setup", name]:
            return name in keys_of(Setup)
        case ["addresses", _]:
            return True
        case ["proposals", _, name]:
            return name in keys_of(ProposalSet)
        case ["peers", _, name] | ["defaults", "peers", name]:
            return name in keys_of(PeerEntry) and not keys_of(PeerEntry)[name].secret
        case ["rules", name] | ["defaults", "rules", name]:
            return name in keys_of(RuleEntry)
    return False


@functools.cache
def public_keys() -> Mapping[str, bool]:
    """The names of all keys, whatever table they stand in, and whether a message may show their values."""
    tables = (Setup, ProposalSet, PeerEntry, RuleEntry)
    return {name: not facts.secret for table in tables for name, facts in keys_of(table).items()}


class _Reader:
    def __init__(self, data: Mapping[str, Any], tables: Mapping[str, _TopLevel], templates: Templates) -> None:
        self._data = data
        self._tables = tables
        self._templates = templates
        self._problems: list[Problem] = []
        self._damaged: list[Reference] = []
        self._groups = self._read_groups()

    def refuse_unknown(self, hint: str) -> None:
        """Says which top-level tables there are not."""
        for name in self._data:
            if name not in self._tables:
                known = hint if hint and name in TABLES else f"; {nearest(printable(name), self._tables)}"
                self._wrong((name,), f"no such table here{known}")

    def templates(self) -> Templates:
        """What all files may have, with the templates below it."""
        below = self._templates
        setup, _ = self._values(Setup, self._table("setup"), ("setup",))
        proposals = self._read_named(ProposalSet, "proposals", lambda values: ProposalSet(**values))
        peers, rules = self._read_defaults("peers"), self._read_defaults("rules")
        return Templates(
            setup={**below.setup, **setup},
            proposals={**below.proposals, **proposals},
            groups=self._groups,
            peers={**below.peers, **peers},
            rules={**below.rules, **rules},
            problems=tuple(self._problems),
        )

    def draft(self, known: Mapping[bytes, Rule]) -> Draft:
        """The whole policy."""
        shared = self.templates()
        peers = self._read_named(PeerEntry, "peers", lambda values: PeerEntry(**{**shared.peers, **values}), given=True)
        rules = self._read_rules(shared.rules, known)
        setup = self._setup(shared.setup)
        named = (DEFAULT_PROPOSALS, *self._templates.proposals, *self._table("proposals"))
        return Draft(
            setup=setup,
            proposals={DEFAULT_PROPOSALS: ProposalSet(), **shared.proposals},
            named_proposals=frozenset(named),
            peers=peers,
            named_peers=frozenset(self._table("peers")),
            rules=tuple(rules),
            damaged=tuple(self._damaged),
            problems=tuple(dict.fromkeys(self._problems)),
        )

    # --------------------------------------------------------- tables

    def _setup(self, found: Mapping[str, Any]) -> Setup | None:
        if "setup" not in self._data and not found:
            self._wrong(("setup",), "is missing: a policy begins with a [setup] table")
            return None
        if type(self._data.get("setup", {})) is not dict:
            return None
        missing = [name for name, facts in keys_of(Setup).items() if facts.missing and name not in found]
        for name in missing:
            if name not in self._table("setup"):
                self._wrong(("setup", name), keys_of(Setup)[name].missing)
        return None if missing else Setup(**found)

    def _read_groups(self) -> Mapping[str, Spans]:
        groups = dict(self._templates.groups)
        for name, items in self._table("addresses").items():
            try:
                check_group_name(name)
            except ValueError as error:
                self._wrong(("addresses", name), str(error))
            # One may name those above it.
            spans = self._parsed(functools.partial(parse_spans, groups=groups), items, ("addresses", name))
            groups[name] = () if spans is None else spans
        return groups

    def _read_defaults(self, kind: str) -> Mapping[str, Any]:
        table, key = self._table("defaults"), ("defaults", kind)
        for name in table:
            if name not in DEFAULTS:
                self._wrong(("defaults", name), f"no such table here; {nearest(printable(name), DEFAULTS)}")
        if kind not in table:
            return {}
        cls, allowed = DEFAULTS[kind]
        return self._values(cls, table[kind], key, self._parsers(cls, allowed))[0]

    def _read_named(
        self, cls: type, kind: str, make: Callable[[dict[str, Any]], T], given: bool = False
    ) -> dict[str, T]:
        good: dict[str, T] = {}
        for name, table in self._table(kind).items():
            key = (kind, name)
            try:
                values.parse_name(name)
            except ValueError as error:
                self._wrong(key, str(error))
            found, whole = self._values(cls, table, key)
            if self._has_all(cls, table, key) and whole:
                good[name] = make({**found, "given": frozenset(found)} if given else found)
            elif isinstance(table, dict):
                self._damage(table, key)
        return good

    def _read_rules(self, defaults: Mapping[str, Any], known: Mapping[bytes, Rule]) -> list[Rule]:
        rules = []
        parsers = self._parsers(RuleEntry)
        for index, table in enumerate(self._table("rules")):
            before = known.get(_exactly(table)) if known else None
            if before is not None:
                rules.append(before if before.index == index else Rule(index=index, entry=before.entry))
                continue
            found, whole = self._values(RuleEntry, table, ("rules", index), parsers)
            if self._has_all(RuleEntry, table, ("rules", index)) and whole:
                filled = {**defaults, **found} if defaults and found["action"] is Action.PROTECT else found
                rules.append(Rule(index=index, entry=RuleEntry(**filled, given=frozenset(found))))
            elif isinstance(table, dict):
                self._damage(table, ("rules", index))
        return rules

    # --------------------------------------------------------- values

    def _values(self, cls: type, table: Any, key: Key, parsers: _Parsers | None = None) -> tuple[dict[str, Any], bool]:
        """The good values of a table, and whether all of them are; what is wrong is said."""
        if not isinstance(table, dict):
            self._wrong(key, "a table belongs here, with keys of its own")
            return {}, False
        parsers = parsers or self._parsers(cls)
        found = {}
        for name, given in table.items():
            parse = parsers.get(name)
            if parse is None:
                self._wrong((*key, name), f"no such key here; {nearest(printable(name), parsers)}")
                continue
            try:
                found[name] = parse(given)
            except ValueError as error:
                self._bad_value((*key, name), error)
        return found, len(found) == len(table)

    def _parsers(self, cls: type, allowed: tuple[str, ...] | None = None) -> _Parsers:
        return {
            name: functools.partial(facts.parse, groups=self._groups) if facts.grouped else facts.parse
            for name, facts in keys_of(cls).items()
            if allowed is None or name in allowed
        }

    def _parsed(self, parse: Callable[[Any], T], value: Any, key: Key) -> T | None:
        try:
            return parse(value)
        except ValueError as error:
            self._bad_value(key, error)
            return None

    def _bad_value(self, key: Key, error: ValueError) -> None:
        if isinstance(error, BadItems):
            for index, text in error.items:
                self._wrong((*key, index), text)
        else:
            self._wrong(key, str(error))

    def _has_all(self, cls: type, table: Any, key: Key) -> bool:
        if not isinstance(table, dict):
            return False
        required = _required(cls)
        if table.keys() >= required.keys():
            return True
        missing = [name for name in required if name not in table]
        for name in missing:
            self._wrong((*key, name), required[name].missing)
        return False

    def _damage(self, table: Mapping[str, Any], key: Key) -> None:
        peer, proposals = _text_or_none(table, "peer"), _text_or_none(table, "proposals")
        self._damaged.append(Reference(key=key, peer=peer, proposals=proposals))

    def _table(self, name: str) -> Any:
        """The value of a top-level table; empty where it is missing or something else, which is said."""
        kind = self._tables[name].kind if name in self._tables else dict
        value = self._data.get(name, kind()) if name in self._tables else kind()
        if type(value) is kind:
            return value
        self._wrong((name,), f"must be a table: write {self._tables[name].header}")
        return kind()

    def _wrong(self, key: Key, text: str) -> None:
        self._problems.append(Problem(key=key, text=text))


@functools.cache
def _required(cls: type) -> Mapping[str, KeyFacts]:
    return {name: facts for name, facts in keys_of(cls).items() if facts.missing}


def _text_or_none(table: Mapping[str, Any], name: str) -> str | None:
    value = table.get(name)
    return value if isinstance(value, str) and value else None
