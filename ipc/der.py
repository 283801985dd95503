"""Reading DER (X.690), as far as names and algorithm identifiers need it.

The invariant: arbitrary bytes give elements whose lengths add up, or DerError, in time linear in their length. Whoever
needs certificates uses `cryptography`; this is for the small values around them, also where that library must not be.
"""

from dataclasses import dataclass

from ipc.value import value

SEQUENCE = 0x30
SET = 0x31
INTEGER = 0x02
BIT_STRING = 0x03
NULL = 0x05
OBJECT_IDENTIFIER = 0x06
_LONG_FORM = 0x80
_MAX_LENGTH_BYTES = 4
_HIGH_TAG = 0x1F


class DerError(ValueError):
    """These bytes are not the DER that they should be."""


@value
class Element:
    """One value with its tag. `encoded` is all of it, header included."""

    tag: int
    content: bytes
    encoded: bytes


def read(data: bytes) -> Element:
    """The one element that `data` is."""
    elements = read_all(data)
    if len(elements) != 1:
        raise DerError(f"{len(elements)} elements where one belongs")
    return elements[0]


def read_all(data: bytes) -> tuple[Element, ...]:
    """The elements one behind the other in `data`, such as the content of a SEQUENCE."""
    elements = []
    start = 0
    while start < len(data):
        content = _content_start(data, start)
        end = content.start + content.length
        if end > len(data):
            raise DerError(f"an element of {content.length} bytes, but only {len(data) - content.start} are there")
        elements.append(
            Element(tag=data[start], content=data[content.start : end], encoded=data[start:end]),
        )
        start = end
    return tuple(elements)


def children(element: Element, tag: int) -> tuple[Element, ...]:
    """The elements in `element`, which must have this tag."""
    if element.tag != tag:
        raise DerError(f"tag {element.tag:#04x} where {tag:#04x} belongs")
    return read_all(element.content)


def object_identifier(element: Element) -> str:
    """An OBJECT IDENTIFIER in dots (X.690 section 8.19)."""
    if element.tag != OBJECT_IDENTIFIER or not element.content or element.content[-1] & 0x80:
        raise DerError("no object identifier")
    arcs: list[int] = []
    value = 0
    for octet in element.content:
        value = value << 7 | octet & 0x7F
        if value >> 128:
            raise DerError("an object identifier with an arc of more than 128 bits")
        if not octet & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


@dataclass(frozen=True, slots=True)
class _Content:
    start: int
    length: int


def _content_start(data: bytes, start: int) -> _Content:
    if len(data) - start < 2:
        raise DerError("an element that ends in its header")
    if data[start] & _HIGH_TAG == _HIGH_TAG:
        raise DerError("a tag of more than one byte")
    length = data[start + 1]
    if length < _LONG_FORM:
        return _Content(start + 2, length)
    size = length - _LONG_FORM
    if not 1 <= size <= _MAX_LENGTH_BYTES or len(data) - start < 2 + size:
        raise DerError("a length that DER does not have")
    return _Content(start + 2 + size, int.from_bytes(data[start + 2 : start + 2 + size], "big"))
