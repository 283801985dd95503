"""A payload of a type that we do not know. RFC 7296 section 2.5."""

from typing import ClassVar, Self

from ike_worker.ikev2.errors import LocalError
from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value


@value
class UnknownPayload(Payload):
    """Kept as it came; receivers skip it. Each has a `type` of its own, so that the class has none of ours."""

    TYPE: ClassVar[PayloadType] = PayloadType.NONE
    type: int
    critical: bool = False
    data: bytes = b""

    def encode_body(self) -> bytes:
        return self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        raise LocalError("the body of an unknown payload does not tell its type")
