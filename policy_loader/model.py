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
DEFAULT_IP_FORWARD = "leave"
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
IP_FORWARD = {"leave": "leave", "on": "on", "off": "off"}
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
    ip_forward: Annotated[str, PlainValidator(values.one_of(IP_FORWARD))] = DEFAULT_IP_FORWARD


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
TABLES: Mapping[str, type] = {"setup": dict, "proposals": dict, "peers": dict, "rules": list}

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
class Draft:
    """All of a file that has a good shape. `named_*` are all names that the file declares, of bad shape too."""

    setup: Setup | None
    proposals: Mapping[str, ProposalSet]
    named_proposals: frozenset[str]
    peers: Mapping[str, PeerEntry] = field(repr=False)
    named_peers: frozenset[str]
    rules: tuple[Rule, ...]
    problems: tuple[Problem, ...]


M = TypeVar("M", bound=BaseModel)


def read(data: Mapping[str, Any]) -> Draft:
    """The draft of a parsed file, with all that is wrong with its shape."""
    problems = [
        Problem(key=(name,), text=f"no such table; {nearest(name, TABLES)}") for name in data if name not in TABLES
    ]
    tables = {name: data.get(name, kind()) for name, kind in TABLES.items()}
    for name, kind in TABLES.items():
        if type(tables[name]) is not kind:
            shape = (
                "[[rules]], as often as there are rules"
                if kind is list
                else f"[{name}{'' if name == 'setup' else '.NAME'}]"
            )
            problems.append(Problem(key=(name,), text=f"must be a table: write {shape}"))
            tables[name] = kind()
    if "setup" not in data:
        problems.append(Problem(key=("setup",), text="is missing: a policy begins with a [setup] table"))
    setup = _read_one(Setup, tables["setup"], ("setup",), problems) if "setup" in data else None
    proposals = _read_named(ProposalSet, tables["proposals"], "proposals", problems)
    proposals.setdefault(DEFAULT_PROPOSALS, ProposalSet())
    return Draft(
        setup=setup,
        proposals=proposals,
        named_proposals=frozenset({DEFAULT_PROPOSALS, *tables["proposals"]}),
        peers=_read_named(PeerEntry, tables["peers"], "peers", problems),
        named_peers=frozenset(tables["peers"]),
        rules=_read_rules(tables["rules"], problems),
        problems=tuple(problems),
    )


def _read_named(cls: type[M], tables: Mapping[str, Any], kind: str, problems: list[Problem]) -> dict[str, M]:
    good = {}
    for name, table in tables.items():
        try:
            values.parse_name(name)
        except ValueError as error:
            problems.append(Problem(key=(kind, name), text=str(error)))
        entry = _read_one(cls, table, (kind, name), problems)
        if entry is not None:
            good[name] = entry
    return good


def _read_rules(tables: list[Any], problems: list[Problem]) -> tuple[Rule, ...]:
    rules = []
    for index, table in enumerate(tables):
        entry = _read_one(RuleEntry, table, ("rules", index), problems)
        if entry is not None:
            rules.append(Rule(index=index, entry=entry))
    return tuple(rules)


def _read_one(cls: type[M], table: Any, key: Key, problems: list[Problem]) -> M | None:
    try:
        return cls.model_validate(table)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    problems += [_problem(cls, key, detail) for detail in details]
    return None


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
