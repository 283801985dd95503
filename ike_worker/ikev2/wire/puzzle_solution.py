"""The Puzzle Solution payload. RFC 8019 section 8.2."""

from typing import ClassVar, Self

from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value


@value
class PuzzleSolution(Payload):
    """The keys that solve the puzzle of an IKE_SA_INIT response, in a row."""

    TYPE: ClassVar[PayloadType] = PayloadType.PUZZLE_SOLUTION
    data: bytes

    def encode_body(self) -> bytes:
        return self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        return cls(data=reader.rest())
