"""Which payloads a message must and may have, checked before its exchange sees it. RFC 7296 sections 1.2 to 1.4, 2.5.

A known payload that has no row is ignored, as an unknown one is. A response that reports an error need not have what
a good one must.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar, cast

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.iana import ExchangeType, NotifyType, PayloadType, ProtocolId
from ike_worker.ikev2.wire.certificate import Certificate, CertificateRequest
from ike_worker.ikev2.wire.delete import Delete
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ike_worker.ikev2.wire.unknown import UnknownPayload

MANY = 64
"""How many notifies, deletes or certificates one message may have."""


@dataclass(frozen=True, slots=True)
class PayloadRule:
    """How often a payload stands in a message."""

    payload: PayloadType
    at_least: int
    at_most: int


@dataclass(frozen=True, slots=True)
class MessageRule:
    """One kind of message: whether all of it is inside the Encrypted payload, and what it holds."""

    encrypted: bool
    payloads: tuple[PayloadRule, ...]


@dataclass(frozen=True, slots=True)
class MessageKind:
    """What a message is. `rekeys_ike` tells the two kinds of CREATE_CHILD_SA apart."""

    exchange_type: int
    response: bool
    rekeys_ike: bool = False


_P = PayloadType
_NOTIFIES = PayloadRule(_P.NOTIFY, 0, MANY)
_CERTIFICATES = PayloadRule(_P.CERTIFICATE, 0, MANY)
_CERTIFICATE_REQUESTS = PayloadRule(_P.CERTIFICATE_REQUEST, 0, MANY)
_CHILD = (
    PayloadRule(_P.SECURITY_ASSOCIATION, 1, 1),
    PayloadRule(_P.NONCE, 1, 1),
    PayloadRule(_P.KEY_EXCHANGE, 0, 1),
    PayloadRule(_P.TRAFFIC_SELECTORS_INITIATOR, 1, 1),
    PayloadRule(_P.TRAFFIC_SELECTORS_RESPONDER, 1, 1),
    _NOTIFIES,
)
_IKE_KEYS = (
    PayloadRule(_P.SECURITY_ASSOCIATION, 1, 1),
    PayloadRule(_P.KEY_EXCHANGE, 1, 1),
    PayloadRule(_P.NONCE, 1, 1),
    _NOTIFIES,
)
_AUTH_CHILD = (
    PayloadRule(_P.SECURITY_ASSOCIATION, 0, 1),
    PayloadRule(_P.TRAFFIC_SELECTORS_INITIATOR, 0, 1),
    PayloadRule(_P.TRAFFIC_SELECTORS_RESPONDER, 0, 1),
    _NOTIFIES,
)

EXCHANGE_RULES: Mapping[MessageKind, MessageRule] = MappingProxyType(
    {
        MessageKind(ExchangeType.IKE_SA_INIT, False): MessageRule(False, _IKE_KEYS),
        MessageKind(ExchangeType.IKE_SA_INIT, True): MessageRule(False, (*_IKE_KEYS, _CERTIFICATE_REQUESTS)),
        MessageKind(ExchangeType.IKE_AUTH, False): MessageRule(
            True,
            (
                PayloadRule(_P.IDENTIFICATION_INITIATOR, 1, 1),
                PayloadRule(_P.IDENTIFICATION_RESPONDER, 0, 1),
                PayloadRule(_P.AUTHENTICATION, 0, 1),  # none: it wants EAP (section 2.16)
                _CERTIFICATES,
                _CERTIFICATE_REQUESTS,
                *_AUTH_CHILD,
            ),
        ),
        MessageKind(ExchangeType.IKE_AUTH, True): MessageRule(
            True,
            (
                PayloadRule(_P.IDENTIFICATION_RESPONDER, 1, 1),
                PayloadRule(_P.AUTHENTICATION, 1, 1),
                _CERTIFICATES,
                *_AUTH_CHILD,
            ),
        ),
        MessageKind(ExchangeType.CREATE_CHILD_SA, False): MessageRule(True, _CHILD),
        MessageKind(ExchangeType.CREATE_CHILD_SA, True): MessageRule(True, _CHILD),
        MessageKind(ExchangeType.CREATE_CHILD_SA, False, True): MessageRule(True, _IKE_KEYS),
        MessageKind(ExchangeType.CREATE_CHILD_SA, True, True): MessageRule(True, _IKE_KEYS),
        MessageKind(ExchangeType.INFORMATIONAL, False): MessageRule(True, (_NOTIFIES, PayloadRule(_P.DELETE, 0, MANY))),
        MessageKind(ExchangeType.INFORMATIONAL, True): MessageRule(True, (_NOTIFIES, PayloadRule(_P.DELETE, 0, MANY))),
    }
)
EXCHANGE_TYPES = frozenset(kind.exchange_type for kind in EXCHANGE_RULES)

_NOT_SUCCESS = frozenset({NotifyType.COOKIE})
"""Status notifies with which a response is no success."""

P = TypeVar("P", bound=Payload)


class Contents:
    """The payloads of one message that has kept its rule."""

    __slots__ = ("_first", "certificate_requests", "certificates", "counts", "deletes", "notifies", "wrong")

    def __init__(self, payloads: Sequence[Payload]) -> None:
        self._first: dict[type[Payload], Payload] = {}
        self.counts: dict[int, int] = {}
        """How often each known payload stands in the message."""
        self.notifies: list[Notify] = []
        self.deletes: list[Delete] = []
        self.certificates: list[Certificate] = []
        self.certificate_requests: list[CertificateRequest] = []
        self.wrong: Notify | None = None
        """The first notify that reports an error."""
        counts = self.counts
        for payload in payloads:
            cls = type(payload)
            if cls is UnknownPayload:
                continue
            counts[cls.TYPE] = counts.get(cls.TYPE, 0) + 1
            self._first.setdefault(cls, payload)
            if type(payload) is Notify:
                self.notifies.append(payload)
                if self.wrong is None and payload.is_error:
                    self.wrong = payload
            elif type(payload) is Delete:
                self.deletes.append(payload)
            elif type(payload) is Certificate:
                self.certificates.append(payload)
            elif type(payload) is CertificateRequest:
                self.certificate_requests.append(payload)

    def find(self, cls: type[P]) -> P | None:
        """The payload of this class."""
        return cast("P | None", self._first.get(cls))

    def need(self, cls: type[P]) -> P:
        """The payload of this class; MalformedMessage if there is none."""
        payload = self._first.get(cls)
        if payload is None:
            raise MalformedMessage(f"no {cls.__name__} payload")
        return cast("P", payload)

    def notify(self, kind: NotifyType) -> Notify | None:
        """The first notify of this type."""
        return next((notify for notify in self.notifies if notify.type == kind), None)

    def all_of(self, kind: NotifyType) -> list[Notify]:
        """All notifies of this type."""
        return [notify for notify in self.notifies if notify.type == kind]


def check(exchange_type: int, *, response: bool, encrypted: bool, payloads: Sequence[Payload]) -> Contents:
    """The contents of a message; MalformedMessage if it breaks its rule."""
    contents = Contents(payloads)
    rule = EXCHANGE_RULES[_kind(exchange_type, response, contents)]
    if rule.encrypted is not encrypted:
        raise MalformedMessage(f"exchange {exchange_type}: {'in clear' if rule.encrypted else 'encrypted'}")
    counts = contents.counts
    fails = response and (contents.wrong is not None or any(one.type in _NOT_SUCCESS for one in contents.notifies))
    for row in rule.payloads:
        count = counts.get(row.payload, 0)
        if count > row.at_most or (count < row.at_least and not fails):
            raise MalformedMessage(f"exchange {exchange_type}: {count} {row.payload.name} payloads")
    return contents


def _kind(exchange_type: int, response: bool, contents: Contents) -> MessageKind:
    sa = contents.find(SecurityAssociation) if exchange_type == ExchangeType.CREATE_CHILD_SA else None
    return MessageKind(exchange_type, response, sa is not None and sa.proposals[0].protocol == ProtocolId.IKE)
