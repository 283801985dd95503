"""The Key Exchange payload. RFC 7296 section 3.4."""

import struct
from typing import ClassVar, Self

from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value

_HEADER = struct.Struct("!H2x")


@value
class KeyExchangePayload(Payload):
    """A public value: `group` is the transform id of the key exchange method, `data` its wire form, never empty."""

    TYPE: ClassVar[PayloadType] = PayloadType.KEY_EXCHANGE
    group: int
    data: bytes

    def encode_body(self) -> bytes:
        return _HEADER.pack(self.group) + self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        (group,) = reader.unpack(_HEADER)
        return cls(group=group, data=reader.rest())
