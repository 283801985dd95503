"""The Traffic Selector payloads. RFC 7296 section 3.13."""

import ipaddress
import struct
from collections.abc import Callable
from typing import ClassVar, Self

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.iana import PayloadType, TsType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.types import IpAddress, TrafficSelector
from ipc.value import value

_HEADER = struct.Struct("!B3x")  # number of selectors
_SELECTOR = struct.Struct("!BBH")  # type, IP protocol, length
_PORTS = struct.Struct("!HH")
_IPV4 = int(TsType.IPV4_ADDR_RANGE)
_IPV6 = int(TsType.IPV6_ADDR_RANGE)
_OPAQUE_PORTS = (65535, 0)


@value
class _TrafficSelectors(Payload):
    selectors: tuple[TrafficSelector, ...]

    def encode_body(self) -> bytes:
        encoded = [_encode_selector(selector) for selector in self.selectors]
        return _HEADER.pack(len(encoded)) + b"".join(encoded)

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        (count,) = reader.unpack(_HEADER)
        parsed = [_parse_selector(reader) for _ in range(count)]
        return cls(selectors=tuple([selector for selector in parsed if selector is not None]))


@value
class TrafficSelectorsInitiator(_TrafficSelectors):
    """TSi: the traffic on the initiator's side. Empty if it held none, or none of a type that we know."""

    TYPE: ClassVar[PayloadType] = PayloadType.TRAFFIC_SELECTORS_INITIATOR


@value
class TrafficSelectorsResponder(_TrafficSelectors):
    """TSr: the traffic on the responder's side, likewise."""

    TYPE: ClassVar[PayloadType] = PayloadType.TRAFFIC_SELECTORS_RESPONDER


def _encode_selector(selector: TrafficSelector) -> bytes:
    start, end = selector.start_address.packed, selector.end_address.packed
    kind = _IPV4 if len(start) == 4 else _IPV6
    length = _SELECTOR.size + _PORTS.size + 2 * len(start)
    ports = _PORTS.pack(selector.start_port, selector.end_port)
    return _SELECTOR.pack(kind, selector.protocol, length) + ports + start + end


def _parse_selector(reader: Reader) -> TrafficSelector | None:
    """One selector, or None for a type that we do not know. A range of addresses or ports is never upside down."""
    kind, protocol, length = reader.unpack(_SELECTOR)
    part = reader.part(length, _SELECTOR.size, "traffic selector")
    if kind not in (_IPV4, _IPV6):
        return None
    start_port, end_port = part.unpack(_PORTS)
    size = 4 if kind == _IPV4 else 16
    start, end = part.take(size), part.take(size)
    part.expect_end()
    if start > end:
        raise MalformedMessage("traffic selector: addresses end before they start")
    if start_port > end_port and (start_port, end_port) != _OPAQUE_PORTS:
        raise MalformedMessage("traffic selector: ports end before they start")
    make: Callable[[int], IpAddress] = ipaddress.IPv4Address if kind == _IPV4 else ipaddress.IPv6Address
    start_address = make(int.from_bytes(start))
    return TrafficSelector(
        protocol=protocol,
        start_address=start_address,
        end_address=start_address if start == end else make(int.from_bytes(end)),
        start_port=start_port,
        end_port=end_port,
    )
