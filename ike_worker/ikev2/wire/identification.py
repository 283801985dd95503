"""The Identification payloads. RFC 7296 section 3.5."""

import struct
from typing import ClassVar, Self

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.types import IdType
from ipc.value import value

MAX_DATA_BYTES = 1024
"""The longest identity that goes to the policy loader."""
_HEADER = struct.Struct("!B3x")
_ADDRESS_BYTES = {int(IdType.IPV4_ADDR): 4, int(IdType.IPV6_ADDR): 16}


@value
class _Identification(Payload):
    id_type: int
    data: bytes

    @property
    def body(self) -> bytes:
        """Type, three reserved bytes, data: what AUTH is computed over (RFC 7296 section 2.15)."""
        return _HEADER.pack(self.id_type) + self.data

    def encode_body(self) -> bytes:
        return self.body

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        (id_type,) = reader.unpack(_HEADER)
        data = reader.rest()
        if len(data) > MAX_DATA_BYTES:
            raise MalformedMessage(f"{cls.__name__}: {len(data)} bytes, at most {MAX_DATA_BYTES}")
        if len(data) != _ADDRESS_BYTES.get(id_type, len(data)):
            raise MalformedMessage(f"{cls.__name__}: an address of {len(data)} bytes")
        return cls(id_type=id_type, data=data)


@value
class IdentificationInitiator(_Identification):
    """Who the initiator says it is: IDi."""

    TYPE: ClassVar[PayloadType] = PayloadType.IDENTIFICATION_INITIATOR


@value
class IdentificationResponder(_Identification):
    """Who the responder is, or is wanted to be: IDr."""

    TYPE: ClassVar[PayloadType] = PayloadType.IDENTIFICATION_RESPONDER
