"""What an operator asks of the SAs, what is answered, and what is told of live: ipsecctl <-> supervisor <-> ike_worker.

Messages 120 to 139; all else that `messages.py` says is true of these. The supervisor passes on: an OperatorCommand as
OperatorWish, and the answers as they are.
"""

import enum
from typing import Annotated

from ipc.algorithms import Cipher, IntegrityId
from ipc.messages import RULES_PER_MESSAGE, ChildSaStatus, IkeSaStatus, message
from ipc.types import IpAddress, MaxLength, Name, Secret, Text
from ipc.value import value


class OperatorVerb(enum.IntEnum):
    """What an operator may ask of the SAs."""

    UP = 1
    """Have a Child SA of a rule. Answer: WishEnded, as for the next two."""
    DOWN = 2
    """Delete the SAs of a rule or a peer."""
    REKEY = 3
    """Rekey the SAs of a rule or a peer, or the one with an SPI."""
    LIST = 4
    """All SAs. Answer: SasListed."""
    WHY = 5
    """The last failures with a peer. Answer: FailureTold, or WishEnded if there was none."""
    CAPTURE_KEYS = 6
    """The keys of SAs, of one peer if `target` is not empty. Answer: CaptureKeys."""


@message(120)
class OperatorWish:
    """Supervisor to worker: do this, and answer with `request_id` within `timeout_s`."""

    request_id: int
    verb: OperatorVerb
    target: Name
    """A rule, a peer, an address or an SPI in hex, as the verb has it."""
    timeout_s: float


@message(121)
class WishEnded:
    """It is done, or it is not, and why."""

    request_id: int
    done: bool
    lines: Annotated[tuple[Text, ...], MaxLength(1000)]
    nothing: bool = False
    """Because there is nothing here that it is about; another worker may have it."""


@value
class Traffic:
    """What one direction has carried."""

    packets: int
    bytes: int
    idle_s: float


@value
class ListedChildSa:
    """A Child SA with what only the engine and the kernel know; seconds from now, None for never."""

    status: ChildSaStatus
    state: Name
    age_s: float
    rekey_in_s: float | None
    expires_in_s: float | None
    inbound: Traffic | None = None
    """None where the agent has not said it."""
    outbound: Traffic | None = None


@value
class ListedIkeSa:
    """An IKE SA; the Child SAs are in `children`, and not in `status`."""

    status: IkeSaStatus
    age_s: float
    rekey_in_s: float | None
    reauth_in_s: float | None
    children: Annotated[tuple[ListedChildSa, ...], MaxLength(1024)]


@message(122)
class SasListed:
    """Some of the SAs; the last message says so."""

    request_id: int
    ike_sas: Annotated[tuple[ListedIkeSa, ...], MaxLength(64)]
    last: bool


Shown = Annotated[tuple[Annotated[str, MaxLength(1024)], ...], MaxLength(64)]
"""A list for people, cut to its first items."""


@value
class Failure:
    """A negotiation with a peer that came to nothing, and why, as far as this side knows."""

    peer: Name
    """The peer of the policy; empty if nobody of the policy was meant."""
    rule: Name
    """Empty where it is not about one rule."""
    remote: Name
    """Address and port."""
    at: float
    exchange: Name
    notify: Name
    """What was told to the side that is refused: NO_PROPOSAL_CHOSEN, say; empty if nothing was told."""
    by_peer: bool
    """The peer has refused, and not we."""
    sentence: Text
    """All of it in one line, for the log."""
    subject: Name = ""
    """What the lists are: IKE proposals, ESP proposals, traffic selectors, identities."""
    ours: Shown = ()
    theirs: Shown = ()
    """Empty where the peer has not said them."""
    difference: Text = ""
    """The first thing that differs."""
    remedy: Text = ""
    """The smallest change that would have matched, or where to look."""
    times: int = 1
    """How often it has come, one after the other, ..."""
    first_at: float = 0.0
    """... and when first."""


MAX_EARLIER = 16
"""Failures that are told beside the last one."""


@value
class PastFailure:
    """A failure, and how long ago it was."""

    failure: Failure
    age_s: float


@message(123)
class FailureTold:
    """The last failure, and those before it, the last of them first."""

    request_id: int
    failure: Failure
    age_s: float
    earlier: Annotated[tuple[PastFailure, ...], MaxLength(MAX_EARLIER)] = ()
    since_s: float = 0.0
    """How long ago the last failure came for the first time."""


@value
class IkeSaKeys:
    """What decrypts the messages of an IKE SA (RFC 7296 section 2.14). A salt stands behind the key in SK_e."""

    peer: Name
    spi_i: Annotated[bytes, MaxLength(8)]
    spi_r: Annotated[bytes, MaxLength(8)]
    cipher: Cipher
    integrity: IntegrityId
    sk_ei: Annotated[Secret, MaxLength(64)]
    sk_er: Annotated[Secret, MaxLength(64)]
    sk_ai: Annotated[Secret, MaxLength(64)]
    sk_ar: Annotated[Secret, MaxLength(64)]


@value
class EspSaKeys:
    """What decrypts one direction of a Child SA."""

    spi: int
    source: IpAddress
    destination: IpAddress
    cipher: Cipher
    integrity: IntegrityId
    encryption_key: Annotated[Secret, MaxLength(64)]
    integrity_key: Annotated[Secret, MaxLength(64)]
    esn: bool


@message(124)
class CaptureKeys:
    """Keys of some SAs, for root alone; the last message says so."""

    request_id: int
    ike_sas: Annotated[tuple[IkeSaKeys, ...], MaxLength(RULES_PER_MESSAGE)]
    esp_sas: Annotated[tuple[EspSaKeys, ...], MaxLength(RULES_PER_MESSAGE)]
    last: bool


@value
class LiveEvent:
    """Something that has happened, for `ipsecctl monitor`."""

    at: float
    """Seconds since the epoch."""
    kind: Name
    """A word that never changes its meaning, such as child-sa-established; docs/man/ipsecctl.8 lists them."""
    text: Text
    """All of it in a sentence."""
    peer: Name = ""
    rule: Name = ""
    spi: Name = ""
    """In hex: of an IKE SA our own, of a Child SA the inbound one."""
    reason: Text = ""


@message(125)
class WatchSas:
    """Supervisor to worker: say what becomes of SAs (SasHappened) from now on, or don't."""

    on: bool


@message(126)
class SasHappened:
    """What has become of SAs."""

    events: Annotated[tuple[LiveEvent, ...], MaxLength(RULES_PER_MESSAGE)]


@message(127)
class OperatorCommand:
    """Fields as in OperatorWish. Answer: that of the verb, or CommandDone where it has failed."""

    verb: OperatorVerb
    target: Name
    timeout_s: float
    asker: Name = ""
    """Who asks, in words, for the record; what is said here is not checked."""


@message(128)
class MonitorCommand:
    """Tell what happens from now on, in MonitorEvents."""


@message(129)
class MonitorEvents:
    """What has happened. The next come when these were taken (MonitorTaken)."""

    events: Annotated[tuple[LiveEvent, ...], MaxLength(RULES_PER_MESSAGE)]
    lost: int
    """How many were lost before these, because the listener was too slow."""


@message(130)
class MonitorTaken:
    """The listener has shown them."""
