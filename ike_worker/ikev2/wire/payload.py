"""What every payload class offers. RFC 7296 section 3.2."""

import abc
from typing import ClassVar, Self

from ike_worker.ikev2.iana import PayloadType
from ike_worker.ikev2.wire.reader import Reader


class Payload(abc.ABC):
    """A payload without its generic header; a subclass is a frozen dataclass with a row in PAYLOAD_CLASSES."""

    __slots__ = ()
    TYPE: ClassVar[PayloadType]

    @abc.abstractmethod
    def encode_body(self) -> bytes:
        """What follows the generic payload header."""

    @classmethod
    @abc.abstractmethod
    def parse_body(cls, reader: Reader) -> Self:
        """The payload that `reader` holds; MalformedMessage. The caller sees to it that nothing is left over."""
