"""The Nonce payload. RFC 7296 section 3.9."""

from typing import ClassVar, Self

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value

MIN_BYTES = 16
MAX_BYTES = 256


@value
class Nonce(Payload):
    """16 to 256 random bytes."""

    TYPE: ClassVar[PayloadType] = PayloadType.NONCE
    data: bytes

    def encode_body(self) -> bytes:
        return self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        data = reader.rest()
        if not MIN_BYTES <= len(data) <= MAX_BYTES:
            raise MalformedMessage(f"Nonce: {len(data)} bytes, not {MIN_BYTES} to {MAX_BYTES}")
        return cls(data=data)
