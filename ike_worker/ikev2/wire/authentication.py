"""The Authentication payload. RFC 7296 section 3.8."""

import struct
from typing import ClassVar, Self

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value

MAX_DATA_BYTES = 8192
"""The longest AUTH that goes to the policy loader: any signature there is."""
_HEADER = struct.Struct("!B3x")


@value
class Authentication(Payload):
    """AUTH: a MAC or a signature, by `ipc.types.AuthMethod`."""

    TYPE: ClassVar[PayloadType] = PayloadType.AUTHENTICATION
    method: int
    data: bytes

    def encode_body(self) -> bytes:
        return _HEADER.pack(self.method) + self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        (method,) = reader.unpack(_HEADER)
        data = reader.rest()
        if len(data) > MAX_DATA_BYTES:
            raise MalformedMessage(f"Authentication: {len(data)} bytes, at most {MAX_DATA_BYTES}")
        return cls(method=method, data=data)
