"""The EAP payload, its message unparsed. RFC 7296 section 3.16."""

from typing import ClassVar, Self

from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value


@value
class Eap(Payload):
    """An EAP message as it came: known, so that its critical bit means nothing, and not spoken."""

    TYPE: ClassVar[PayloadType] = PayloadType.EAP
    data: bytes

    def encode_body(self) -> bytes:
        return self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        return cls(data=reader.rest())
