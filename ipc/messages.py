"""Every message between roles, declared once, here and in `wishes.py`. Who may send which to whom stands in `links.py`.

A message is a value with a number that never changes its meaning. Fields hold the types that `codec.py`
knows; `Annotated[..., MaxLength(n)]` bounds them. Units stand in the docstrings: times are seconds, `now` is
CLOCK_MONOTONIC, sizes are bytes. VERSION changes when any message changes its fields: all roles of an instance
are started from one installation, so a mixture is an accident and is refused.
"""

from collections.abc import Callable
from dataclasses import field
from typing import Annotated, TypeVar, dataclass_transform

from ipc.algorithms import Cipher, EspProposal, IkeProposal, IntegrityId, PrfId
from ipc.types import (
    Action,
    AuthMethod,
    DataPathKind,
    Direction,
    EndAction,
    Identity,
    IpAddress,
    IpForward,
    MaxLength,
    Mode,
    Name,
    NextLayer,
    Path,
    PortRange,
    Prefix,
    Secret,
    StartAction,
    Text,
    TrafficSelector,
    UdpEncapsulation,
    Unmatched,
)
from ipc.value import value

VERSION = 1
MAX_POLICY_BYTES = 64 * 1024 * 1024
"""The longest SPD file."""
MAX_TEMPLATES_BYTES = 1024 * 1024
"""The longest file of templates."""
MAX_CREDENTIAL_BYTES = 4 * 1024 * 1024
"""The longest file that a policy names: a list of revoked certificates."""
MAX_CERTIFICATES = 16
"""CERT payloads that go along with one AUTH."""
MAX_CERTIFICATE_BYTES = 16384
RULES_PER_MESSAGE = 256
"""How many rules, peers or SAs one message of a batch carries at most."""
MAX_SNAPSHOT_BYTES = 1024 * 1024
MAX_NEXT_LAYERS = 256
"""Combinations of protocols and ports that one rule is about."""
MAX_MEMORY_BYTES = 4 * 1024 * 1024
MAX_ID_BYTES = 65535

REGISTRY: dict[int, type] = {}
"""Message number to class; filled by `message`."""

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def message(number: int) -> Callable[[type[T]], type[T]]:
    """Declares a message: a value under a number of its own."""

    def declare(cls: type[T]) -> type[T]:
        declared = value(cls)
        if number in REGISTRY:
            raise TypeError(f"message number {number} is taken by {REGISTRY[number].__name__}")
        REGISTRY[number] = declared
        return declared

    return declare


# ------------------------------------------------------------- supervisor <-> each role (1-19)


@message(1)
class Hello:
    """A role is up, has dropped its privileges and looked that it can't get them back."""

    pid: int
    start_time: float
    """Seconds since boot, as in /proc/PID/stat: with the pid, the identity of the process."""


@message(2)
class HealthQuestion:
    """Answer with HealthAnswer of the same sequence."""

    sequence: int


@message(3)
class HealthAnswer:
    """I go round my loop."""

    sequence: int
    refused_messages: int
    """How many messages this process has refused on all its links since it started."""


@message(4)
class Stop:
    """Finish what must be finished towards the outside (DELETE to peers, kernel objects), then send Stopped."""

    deadline_s: float
    """How long there is."""


@message(5)
class Stopped:
    """All finished; I exit now. `summary` says what was done, for people."""

    summary: Text


@message(6)
class SenderMisbehaved:
    """A message on `link` was refused: its sender must be restarted by the supervisor."""

    link: Name
    reason: Text
    sender: Name = ""
    """Which of its role's processes, where there may be several."""


# ------------------------------------------------------------- supervisor <-> policy_loader (20-29)


@message(20)
class ParsePolicy:
    """Parse and validate this file; nothing is enforced yet. Answer: PolicyParsed or PolicyRefused."""

    generation: int
    path: Path
    content: Annotated[Secret, MaxLength(MAX_POLICY_BYTES)]
    mode: int
    """Permission bits of the file."""
    uid: int
    """Owner of the file."""
    templates_path: Path = ""
    """The file with shared settings beside it; empty if there is none. The rest as for the policy itself."""
    templates: Annotated[Secret, MaxLength(MAX_TEMPLATES_BYTES)] = field(default_factory=lambda: Secret(b""))
    templates_mode: int = 0
    templates_uid: int = 0


MAX_NAMED = 1000
"""How many names of rules or peers a plan has of each kind; the counts are exact."""


@value
class PolicyChanges:
    """What a policy changes in the one in force: names of rules, the first MAX_NAMED of each kind, and all counted."""

    added: Annotated[tuple[Name, ...], MaxLength(MAX_NAMED)] = ()
    changed: Annotated[tuple[Name, ...], MaxLength(MAX_NAMED)] = ()
    """Their SAs go, as those of removed rules."""
    removed: Annotated[tuple[Name, ...], MaxLength(MAX_NAMED)] = ()
    peers: Annotated[tuple[Name, ...], MaxLength(MAX_NAMED)] = ()
    """Peers that are gone or spoken with in another way: their IKE SAs go, with all in them."""
    added_count: int = 0
    changed_count: int = 0
    removed_count: int = 0
    kept_count: int = 0
    peers_count: int = 0
    renewed: Annotated[tuple[Name, ...], MaxLength(MAX_NAMED)] = ()
    """Peers with another pre-shared key: their IKE SAs are made anew before the old ones end."""
    renewed_count: int = 0


@value
class ManualTunnel:
    """The two SAs of a rule with fixed keys, as status shows them."""

    rule: Name
    peer: Name
    mode: Mode
    local_address: IpAddress
    peer_address: IpAddress
    spi_in: int
    spi_out: int
    algorithms: Name
    local: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]
    remote: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]


@message(21)
class PolicyParsed:
    """The file is good, and a kernel that has a policy already would take it."""

    generation: int
    sha256: Annotated[bytes, MaxLength(32)]
    rules: int
    data_path: DataPathKind
    interfaces: Annotated[tuple[Name, ...], MaxLength(256)]
    ip_forward: IpForward
    warnings: Annotated[tuple[Text, ...], MaxLength(1000)]
    changes: PolicyChanges = PolicyChanges()
    """In what is in force; in a loader that has nothing in force, all is added."""
    unmatched: Unmatched = Unmatched.BYPASS
    manual: Annotated[tuple[ManualTunnel, ...], MaxLength(MAX_NAMED)] = ()
    """The first of those whose keys the operator fixed."""
    ike_workers: int = 1
    """How many processes speak IKE."""


@message(22)
class PolicyRefused:
    """The file is not good: each error as FILE:LINE:COLUMN: key: what is wrong, what would be right."""

    generation: int
    errors: Annotated[tuple[Text, ...], MaxLength(1000)]


@message(23)
class ReadCredential:
    """The loader, which can open nothing, wants a file that the policy names (psk_file)."""

    request_id: int
    path: Path


@message(24)
class CredentialContent:
    """The file, or why it can't be had (`error` is then not empty)."""

    request_id: int
    content: Annotated[Secret, MaxLength(MAX_CREDENTIAL_BYTES)]
    mode: int
    uid: int
    error: Text


@message(25)
class EnforcePolicy:
    """Put the parsed policy in force: kernel rules to the agent, negotiation rules to the worker."""

    generation: int


@message(26)
class PolicyEnforced:
    """The agent has it in the kernel."""

    generation: int


@message(27)
class PolicyNotEnforced:
    """The agent or the kernel said no; what was in force before is in force still."""

    generation: int
    reason: Text


@message(28)
class ResolveName:
    """The loader, which has no way to the network, wants the addresses of a host name that policy `generation` has."""

    request_id: int
    generation: int
    name: Annotated[str, MaxLength(253)]


@message(29)
class NameResolved:
    """Its addresses, most wanted first, or why they can't be had (`error` is then not empty)."""

    request_id: int
    addresses: Annotated[tuple[IpAddress, ...], MaxLength(16)]
    error: Text


# ------------------------------------------------------------- supervisor <-> kernel_agent (30-39)


@message(30)
class AgentReady:
    """What this kernel can do."""

    kernel_esp: bool
    detail: Text
    """Why not, where it can't."""


@message(31)
class UseDataPath:
    """Which data path to use from now on; `tun_interface` is empty for the kernel's."""

    kind: DataPathKind
    tun_interface: Name
    ike_workers: int = 1
    """How many IKE workers there are."""


@message(32)
class DataPathReady:
    """The agent has its data path and takes policies now."""

    kind: DataPathKind


@message(33)
class DataPathFailed:
    """The agent can't use that data path."""

    reason: Text


@message(34)
class LogUnmatched:
    """Log packets that no rule matches, or don't; also while policies are enforced."""

    on: bool


@message(35)
class PolicyDrift:
    """The kernel's policies were not as they had been installed; the agent has installed them again, or tried to."""

    what: Text
    """How they differed."""
    failure: Text
    """Why they could not be put right; empty if they were."""


# ------------------------------------------------------------- supervisor <-> ike_worker (40-49)


@value
class IkeSaSnapshot:
    """The whole state of one IKE SA with its Child SAs, as `ikev2` wrote it. Holds traffic keys."""

    spi: Annotated[bytes, MaxLength(8)]
    """Our own SPI: the name of the IKE SA in the store."""
    state: Annotated[Secret, MaxLength(MAX_SNAPSHOT_BYTES)]


@value
class StandingChild:
    """What a Child SA carries; selectors from our side."""

    rule_id: int
    local: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]
    remote: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]


@value
class StandingSa:
    """An IKE SA that stands, as other workers must know it. Times are monotonic: one clock for all processes."""

    spi: Annotated[bytes, MaxLength(8)]
    """Our own."""
    peer: Name
    peer_id: Annotated[bytes, MaxLength(MAX_ID_BYTES)]
    """Body of the peer's ID payload."""
    remote: IpAddress
    ours: bool
    """We called."""
    rank: Annotated[bytes, MaxLength(8)]
    """Of two that stand by accident the lower one goes, on both sides."""
    created_at: float
    authenticated_at: float
    leaving: bool
    """It is about to go."""
    children: Annotated[tuple[StandingChild, ...], MaxLength(1024)]


@value
class StartedAnew:
    """A peer has forgotten what there was before (INITIAL_CONTACT, RFC 7296 section 2.4)."""

    peer: Name
    peer_id: Annotated[bytes, MaxLength(MAX_ID_BYTES)]
    before: float
    """IKE SAs that were authenticated before this are no more."""


@value
class EndedRule:
    """A rule has lost its Child SA against our will, and is not negotiated at once."""

    rule_id: int
    action: EndAction


@value
class WorkerNews:
    """What other workers must know of one, where there are several."""

    standing: Annotated[tuple[StandingSa, ...], MaxLength(RULES_PER_MESSAGE)] = ()
    """As they are now."""
    gone: Annotated[tuple[Annotated[bytes, MaxLength(8)], ...], MaxLength(2 * RULES_PER_MESSAGE)] = ()
    anew: Annotated[tuple[StartedAnew, ...], MaxLength(RULES_PER_MESSAGE)] = ()
    ended: Annotated[tuple[EndedRule, ...], MaxLength(RULES_PER_MESSAGE)] = ()


@message(40)
class SaveIkeSas:
    """Keep these, forget those. Datagrams that depend on them wait for IkeSasSaved."""

    sequence: int
    saved: Annotated[tuple[IkeSaSnapshot, ...], MaxLength(RULES_PER_MESSAGE)]
    forgotten: Annotated[tuple[Annotated[bytes, MaxLength(8)], ...], MaxLength(RULES_PER_MESSAGE)]
    memory: Annotated[bytes, MaxLength(MAX_MEMORY_BYTES)] = b""
    """What the worker knows beside IKE SAs, as `ikev2` wrote it; empty if that is as before."""
    news: WorkerNews | None = None
    """For the other workers, which are told before IkeSasSaved is said."""


@message(41)
class IkeSasSaved:
    """All SaveIkeSas up to this sequence are held."""

    sequence: int


@message(42)
class RestoreIkeSas:
    """What the store holds, to a worker that has just started; several messages, the last one says so."""

    snapshots: Annotated[tuple[IkeSaSnapshot, ...], MaxLength(RULES_PER_MESSAGE)]
    last: bool
    memory: Annotated[bytes, MaxLength(MAX_MEMORY_BYTES)] = b""
    """With the last one: the last that was saved; empty if there is none."""
    workers: int = 1
    """How many workers there are: byte SPI_STEER_BYTE of each IKE SPI of ours, modulo this, is the worker's index."""


@value
class ChildSaStatus:
    """A Child SA, for people."""

    rule: Name
    mode: Mode
    spi_in: int
    spi_out: int
    algorithms: Name
    local: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]
    remote: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]
    established_at: float


@value
class IkeSaStatus:
    """An IKE SA, for people."""

    peer: Name
    state: Name
    initiator: bool
    spi_i: Annotated[bytes, MaxLength(8)]
    spi_r: Annotated[bytes, MaxLength(8)]
    local: Name
    """Address and port."""
    remote: Name
    algorithms: Name
    established_at: float
    children: Annotated[tuple[ChildSaStatus, ...], MaxLength(1024)]


@message(43)
class TunnelsChanged:
    """IKE SAs as they are now: `changed` replaces those of the same own SPI, `gone` names own SPIs that are no more."""

    changed: Annotated[tuple[IkeSaStatus, ...], MaxLength(RULES_PER_MESSAGE)]
    gone: Annotated[tuple[Annotated[bytes, MaxLength(8)], ...], MaxLength(RULES_PER_MESSAGE)]


@message(44)
class WorkerReady:
    """The worker has restored its SAs, has a policy, and answers on its sockets."""

    ike_sas: int


@value
class RuleState:
    """A protect rule, for people."""

    name: Name
    peer: Name
    start: StartAction
    reason: Annotated[str, MaxLength(256)]
    """What came of the last attempt to have an SA, or how the last SA ended; empty if nothing has been tried."""


@message(45)
class RulesChanged:
    """Protect rules as they are now. `fresh`: all said before is void, since there is a new policy."""

    fresh: bool
    rules: Annotated[tuple[RuleState, ...], MaxLength(RULES_PER_MESSAGE)]


@message(46)
class Elsewhere:
    """Supervisor to worker: what another worker has told."""

    news: WorkerNews


# ------------------------------------------------------------- policy_loader -> kernel_agent, ike_worker (50-69)


@message(50)
class NeedPolicy:
    """I have none (any more): send me all of it, if one is in force."""


@value
class HalfOpenLimits:
    """What the worker does against floods of IKE_SA_INIT, by how many IKE SAs are half-open (RFC 8019 section 4)."""

    cookies_from: int = 512
    """From so many on an initiator must return a cookie (RFC 7296 section 2.6)."""
    puzzles_from: int = 4096
    """From so many on it must solve a puzzle too."""
    most: int = 8192
    """With more, the oldest go."""
    per_address: int = 128
    """With so many of one IPv4 address or IPv6 /64, no more are taken from there."""


@message(51)
class BeginPolicy:
    """The next messages hold policy `generation`, whole; what is not in it goes at CommitPolicy."""

    generation: int
    interfaces: Annotated[tuple[Name, ...], MaxLength(256)]
    unmatched: Unmatched
    check_only: bool = False
    """Look whether the kernel would take it, in a network namespace aside; enforce nothing. The answer is the same."""
    half_open: HalfOpenLimits = HalfOpenLimits()


@value
class KernelRule:
    """What the kernel must enforce. No secret, and all that the guard needs to check an SA against."""

    rule_id: int
    """1 to 1,048,575; the same as long as the rule does not change."""
    name: Name
    position: int
    """Order in the SPD, from 0: the first match wins."""
    action: Action
    protocol: int
    """IP protocol number, 0 for any."""
    local: Annotated[tuple[Prefix, ...], MaxLength(1024)]
    remote: Annotated[tuple[Prefix, ...], MaxLength(1024)]
    local_port: PortRange
    remote_port: PortRange
    mode: Mode
    local_address: IpAddress | None
    """Our end of the tunnel; None lets routing choose. Protect rules only, as the rest."""
    peer_address: IpAddress | None
    esp_proposals: Annotated[tuple[EspProposal, ...], MaxLength(32)]
    interface: Name = ""
    """Only packets that come in or go out there; empty for any."""
    manual: bool = False
    """Its SAs come with the policy, not from IKE."""
    unmatched: bool = False
    """The rule for what no other matches, behind all of them."""
    also: Annotated[tuple[NextLayer, ...], MaxLength(MAX_NEXT_LAYERS)] = ()
    """Further protocols and ports that it is about, besides the first."""

    @property
    def next_layers(self) -> tuple[NextLayer, ...]:
        """All protocols and ports that it is about."""
        first = NextLayer(protocol=self.protocol, local_port=self.local_port, remote_port=self.remote_port)
        return (first, *self.also)


@message(52)
class AddPolicy:
    """Rules of the policy begun, in order."""

    generation: int
    rules: Annotated[tuple[KernelRule, ...], MaxLength(RULES_PER_MESSAGE)]


@message(53)
class CommitPolicy:
    """That was all of it: `rules` rules. Enforce it, all or nothing."""

    generation: int
    rules: int


@message(54)
class PolicyInstalled:
    """It is enforced."""

    generation: int


@message(55)
class PolicyNotInstalled:
    """It is not; what was enforced before is enforced still."""

    generation: int
    reason: Text


@value
class CertificateData:
    """What one CERT or CERTREQ payload holds (RFC 7296 sections 3.6 and 3.7)."""

    encoding: int
    data: Annotated[bytes, MaxLength(MAX_CERTIFICATE_BYTES)]


@value
class Peer:
    """Whom IKE is spoken with, and how. No secret."""

    name: Name
    address: IpAddress | None
    """None: it may come from anywhere, and can't be called."""
    local_address: IpAddress | None
    local_id: Identity
    remote_id: Identity
    auth: AuthMethod
    ike_proposals: Annotated[tuple[IkeProposal, ...], MaxLength(32)]
    force_encapsulation: bool
    """ESP in UDP even where no NAT was found."""
    liveness_s: float
    """Ask a silent peer after this long (RFC 7296 section 2.4); 0 never."""
    rekey_s: float
    """Lifetime of the IKE SA before it is rekeyed; 0 never."""
    reauth_s: float = 0.0
    """Lifetime of the IKE SA before a new one is made from the start, AUTH included; 0 never."""
    liveness_action: EndAction = EndAction.TRAP
    """What follows for its rules when the peer does not answer any more."""
    fragmentation: bool = True
    """Long IKE messages go in fragments where the peer takes them (RFC 7383)."""
    childless: bool = False
    """Its IKE SA is made without a first Child SA, where the peer can do that (RFC 6023)."""
    remote_auth: AuthMethod | None = None
    """How the peer authenticates, if not by `auth` as we do. DIGITAL_SIGNATURE stands for any signature."""
    certificate_requests: Annotated[tuple[CertificateData, ...], MaxLength(4)] = ()
    """The CERTREQ payloads that it is sent."""


@message(60)
class AddPeer:
    """Peers of the policy begun."""

    generation: int
    peers: Annotated[tuple[Peer, ...], MaxLength(RULES_PER_MESSAGE)]
    anew: Annotated[tuple[Name, ...], MaxLength(RULES_PER_MESSAGE)] = ()
    """Of these, those with whom another key is shared now: make their IKE SAs anew, before the old ones end."""


@value
class NegotiationRule:
    """A protect rule, as IKE needs it."""

    rule_id: int
    name: Name
    position: int
    peer: Name
    mode: Mode
    local: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]
    remote: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]
    esp_proposals: Annotated[tuple[EspProposal, ...], MaxLength(32)]
    start: StartAction
    rekey_s: float
    """Lifetime of the Child SA before it is rekeyed; 0 never."""
    life_s: float
    """Lifetime after which it is deleted, rekeyed or not; 0 never."""
    rekey_bytes: int = 0
    """As rekey_s, counted for each direction: what Sa.soft_lifetime_bytes is to be; 0 never. The others likewise."""
    life_bytes: int = 0
    rekey_packets: int = 0
    life_packets: int = 0
    close_action: EndAction = EndAction.TRAP
    """What follows when the peer deletes its Child SA."""
    idle_s: float = 0.0
    """A Child SA without traffic for this long is deleted; 0 never."""


@message(61)
class AddNegotiationRule:
    """Protect rules of the policy begun, in order."""

    generation: int
    rules: Annotated[tuple[NegotiationRule, ...], MaxLength(RULES_PER_MESSAGE)]


# ------------------------------------------------------------- ike_worker <-> policy_loader (70-79)


@message(70)
class ComputeAuth:
    """Compute our AUTH over the octets of RFC 7296 section 2.15, which the loader puts together itself.

    octets = `message` | `nonce` | prf(`sk_p`, `id_payload`). The loader computes it only where `id_payload` is the
    local identity of `peer`: a worker can't have the peer's AUTH made.
    """

    request_id: int
    peer: Name
    prf: PrfId
    initiator: bool
    """Whether we are the original initiator."""
    message: Annotated[bytes, MaxLength(65535)]
    """Our first IKE_SA_INIT message, from its header on."""
    nonce: Annotated[bytes, MaxLength(256)]
    """The peer's nonce."""
    sk_p: Annotated[Secret, MaxLength(64)]
    """Our SK_pi or SK_pr."""
    id_payload: Annotated[bytes, MaxLength(1028)]
    """Body of our ID payload: type, three reserved bytes, data."""
    hash_algorithms: Annotated[tuple[int, ...], MaxLength(64)] = ()
    """What the peer's SIGNATURE_HASH_ALGORITHMS lists (RFC 7427 section 4); empty if it sent none."""
    requested_encodings: Annotated[tuple[int, ...], MaxLength(64)] = ()
    """The certificate encodings that the peer's CERTREQ payloads ask for."""


@message(71)
class AuthComputed:
    """Answer to ComputeAuth."""

    request_id: int
    method: AuthMethod
    data: Annotated[bytes, MaxLength(8192)]
    certificates: Annotated[tuple[CertificateData, ...], MaxLength(MAX_CERTIFICATES)] = ()
    """The CERT payloads that go with it, in this order."""


@message(72)
class VerifyAuth:
    """Is this the peer's AUTH? Fields as in ComputeAuth, from the peer's side. Yes, or no and why."""

    request_id: int
    peer: Name
    prf: PrfId
    initiator: bool
    """Whether the peer is the original initiator."""
    message: Annotated[bytes, MaxLength(65535)]
    nonce: Annotated[bytes, MaxLength(256)]
    sk_p: Annotated[Secret, MaxLength(64)]
    id_payload: Annotated[bytes, MaxLength(1028)]
    method: int
    data: Annotated[bytes, MaxLength(8192)]
    certificates: Annotated[tuple[CertificateData, ...], MaxLength(MAX_CERTIFICATES)] = ()
    """The peer's CERT payloads as they came."""


@message(73)
class AuthVerified:
    """Answer to VerifyAuth."""

    request_id: int
    valid: bool
    reason: Text = ""
    """Why not, for our operator; never for the peer."""


@message(74)
class AuthRefused:
    """Answer to ComputeAuth or VerifyAuth that the policy does not allow."""

    request_id: int
    reason: Text


# ------------------------------------------------------------- ike_worker <-> kernel_agent <-> data_path (80-99)


@value
class Sa:
    """One direction of a Child SA (RFC 4301 section 4.4.2)."""

    rule_id: int
    direction: Direction
    """IN or OUT."""
    spi: int
    source: IpAddress
    """Outer addresses as the ESP packet carries them."""
    destination: IpAddress
    mode: Mode
    encapsulation: UdpEncapsulation | None
    cipher: Cipher
    integrity: IntegrityId
    encryption_key: Annotated[Secret, MaxLength(64)]
    """The key, and the salt behind it where the cipher has one (RFC 4106 section 8.1)."""
    integrity_key: Annotated[Secret, MaxLength(64)]
    esn: bool
    replay_window_packets: int
    local: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]
    """Inner traffic, from our side, for both directions."""
    remote: Annotated[tuple[TrafficSelector, ...], MaxLength(64)]
    soft_lifetime_s: float
    """After this the agent says Expire(hard=False); 0 never."""
    hard_lifetime_s: float
    """After this it is deleted and the agent says Expire(hard=True); 0 never."""
    acquire_id: int
    """That of the Acquire which it answers, or 0."""
    soft_lifetime_bytes: int = 0
    """As the lifetimes in seconds, counted by the kernel for this direction; 0 never."""
    hard_lifetime_bytes: int = 0
    soft_lifetime_packets: int = 0
    hard_lifetime_packets: int = 0


@value
class SaName:
    """What names an ESP SA in the kernel (RFC 4301 section 4.1)."""

    spi: int
    destination: IpAddress


@message(56)
class AddManualSas:
    """Loader to agent: SAs of the policy begun whose keys the operator fixed (`KernelRule.manual`), with the policy."""

    generation: int
    sas: Annotated[tuple[Sa, ...], MaxLength(RULES_PER_MESSAGE)]


@message(80)
class AllocateSpi:
    """Give me `count` inbound SPIs; one that is never used is simply forgotten."""

    request_id: int
    count: int


@message(81)
class SpiAllocated:
    """Fresh SPIs, 256 or above, in no SA of this host; only these are taken in inbound SAs."""

    request_id: int
    spis: Annotated[tuple[int, ...], MaxLength(1024)]


@message(82)
class AddSa:
    """Install these, all or none, inbound first. Answer: SaAdded or SaRefused."""

    request_id: int
    sas: Annotated[tuple[Sa, ...], MaxLength(8)]


@message(83)
class SaAdded:
    """They are installed."""

    request_id: int


@message(84)
class SaRefused:
    """The guard or the kernel said no to an AddSa or DeleteSa."""

    request_id: int
    reason: Text


@message(85)
class DeleteSa:
    """Delete these; one that is gone already counts as deleted. Answer: SaDeleted."""

    request_id: int
    sas: Annotated[tuple[SaName, ...], MaxLength(64)]


@message(86)
class SaDeleted:
    """They are gone."""

    request_id: int


@message(87)
class Acquire:
    """A packet wants a protect rule's SA and there is none."""

    acquire_id: int
    """Never 0."""
    rule_id: int
    packet_local: TrafficSelector
    """The packet's own addresses, protocol and ports, as one-packet selectors."""
    packet_remote: TrafficSelector


@message(88)
class Expire:
    """An SA's lifetime is over: soft (time to rekey) or hard (it is gone)."""

    sa: SaName
    hard: bool


@message(89)
class QuerySa:
    """How much traffic have these seen?"""

    request_id: int
    sas: Annotated[tuple[SaName, ...], MaxLength(RULES_PER_MESSAGE)]


@value
class Usage:
    """Traffic of one SA since it was installed."""

    sa: SaName
    packets: int
    bytes: int
    idle_s: float
    """Since its last packet, or since it was installed."""


@message(90)
class SaUsage:
    """Answer to QuerySa; SAs that do not exist are left out."""

    request_id: int
    usage: Annotated[tuple[Usage, ...], MaxLength(RULES_PER_MESSAGE)]


@message(91)
class NeedSas:
    """I am new here: tell me all SAs that should exist (SyncSa)."""


@message(92)
class SyncSa:
    """All SAs that the worker knows, in several messages; what is installed and not named goes with the last."""

    sas: Annotated[tuple[Sa, ...], MaxLength(RULES_PER_MESSAGE)]
    last: bool


@message(93)
class PeerMoved:
    """The data path saw authentic ESP from a new address or port of the peer (RFC 7296 section 2.23)."""

    sa: SaName
    source: IpAddress
    source_port: int


@value
class PlacedSa:
    """An SA for the user-space data path, with its place in the counter memory."""

    sa: Sa
    slot: int
    """Index into the counter memory that outlives the process: sequence numbers never repeat under one key."""
    fresh: bool
    """A new SA: its slot starts at zero. Otherwise the slot's values go on."""


@message(94)
class PlaceSa:
    """Agent to data path: take these, all or none. Answer: SaAdded or SaRefused."""

    request_id: int
    sas: Annotated[tuple[PlacedSa, ...], MaxLength(RULES_PER_MESSAGE)]


@message(95)
class PolicyTaken:
    """The data path has policy `generation`."""

    generation: int


# ------------------------------------------------------------- ipsecctl <-> supervisor (100-119)


@message(102)
class StopCommand:
    """Stop the instance; CommandDone comes just before the supervisor exits."""


@message(103)
class ReloadCommand:
    """Read the SPD again."""

    dry_run: bool = False
    """Enforce nothing: the answer has the plan."""
    confirm_s: float = 0.0
    """Go back to the policy before it after so many seconds without a ConfirmCommand; 0 never."""


@value
class CutSa:
    """An IKE SA, or one of its Child SAs, that a reload would delete."""

    peer: Name
    rule: Name
    """Empty for the IKE SA itself, whose SPIs are the initiator's and the responder's."""
    spi_in: Name
    """In hex, as status has it."""
    spi_out: Name


@value
class ReloadPlan:
    """What a reload would do."""

    changes: PolicyChanges
    cut: Annotated[tuple[CutSa, ...], MaxLength(MAX_NAMED)]
    cut_count: int


@message(104)
class CommandDone:
    """The end of a command: what happened, in sentences, and the exit code."""

    exit_code: int
    lines: Annotated[tuple[Text, ...], MaxLength(1000)]
    plan: ReloadPlan | None = None
    """Of a dry run."""


@message(110)
class ConfirmCommand:
    """The policy that waits for it stays."""


@message(112)
class LogUnmatchedCommand:
    """Log packets that no rule matches from now on, or don't."""

    on: bool


@message(111)
class RollbackCommand:
    """Put a generation that was kept back as the SPD, and reload."""

    generation: int
    confirm_s: float = 0.0
    """As in ReloadCommand."""
