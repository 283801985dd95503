"""The Vendor ID payload. RFC 7296 section 3.12."""

from typing import ClassVar, Self

from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value


@value
class VendorId(Payload):
    """An implementation's name for itself, mostly a hash."""

    TYPE: ClassVar[PayloadType] = PayloadType.VENDOR_ID
    data: bytes

    def encode_body(self) -> bytes:
        return self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        return cls(data=reader.rest_or_empty())
