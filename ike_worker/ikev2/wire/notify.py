"""The Notify payload. RFC 7296 section 3.10."""

import struct
from typing import ClassVar, Self

from ike_worker.ikev2.iana import FIRST_STATUS_NOTIFY, PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value

_HEADER = struct.Struct("!BBH")  # protocol, SPI size, type


@value
class Notify(Payload):
    """An error or a status. `protocol` and `spi` name the SA it is about, where there is one."""

    TYPE: ClassVar[PayloadType] = PayloadType.NOTIFY
    protocol: int = 0
    spi: bytes = b""
    type: int
    data: bytes = b""

    @property
    def is_error(self) -> bool:
        """Whether it reports an error, also one that we do not know (RFC 7296 section 3.10.1)."""
        return self.type < FIRST_STATUS_NOTIFY

    def encode_body(self) -> bytes:
        return _HEADER.pack(self.protocol, len(self.spi), self.type) + self.spi + self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        protocol, spi_size, kind = reader.unpack(_HEADER)
        return cls(protocol=protocol, spi=reader.take(spi_size), type=kind, data=reader.rest_or_empty())
