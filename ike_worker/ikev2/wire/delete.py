"""The Delete payload. RFC 7296 section 3.11."""

import struct
from typing import ClassVar, Self

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value

_HEADER = struct.Struct("!BBH")  # protocol, SPI size, number of SPIs


@value
class Delete(Payload):
    """SAs that the sender has deleted: its inbound SPIs, all of one size; none where `protocol` is IKE."""

    TYPE: ClassVar[PayloadType] = PayloadType.DELETE
    protocol: int
    spis: tuple[bytes, ...] = ()

    def encode_body(self) -> bytes:
        spi_size = len(self.spis[0]) if self.spis else 0
        return _HEADER.pack(self.protocol, spi_size, len(self.spis)) + b"".join(self.spis)

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        protocol, spi_size, count = reader.unpack(_HEADER)
        if count and not spi_size:
            raise MalformedMessage(f"Delete: {count} SPIs of no size")
        return cls(protocol=protocol, spis=tuple([reader.take(spi_size) for _ in range(count)]))
