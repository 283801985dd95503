"""Values for messages, made from what the dataclasses declare: hypothesis strategies, and good and wrong wire values.

A new message or field is covered without a line here, as long as its types are among those that `codec.py` knows.
"""

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack
from hypothesis import strategies as st

from ipc import codec
from ipc.codec import DEFAULT_MAX_LENGTH
from ipc.messages import REGISTRY, VERSION
from ipc.types import IpAddress, MaxLength, Secret

_FEW = 3
_SHORT = 40
_NUMBERS = (int, float, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """An annotation without its `Annotated`, the length limit apart."""

    kind: Any
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """A wire value that must be refused, and why."""

    why: str
    value: Any


def declared(annotation: Any) -> Declared:
    """Takes `annotation` apart."""
    limit = DEFAULT_MAX_LENGTH
    while typing.get_origin(annotation) is typing.Annotated:
        annotation, *metadata = typing.get_args(annotation)
        limit = next((item.value for item in metadata if isinstance(item, MaxLength)), limit)
    return Declared(kind=annotation, limit=limit)


def fields_of(cls: type) -> dict[str, Any]:
    """The fields of a dataclass in their order, with their annotations."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _without_none(kind: Any) -> Any:
    arms = tuple(arm for arm in typing.get_args(kind) if arm is not type(None))
    return typing.Union[arms]  # noqa: UP007 - made from a tuple


def _item(kind: Any) -> Any:
    return typing.get_args(kind)[0]


# ------------------------------------------------------------- values for round trips


def strategy(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of this declared type."""
    one = declared(annotation)
    kind = one.kind
    if kind == IpAddress:
        return st.ip_addresses()
    if _is_union(kind):
        return st.none() | strategy(_without_none(kind))
    if typing.get_origin(kind) is tuple:
        return st.lists(strategy(_item(kind)), max_size=min(one.limit, _FEW)).map(tuple)
    if dataclasses.is_dataclass(kind):
        return st.builds(kind, **{name: strategy(hint) for name, hint in fields_of(typing.cast(type, kind)).items()})
    if issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    length = min(one.limit, _SHORT)
    plain: dict[type, st.SearchStrategy[Any]] = {
        Secret: st.binary(max_size=length).map(Secret),
        bytes: st.binary(max_size=length),
        str: st.text(max_size=length),
        int: st.integers(0, (1 << 64) - 1),
        float: st.floats(min_value=0.0, allow_nan=False),
        bool: st.booleans(),
    }
    return plain[kind]


# ------------------------------------------------------------- wire values, good and wrong


def good(annotation: Any) -> Any:
    """One wire value that is right for this declared type."""
    kind = declared(annotation).kind
    if kind == IpAddress:
        return bytes(4)
    if _is_union(kind):
        return good(_without_none(kind))
    if typing.get_origin(kind) is tuple:
        return [good(_item(kind))]
    if dataclasses.is_dataclass(kind):
        return [good(hint) for hint in fields_of(typing.cast(type, kind)).values()]
    if issubclass(kind, enum.Enum):
        return next(iter(kind)).value
    return {Secret: b"s", bytes: b"b", str: "t", int: 1, float: 1.0, bool: True}[kind]


def wrong(annotation: Any) -> Iterator[Wrong]:
    """Wire values that are wrong for this declared type, its parts included."""
    one = declared(annotation)
    kind = one.kind
    if kind == IpAddress:
        yield from _of_other_types(bytes)
        yield from (Wrong(why=f"{length} bytes", value=bytes(length)) for length in (0, 3, 5, 15, 17))
    elif _is_union(kind):
        yield from (item for item in wrong(_without_none(kind)) if item.value is not None)
    elif typing.get_origin(kind) is tuple:
        yield from _of_other_types(list)
        yield Wrong(why="too many items", value=[good(_item(kind))] * (one.limit + 1))
        yield from (Wrong(why=f"item: {item.why}", value=[item.value]) for item in wrong(_item(kind)))
    elif dataclasses.is_dataclass(kind):
        yield from _of_other_types(list)
        yield from wrong_fields(typing.cast(type, kind))
    elif issubclass(kind, enum.Enum):
        value_type = type(next(iter(kind)).value)
        yield from _of_other_types(value_type)
        yield Wrong(why="no member", value="no such member" if value_type is str else 65534)
    else:
        yield from _wrong_plain(kind, one.limit)


def _wrong_plain(kind: type, limit: int) -> Iterator[Wrong]:
    wire_type = bytes if kind is Secret else kind
    yield from _of_other_types(wire_type)
    if kind is int:
        yield Wrong(why="negative", value=-1)
    elif kind is float:
        yield Wrong(why="negative", value=-0.5)
        yield Wrong(why="not a number", value=float("nan"))
    elif wire_type is bytes:
        yield Wrong(why="too long", value=bytes(limit + 1))
    elif kind is str:
        yield Wrong(why="too long", value="x" * (limit + 1))


def wrong_fields(cls: type) -> Iterator[Wrong]:
    """Wire values of a dataclass with one field missing, one too many, or one wrong."""
    hints = fields_of(cls)
    right = [good(hint) for hint in hints.values()]
    if right:
        yield Wrong(why="no fields", value=[])
        yield Wrong(why="last field missing", value=right[:-1])
    yield Wrong(why="a field too many", value=[*right, 1])
    for position, (name, hint) in enumerate(hints.items()):
        for item in wrong(hint):
            yield Wrong(why=f"{name}: {item.why}", value=[*right[:position], item.value, *right[position + 1 :]])


def _of_other_types(right: type) -> Iterator[Wrong]:
    samples: dict[type, Any] = {
        type(None): None,
        bool: True,
        int: 7,
        float: 1.5,
        str: "x",
        bytes: b"xxxx",
        list: [],
    }
    yield from (Wrong(why=f"a {kind.__name__}", value=value) for kind, value in samples.items() if kind is not right)


def sample(cls: type) -> object:
    """A right message of this class."""
    number = next(number for number, known in REGISTRY.items() if known is cls)
    return codec.decode(msgpack.packb([VERSION, number, *(good(hint) for hint in fields_of(cls).values())]))
