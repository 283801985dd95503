"""The policy file as pydantic sees it: which tables and keys there are, what each may hold, and every default.

Shape only. What the values mean together (references, families, overlaps) is `validate.py`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails

from ipc.algorithms import EspProposal, IkeProposal
from ipc.types import (
    ANY_PORT,
    Action,
    AuthMethod,
    DataPathKind,
    Identity,
    IpAddress,
    IpForward,
    Mode,
    PortRange,
    Prefix,
    Secret,
    StartAction,
    Unmatched,
)
from policy_loader import values
from policy_loader.errors import Key, Problem, nearest, printable
from policy_loader.proposals import parse_esp, parse_ike

# ------------------------------------------------------------- every default there is

DEFAULT_DATA_PATH = DataPathKind.AUTO
DEFAULT_IP_FORWARD = IpForward.LEAVE
DEFAULT_PROPOSALS = "default"
"""The proposals of a peer or rule that names none. [proposals.default] in the file replaces them."""
DEFAULT_IKE = (
    "aes256gcm16-prfsha384-x25519",
    "aes256gcm16-prfsha384-ecp384",
    "chacha20poly1305-prfsha256-x25519",
    "aes128gcm16-prfsha256-x25519-ecp256",
    "aes256-sha256-prfsha256-x25519-ecp256",
)
DEFAULT_ESP = ("aes256gcm16-esn", "aes256gcm16")
DEFAULT_LIVENESS_S = 30.0
DEFAULT_IKE_REKEY_S = 4 * 3600.0
DEFAULT_REKEY_S = 3600.0
LIFE_PER_REKEY = 1.25
"""`life` where it is not given, in `rekey`s: time enough for a rekey that must be repeated."""
DEFAULT_PROTOCOL = 0
DEFAULT_MODE = Mode.TUNNEL
DEFAULT_START = StartAction.ON_DEMAND

# ------------------------------------------------------------- words

ACTIONS = {"protect": Action.PROTECT, "bypass": Action.BYPASS, "discard": Action.DISCARD}
MODES = {"tunnel": Mode.TUNNEL, "transport": Mode.TRANSPORT}
STARTS = {
    "on-demand": StartAction.ON_DEMAND,
    "at-start": StartAction.AT_START,
    "respond-only": StartAction.RESPOND_ONLY,
}
DATA_PATHS = {"auto": DataPathKind.AUTO, "kernel": DataPathKind.KERNEL, "userspace": DataPathKind.USERSPACE}
UNMATCHED = {"discard": Unmatched.DISCARD, "bypass": Unmatched.BYPASS}
IP_FORWARD = {"leave": IpForward.LEAVE, "on": IpForward.ON, "off": IpForward.OFF}
AUTH = {"psk": AuthMethod.PSK}

MOST_PROPOSALS = 32
MOST_PREFIXES = 1024
MOST_INTERFACES = 256

_Name = Annotated[str, PlainValidator(values.parse_name)]
_Address = Annotated[IpAddress, PlainValidator(values.parse_address)]
_Identity = Annotated[Identity, PlainValidator(values.parse_identity)]
_Ports = Annotated[PortRange, PlainValidator(values.parse_ports)]
_Duration = Annotated[float, PlainValidator(values.parse_duration)]
_Prefixes = Annotated[
    list[Annotated[Prefix, PlainValidator(values.parse_prefix)]], Field(min_length=1, max_length=MOST_PREFIXES)
]


def _words(parse: Callable[[str], Any]) -> PlainValidator:
    def validate(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError('a proposal is text in quotes, such as "aes256gcm16"')
        return parse(value)

    return PlainValidator(validate)


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)


class Setup(_Table):
    """[setup]: what concerns the whole host."""

    interfaces: Annotated[
        list[Annotated[str, PlainValidator(values.parse_interface)]], Field(min_length=1, max_length=MOST_INTERFACES)
    ]
    unmatched: Annotated[Unmatched, PlainValidator(values.one_of(UNMATCHED))]
    data_path: Annotated[DataPathKind, PlainValidator(values.one_of(DATA_PATHS))] = DEFAULT_DATA_PATH
    ip_forward: Annotated[IpForward, PlainValidator(values.one_of(IP_FORWARD))] = DEFAULT_IP_FORWARD


class ProposalSet(_Table):
    """[proposals.NAME]: what IKE and ESP may use, most wanted first. A list that is missing is the built-in one."""

    ike: Annotated[list[Annotated[IkeProposal, _words(parse_ike)]], Field(min_length=1, max_length=MOST_PROPOSALS)] = (
        Field(default_factory=lambda: [parse_ike(words) for words in DEFAULT_IKE])
    )
    esp: Annotated[list[Annotated[EspProposal, _words(parse_esp)]], Field(min_length=1, max_length=MOST_PROPOSALS)] = (
        Field(default_factory=lambda: [parse_esp(words) for words in DEFAULT_ESP])
    )


class PeerEntry(_Table):
    """[peers.NAME]: whom IKE is spoken with, and how each side proves who it is."""

    address: _Address
    local_address: _Address | None = None
    local_id: _Identity | None = None
    """Default: `local_address`."""
    remote_id: _Identity | None = None
    """Default: `address`."""
    auth: Annotated[AuthMethod, PlainValidator(values.one_of(AUTH))]
    psk: Annotated[Secret, PlainValidator(values.parse_psk)] | None = Field(default=None, repr=False)
    psk_file: Annotated[str, PlainValidator(values.parse_path)] | None = None
    proposals: _Name = DEFAULT_PROPOSALS
    force_encapsulation: bool = False
    liveness: _Duration = DEFAULT_LIVENESS_S
    ike_rekey: _Duration = DEFAULT_IKE_REKEY_S

    def local_identity(self) -> Identity | None:
        """Who we are to this peer; None where the file does not say."""
        if self.local_id is None and self.local_address is not None:
            return values.identity_of(self.local_address)
        return self.local_id

    def remote_identity(self) -> Identity:
        """Whom the peer must prove to be."""
        return self.remote_id or values.identity_of(self.address)


class RuleEntry(_Table):
    """[[rules]]: one entry of the SPD (RFC 4301 section 4.4.1); the first that matches a packet decides."""

    name: _Name
    action: Annotated[Action, PlainValidator(values.one_of(ACTIONS))]
    local: _Prefixes | None = None
    """Default: any address of both families, as `remote`."""
    remote: _Prefixes | None = None
    protocol: Annotated[int, PlainValidator(values.parse_protocol)] = DEFAULT_PROTOCOL
    local_port: _Ports = ANY_PORT
    remote_port: _Ports = ANY_PORT
    peer: _Name | None = None
    mode: Annotated[Mode, PlainValidator(values.one_of(MODES))] = DEFAULT_MODE
    start: Annotated[StartAction, PlainValidator(values.one_of(STARTS))] = DEFAULT_START
    proposals: _Name | None = None
    """Default: those of the peer."""
    rekey: _Duration = DEFAULT_REKEY_S
    life: _Duration | None = None
    """Default: LIFE_PER_REKEY times `rekey`."""

    def life_s(self) -> float:
        """After this long an SA is deleted, rekeyed or not."""
        return self.rekey * LIFE_PER_REKEY if self.life is None else self.life


PROTECT_ONLY = ("peer", "mode", "start", "proposals", "rekey", "life")
"""Keys that only a protect rule may have."""


@dataclass(frozen=True, slots=True)
class _TopLevel:
    kind: type
    header: str


TABLES: Mapping[str, _TopLevel] = {
    "setup": _TopLevel(dict, "[setup]"),
    "proposals": _TopLevel(dict, "[proposals.NAME]"),
    "peers": _TopLevel(dict, "[peers.NAME]"),
    "rules": _TopLevel(list, "[[rules]], as often as there are rules"),
}

_MISSING = {
    ("setup", "interfaces"): 'is missing: name the interfaces that IPsec governs, such as interfaces = ["eth0"]',
    ("setup", "unmatched"): (
        'is missing: say what happens to a packet that no rule matches; "discard": it is dropped, so that only what '
        'the rules allow passes; "bypass": it passes in clear, as without IPsec'
    ),
    ("peers", "address"): "is missing: write the peer's IPv4 or IPv6 address",
    ("peers", "auth"): 'is missing: write auth = "psk"',
    ("rules", "name"): "is missing: every rule needs a name of its own",
    ("rules", "action"): "is missing: write protect, bypass or discard",
}
_EXPECTED = {
    "list_type": 'a list belongs here, in brackets: ["...", "..."]',
    "too_short": "the list is empty: leave the key out, or write what belongs in it",
    "bool_type": "write true or false, without quotes",
    "model_type": "a table belongs here, with keys of its own",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of good shape and its index in the file, from 0."""

    index: int
    entry: RuleEntry

    @property
    def key(self) -> Key:
        """Where it stands."""
        return ("rules", self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The names of other tables that the table at `key` mentions."""

    key: Key
    peer: str | None
    proposals: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """All of a file that has a good shape. `named_*` are all names that the file declares, of bad shape too."""

    setup: Setup | None
    proposals: Mapping[str, ProposalSet]
    named_proposals: frozenset[str]
    peers: Mapping[str, PeerEntry] = field(repr=False)
    named_peers: frozenset[str]
    rules: tuple[Rule, ...]
    damaged: tuple[Reference, ...]
    """What peers and rules of bad shape mention: that can be checked all the same."""
    problems: tuple[Problem, ...]


M = TypeVar("M", bound=BaseModel)


def read(data: Mapping[str, Any]) -> Draft:
    """The draft of a parsed file, with all that is wrong with its shape."""
    return _Reader(data).draft()


class _Reader:
    def __init__(self, data: Mapping[str, Any]) -> None:
        self._problems: list[Problem] = []
        self._damaged: list[Reference] = []
        for name in data:
            if name not in TABLES:
                self._wrong((name,), f"no such table; {nearest(printable(name), TABLES)}")
        self._setup: Any = self._table(data, "setup")
        self._proposals: dict[str, Any] = self._table(data, "proposals") or {}
        self._peers: dict[str, Any] = self._table(data, "peers") or {}
        self._rules: list[Any] = self._table(data, "rules") or []
        if "setup" not in data:
            self._wrong(("setup",), "is missing: a policy begins with a [setup] table")

    def draft(self) -> Draft:
        proposals = self._read_named(ProposalSet, self._proposals, "proposals")
        proposals.setdefault(DEFAULT_PROPOSALS, ProposalSet())
        peers = self._read_named(PeerEntry, self._peers, "peers")
        rules = [(index, self._read(RuleEntry, table, ("rules", index))) for index, table in enumerate(self._rules)]
        return Draft(
            setup=None if self._setup is None else self._read(Setup, self._setup, ("setup",)),
            proposals=proposals,
            named_proposals=frozenset({DEFAULT_PROPOSALS, *self._proposals}),
            peers=peers,
            named_peers=frozenset(self._peers),
            rules=tuple(Rule(index=index, entry=entry) for index, entry in rules if entry is not None),
            damaged=tuple(self._damaged),
            problems=tuple(self._problems),
        )

    def _wrong(self, key: Key, text: str) -> None:
        self._problems.append(Problem(key=key, text=text))

    def _table(self, data: Mapping[str, Any], name: str) -> Any:
        """The value of a top-level table; None where it is missing or something else."""
        if name not in data or type(data[name]) is TABLES[name].kind:
            return data.get(name)
        self._wrong((name,), f"must be a table: write {TABLES[name].header}")
        return None

    def _read_named(self, cls: type[M], tables: Mapping[str, Any], kind: str) -> dict[str, M]:
        good = {}
        for name, table in tables.items():
            try:
                values.parse_name(name)
            except ValueError as error:
                self._wrong((kind, name), str(error))
            entry = self._read(cls, table, (kind, name))
            if entry is not None:
                good[name] = entry
        return good

    def _read(self, cls: type[M], table: Any, key: Key) -> M | None:
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
        self._problems += [_problem(cls, key, detail) for detail in details]
        if isinstance(table, dict):
            peer, proposals = _text_or_none(table, "peer"), _text_or_none(table, "proposals")
            self._damaged.append(Reference(key=key, peer=peer, proposals=proposals))
        return None


def _text_or_none(table: Mapping[str, Any], name: str) -> str | None:
    value = table.get(name)
    return value if isinstance(value, str) and value else None


def _problem(cls: type[M], table: Key, detail: ErrorDetails) -> Problem:
    kind, loc = detail["type"], detail["loc"]
    context = detail.get("ctx", {})
    key = (*table, *(part for part in loc if isinstance(part, int) or part in cls.model_fields or part == loc[0]))
    if kind == "value_error":
        text = str(context["error"])
    elif kind == "extra_forbidden":
        text = f"no such key here; {nearest(printable(str(loc[0])), cls.model_fields)}"
    elif kind == "missing":
        text = _MISSING[str(table[0]), str(loc[0])]
    elif kind == "too_long":
        text = f"the list has {context['actual_length']} items, at most {context['max_length']} are allowed"
    else:
        text = _EXPECTED[kind]
    return Problem(key=key, text=text)
