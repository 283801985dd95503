"""The Encrypted Fragment payload: one part of a message whose whole would be too long. RFC 7383 section 2.5."""

import struct
from typing import ClassVar, Self

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value

NUMBERS = struct.Struct("!HH")  # fragment number, total fragments


@value
class EncryptedFragment(Payload):
    """SKF: fragment `number` of `total`, from 1; `body` is IV, ciphertext and ICV.

    `first_payload` is the type of the first payload of the whole message, and stands in fragment 1 only.
    """

    TYPE: ClassVar[PayloadType] = PayloadType.ENCRYPTED_FRAGMENT
    first_payload: int = 0
    number: int
    total: int
    body: bytes

    def encode_body(self) -> bytes:
        return NUMBERS.pack(self.number, self.total) + self.body

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        number, total = reader.unpack(NUMBERS)
        if not 1 <= number <= total:
            raise MalformedMessage(f"Encrypted Fragment: number {number} of {total}")
        return cls(number=number, total=total, body=reader.rest())
