"""The policy file as it is declared: which tables and keys there are, what each may hold, and every default.

Shape only. What the values mean together (references, families, overlaps) is `validate.py`'s; how a file is read by
this declaration, `reader.py`'s.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ipc.algorithms import EspProposal, IkeProposal
from ipc.messages import HalfOpenLimits
from ipc.roles import MAX_WORKERS
from ipc.types import (
    ANY_PORT,
    Action,
    DataPathKind,
    EndAction,
    Identity,
    IpAddress,
    IpForward,
    Mode,
    PortRange,
    Secret,
    StartAction,
    Unmatched,
)
from ipc.value import value
from policy_loader import values
from policy_loader.addresses import MOST_PREFIXES, Spans, parse_spans
from policy_loader.credentials.store import AuthKind
from policy_loader.errors import Key, Problem
from policy_loader.keys import key
from policy_loader.proposals import parse_esp, parse_ike
from policy_loader.values import HostName, IcmpType

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
DEFAULT_HALF_OPEN = HalfOpenLimits()
DEFAULT_LIVENESS_S = 30.0
DEFAULT_IKE_REKEY_S = 4 * 3600.0
DEFAULT_REKEY_S = 3600.0
LIFE_PER_REKEY = 1.25
"""`life` where it is not given, in `rekey`s: time enough for a rekey that must be repeated."""
DEFAULT_PROTOCOL = (0,)
DEFAULT_PORTS = (ANY_PORT,)
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
ENDS = {"trap": EndAction.TRAP, "start": EndAction.START, "clear": EndAction.CLEAR}
DATA_PATHS = {"auto": DataPathKind.AUTO, "kernel": DataPathKind.KERNEL, "userspace": DataPathKind.USERSPACE}
UNMATCHED = {"discard": Unmatched.DISCARD, "bypass": Unmatched.BYPASS}
IP_FORWARD = {"leave": IpForward.LEAVE, "on": IpForward.ON, "off": IpForward.OFF}
MANUAL = "manual"
REMOTE_AUTH = {kind.value: kind for kind in AuthKind}
AUTH: dict[str, AuthKind | None] = {**REMOTE_AUTH, MANUAL: None}
"""None: the keys stand in the file, and no IKE is spoken."""
MOST_FILES = 64

MOST_PROPOSALS = 32
MOST_INTERFACES = 256
MOST_PROTOCOLS = 16
MOST_PORTS = 32
"""Ports, ranges or ICMP types in a list."""

# ------------------------------------------------------------- JSON Schema of values that many keys have

_TEXT = {"type": "string", "minLength": 1}
_NAME = {"type": "string", "minLength": 1, "maxLength": values.LONGEST_NAME}
_DURATION = {"type": ["number", "string"], "minimum": 0, "pattern": "^[0-9]{1,9}[smhd]$"}
_SIZE = {"type": ["integer", "string"], "minimum": 0, "pattern": f"^[0-9]{{1,12}}({'|'.join(values.SIZE_UNITS)})$"}
_COUNT = {"type": "integer", "minimum": 0}
_PORTS = {"type": ["integer", "string"], "minimum": 0, "maximum": 65535, "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"}
_PORT_LIST = values.one_or_list_of(values.parse_ports, MOST_PORTS, values.ports_overlap)
_PROTOCOL = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 255}, {"enum": list(values.PROTOCOLS)}]}
_ICMP_TYPE = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 255},
        {"enum": sorted(values.ICMP_TYPES.keys() | values.ICMPV6_TYPES.keys())},
        {"type": "string", "pattern": "^[0-9]{1,3}(/[0-9]{1,3})?$"},
    ]
}
_SPI = {
    "type": ["integer", "string"],
    "minimum": values.FIRST_SPI,
    "maximum": values.LAST_SPI,
    "pattern": "^0x[0-9A-Fa-f]{1,8}$",
}
_HEX_KEY = {"type": "string", "pattern": "^(0x)?([0-9A-Fa-f]{2})+$"}
_PATH = {"type": "string", "pattern": "^/"}
_BOOL = {"type": "boolean"}
_PATHS = values.list_of(values.parse_path, MOST_FILES)
_FILES = {"type": "array", "items": _PATH, "minItems": 1, "maxItems": MOST_FILES, "uniqueItems": True}
SPANS_SCHEMA = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_PREFIXES}


def _one_or_list(item: dict[str, Any], most: int) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1, "maxItems": most, "uniqueItems": True}]}


def _words(words: Mapping[str, Any]) -> dict[str, Any]:
    return {"enum": list(words)}


def _proposals() -> dict[str, Any]:
    return {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_PROPOSALS}


# ------------------------------------------------------------- tables


@value
class Setup:
    """[setup]: what concerns the whole host."""

    interfaces: tuple[str, ...] = key(
        values.list_of(values.parse_interface, MOST_INTERFACES),
        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_INTERFACES, "uniqueItems": True},
        "The network interfaces that lead to the peers.",
        missing='is missing: name the interfaces that IPsec governs, such as interfaces = ["eth0"]',
    )
    unmatched: Unmatched = key(
        values.one_of(UNMATCHED),
        _words(UNMATCHED),
        "What happens to a packet that no rule matches.",
        missing='is missing: say what happens to a packet that no rule matches; "discard": it is dropped, so that '
        'only what the rules allow passes; "bypass": it passes in clear, as without IPsec',
    )
    data_path: DataPathKind = key(
        values.one_of(DATA_PATHS), _words(DATA_PATHS), "Who does ESP.", default=DEFAULT_DATA_PATH
    )
    ip_forward: IpForward = key(
        values.one_of(IP_FORWARD),
        _words(IP_FORWARD),
        "What becomes of net.ipv4.ip_forward while ipsecd runs.",
        default=DEFAULT_IP_FORWARD,
    )
    cookies_from: int = key(
        values.parse_count,
        _COUNT,
        "From so many half-open IKE SAs on, an initiator must return a cookie.",
        default=DEFAULT_HALF_OPEN.cookies_from,
    )
    puzzles_from: int = key(
        values.parse_count,
        _COUNT,
        "From so many on, it must solve a puzzle.",
        default=DEFAULT_HALF_OPEN.puzzles_from,
    )
    half_open_limit: int = key(
        values.parse_count, _COUNT, "So many, and the oldest goes for each new one.", default=DEFAULT_HALF_OPEN.most
    )
    half_open_per_address: int = key(
        values.parse_count,
        _COUNT,
        "So many from one IPv4 address or IPv6 /64, and no more from there.",
        default=DEFAULT_HALF_OPEN.per_address,
    )
    ike_workers: int = key(
        values.parse_workers,
        {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS},
        "How many processes speak IKE.",
        default=1,
    )


@value
class ProposalSet:
    """[proposals.NAME]: what IKE and ESP may use, most wanted first. A list that is missing is the built-in one."""

    ike: tuple[IkeProposal, ...] = key(
        values.list_of(parse_ike, MOST_PROPOSALS),
        _proposals(),
        "For IKE SAs, most wanted first.",
        default=tuple(parse_ike(words) for words in DEFAULT_IKE),
    )
    esp: tuple[EspProposal, ...] = key(
        values.list_of(parse_esp, MOST_PROPOSALS),
        _proposals(),
        "For Child SAs, most wanted first.",
        default=tuple(parse_esp(words) for words in DEFAULT_ESP),
    )


@value
class PeerEntry:
    """[peers.NAME]: whom IKE is spoken with, and how each side proves who it is; or keys that never change."""

    address: IpAddress | HostName | None = key(
        values.parse_peer_address,
        _TEXT,
        'Where the peer is: an address, a host name, or "any".',
        missing='is missing: write the peer\'s IPv4 or IPv6 address, its host name, or "any"',
    )
    local_address: IpAddress | None = key(values.parse_address, _TEXT, "Our address towards this peer.")
    local_id: Identity | None = key(values.parse_identity, _TEXT, "Who we are to this peer. Default: local_address.")
    remote_id: Identity | None = key(values.parse_identity, _TEXT, "Whom the peer must prove to be. Default: address.")
    auth: AuthKind | None = key(
        values.one_of(AUTH),
        _words(AUTH),
        "How both sides authenticate.",
        missing='is missing: write auth = "psk", "certificate" or "public-key", or "manual" where the keys stand here',
    )
    remote_auth: AuthKind | None = key(
        values.one_of(REMOTE_AUTH), _words(REMOTE_AUTH), "How the peer authenticates, if not as we do by auth."
    )
    psk: Secret | None = key(values.parse_psk, _TEXT, "The pre-shared key.", secret=True)
    psk_file: str | None = key(values.parse_path, _PATH, "A file that holds the pre-shared key.")
    certificate_file: str | None = key(
        values.parse_path, _PATH, "Our certificate, and the authorities between it and those that the peer trusts."
    )
    key_file: str | None = key(values.parse_path, _PATH, "Our private key.")
    ca_files: tuple[str, ...] = key(_PATHS, _FILES, "Who must have issued the peer's certificate.", default=())
    crl_files: tuple[str, ...] = key(_PATHS, _FILES, "Lists of revoked certificates.", default=())
    ocsp_files: tuple[str, ...] = key(_PATHS, _FILES, "OCSP responses about the peer.", default=())
    own_ocsp_files: tuple[str, ...] = key(
        _PATHS, _FILES, "OCSP responses about our certificate, for a peer that asks for them.", default=()
    )
    remote_public_key_file: str | None = key(
        values.parse_path, _PATH, "The peer's public key, or a certificate that has it."
    )
    revocation_required: bool = key(
        values.parse_bool, _BOOL, "A certificate that no CRL or OCSP response is about is refused.", default=False
    )
    pkcs1_signatures: bool = key(
        values.parse_bool, _BOOL, "We sign with RSA by PKCS #1 v1.5, not by PSS.", default=False
    )
    sha1_signatures: bool = key(
        values.parse_bool, _BOOL, "RSA with SHA-1, for a peer that knows nothing better.", default=False
    )
    proposals: str = key(values.parse_name, _NAME, "The set of proposals.", default=DEFAULT_PROPOSALS)
    force_encapsulation: bool = key(
        values.parse_bool, _BOOL, "ESP goes in UDP even where no NAT is found.", default=False
    )
    fragmentation: bool = key(
        values.parse_bool, _BOOL, "Long IKE messages go in fragments, if the peer takes them.", default=True
    )
    childless: bool = key(
        values.parse_bool, _BOOL, "The IKE SA is made without a first Child SA, if the peer can.", default=False
    )
    liveness: float = key(
        values.parse_duration, _DURATION, "A peer silent for so long is asked.", default=DEFAULT_LIVENESS_S
    )
    liveness_action: EndAction = key(
        values.one_of(ENDS), _words(ENDS), "What follows when it does not answer.", default=EndAction.TRAP
    )
    ike_rekey: float = key(
        values.parse_duration, _DURATION, "An IKE SA is replaced after so long.", default=DEFAULT_IKE_REKEY_S
    )
    reauth: float = key(
        values.parse_duration, _DURATION, "It is made from the start, AUTH included, after so long.", default=0.0
    )
    algorithm: EspProposal | None = key(parse_esp, _TEXT, "With manual keys: what they are for, such as aes256-sha256.")
    spi_in: int | None = key(values.parse_spi, _SPI, "With manual keys: the SPI of what comes in.")
    spi_out: int | None = key(values.parse_spi, _SPI, "With manual keys: the SPI of what goes out.")
    key_in: Secret | None = key(values.parse_key, _HEX_KEY, "The key of what comes in.", secret=True)
    key_in_file: str | None = key(values.parse_path, _PATH, "A file that holds it.")
    key_out: Secret | None = key(values.parse_key, _HEX_KEY, "The key of what goes out.", secret=True)
    key_out_file: str | None = key(values.parse_path, _PATH, "A file that holds it.")
    given: frozenset[str] = frozenset()
    """The keys that the peer has itself."""

    @property
    def manual(self) -> bool:
        """Whether its keys stand in the file."""
        return self.auth is None

    @property
    def remote_kind(self) -> AuthKind | None:
        """How the peer authenticates."""
        return self.remote_auth or self.auth

    def local_identity(self) -> Identity | None:
        """Who we are to this peer; None where the file does not say. A certificate says it where local_id does not."""
        if self.local_id is None and self.local_address is not None and self.auth is not AuthKind.CERTIFICATE:
            return values.identity_of(self.local_address)
        return self.local_id

    def remote_identity(self) -> Identity | None:
        """Whom the peer must prove to be; None where the file does not say."""
        if self.remote_id is not None or self.address is None:
            return self.remote_id
        if isinstance(self.address, HostName):
            return values.parse_identity(str(self.address))
        return values.identity_of(self.address)


@value
class RuleEntry:
    """[[rules]]: one entry of the SPD (RFC 4301 section 4.4.1); the first that matches a packet decides."""

    name: str = key(
        values.parse_name,
        _NAME,
        "A name of its own.",
        missing="is missing: every rule needs a name of its own",
    )
    action: Action = key(
        values.one_of(ACTIONS),
        _words(ACTIONS),
        "What is done with the packets that it matches.",
        missing="is missing: write protect, bypass or discard",
    )
    local: Spans | None = key(
        parse_spans, SPANS_SCHEMA, "Our side's addresses. Default: any of both families.", grouped=True
    )
    remote: Spans | None = key(
        parse_spans, SPANS_SCHEMA, "The other side's addresses. Default: any of both families.", grouped=True
    )
    protocol: tuple[int, ...] = key(
        values.one_or_list_of(values.parse_protocol, MOST_PROTOCOLS, values.protocols_overlap),
        _one_or_list(_PROTOCOL, MOST_PROTOCOLS),
        "The IP protocol, or a list of them.",
        default=DEFAULT_PROTOCOL,
    )
    local_port: tuple[PortRange, ...] = key(
        _PORT_LIST, _one_or_list(_PORTS, MOST_PORTS), "Our side's ports.", default=DEFAULT_PORTS
    )
    remote_port: tuple[PortRange, ...] = key(
        _PORT_LIST, _one_or_list(_PORTS, MOST_PORTS), "The other side's ports.", default=DEFAULT_PORTS
    )
    icmp_type: tuple[IcmpType, ...] = key(
        values.one_or_list_of(values.parse_icmp_type, MOST_PORTS, values.icmp_types_overlap),
        _one_or_list(_ICMP_TYPE, MOST_PORTS),
        "The type of ICMP message, or type/code, or a list of them. Default: any.",
        default=(),
    )
    interface: str = key(
        values.parse_interface, _TEXT, "The one interface whose packets it matches. Default: any.", default=""
    )
    peer: str | None = key(values.parse_name, _NAME, "The peer that the tunnel leads to.")
    mode: Mode = key(values.one_of(MODES), _words(MODES), "Tunnel or transport mode.", default=DEFAULT_MODE)
    start: StartAction = key(values.one_of(STARTS), _words(STARTS), "When it is negotiated.", default=DEFAULT_START)
    proposals: str | None = key(values.parse_name, _NAME, "The set of proposals. Default: that of the peer.")
    rekey: float = key(
        values.parse_duration, _DURATION, "A Child SA is replaced after so long.", default=DEFAULT_REKEY_S
    )
    life: float | None = key(
        values.parse_duration, _DURATION, "A Child SA is deleted after so long. Default: 1.25 times rekey."
    )
    rekey_bytes: int = key(values.parse_size, _SIZE, "It is replaced after so many bytes.", default=0)
    life_bytes: int | None = key(
        values.parse_size, _SIZE, "It is deleted after so many bytes. Default: 1.25 times rekey_bytes."
    )
    rekey_packets: int = key(values.parse_count, _COUNT, "It is replaced after so many packets.", default=0)
    life_packets: int | None = key(
        values.parse_count, _COUNT, "It is deleted after so many packets. Default: 1.25 times rekey_packets."
    )
    close: EndAction = key(
        values.one_of(ENDS), _words(ENDS), "What follows when the peer deletes it.", default=EndAction.TRAP
    )
    idle: float = key(
        values.parse_duration, _DURATION, "A Child SA without traffic for so long is deleted.", default=0.0
    )
    given: frozenset[str] = frozenset()
    """The keys that the rule has itself."""

    def life_s(self) -> float:
        """After this long an SA is deleted, rekeyed or not."""
        return self.rekey * LIFE_PER_REKEY if self.life is None else self.life


IKE_ONLY_PEER_KEYS = (
    *("local_id", "remote_id", "psk", "psk_file", "remote_public_key_file"),
    *("remote_auth", "certificate_file", "key_file", "ca_files", "crl_files", "ocsp_files"),
    "own_ocsp_files",
    *("revocation_required", "pkcs1_signatures", "sha1_signatures", "proposals", "force_encapsulation"),
    *("fragmentation", "childless"),
    *("liveness", "liveness_action", "ike_rekey", "reauth"),
)
"""Keys that a peer with manual keys may not have."""
MANUAL_PEER_KEYS = ("algorithm", "spi_in", "spi_out", "key_in", "key_in_file", "key_out", "key_out_file")
LIFETIME_KEYS = ("rekey", "life", "rekey_bytes", "life_bytes", "rekey_packets", "life_packets")
NEGOTIATED_ONLY = ("start", "proposals", *LIFETIME_KEYS, "close", "idle")
"""Keys that only a rule whose SAs are negotiated may have."""
PROTECT_ONLY = ("peer", "mode", *NEGOTIATED_ONLY)
"""Keys that only a protect rule may have."""
DEFAULTS = {
    "peers": (PeerEntry, ("local_address", "local_id", *IKE_ONLY_PEER_KEYS[5:])),
    "rules": (RuleEntry, ("mode", *NEGOTIATED_ONLY)),
}
"""[defaults.peers] and [defaults.rules]: for those that do not say it themselves, and may have it."""


@value
class Rule:
    """A rule of good shape and its index in the file, from 0."""

    index: int
    entry: RuleEntry

    @property
    def key(self) -> Key:
        """Where it stands."""
        return ("rules", self.index)


@value
class Reference:
    """The names of other tables that the table at `key` mentions."""

    key: Key
    peer: str | None
    proposals: str | None


@value
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
