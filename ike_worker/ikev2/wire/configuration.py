"""The Configuration payload, its attributes unparsed. RFC 7296 section 3.15."""

import struct
from typing import ClassVar, Self

from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value

_HEADER = struct.Struct("!B3x")


@value
class Configuration(Payload):
    """CP: `type` is 1 request, 2 reply, 3 set, 4 ack; `data` the attributes as they came."""

    TYPE: ClassVar[PayloadType] = PayloadType.CONFIGURATION
    type: int
    data: bytes = b""

    def encode_body(self) -> bytes:
        return _HEADER.pack(self.type) + self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        (kind,) = reader.unpack(_HEADER)
        return cls(type=kind, data=reader.rest_or_empty())
