"""The Certificate and Certificate Request payloads. RFC 7296 sections 3.6 and 3.7."""

import struct
from typing import ClassVar, Self

from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.reader import Reader
from ipc.value import value

_HEADER = struct.Struct("!B")


@value
class Certificate(Payload):
    """CERT: `data` in the encoding that `ipc.types.CertificateEncoding` names."""

    TYPE: ClassVar[PayloadType] = PayloadType.CERTIFICATE
    encoding: int
    data: bytes

    def encode_body(self) -> bytes:
        return _HEADER.pack(self.encoding) + self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        (encoding,) = reader.unpack(_HEADER)
        return cls(encoding=encoding, data=reader.rest())


@value
class CertificateRequest(Payload):
    """CERTREQ: certification authorities that the sender trusts; for X.509, SHA-1 hashes of their keys, or none."""

    TYPE: ClassVar[PayloadType] = PayloadType.CERTIFICATE_REQUEST
    encoding: int
    data: bytes = b""

    def encode_body(self) -> bytes:
        return _HEADER.pack(self.encoding) + self.data

    @classmethod
    def parse_body(cls, reader: Reader) -> Self:
        (encoding,) = reader.unpack(_HEADER)
        return cls(encoding=encoding, data=reader.rest_or_empty())
