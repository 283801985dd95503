"""Messages to bytes and back: msgpack of [VERSION, number, field, field, ...], typed and bounded.

The invariant: arbitrary bytes give a message whose every field has its declared type and length, or MessageRefused,
in time linear in their length. The encoders and decoders of a class are made from its annotations, when the first of it
comes or goes.
"""

import dataclasses
import enum
import functools
import ipaddress
import itertools
import marshal
import operator
import types
import typing
from collections.abc import Callable
from typing import Any

import msgpack

from ipc import wishes  # noqa: F401 - declares messages
from ipc.algorithms import EspProposal, IkeProposal
from ipc.errors import MessageRefused
from ipc.messages import REGISTRY, VERSION, KernelRule, NegotiationRule, Peer
from ipc.types import IpAddress, MaxLength, PortRange, Secret

DEFAULT_MAX_LENGTH = 1024
"""For a str, bytes or tuple whose declaration says nothing."""
MAX_MESSAGE_BYTES = 80 * 1024 * 1024
"""Above the largest message there is (ParsePolicy); a link refuses longer ones before it reads them."""

MOST_REMEMBERED = 250_000
"""Objects of one class; beyond, all are forgotten."""
ADDRESSES_REMEMBERED = 16_384
"""An SA has a dozen addresses, of which few differ."""

Coder = Callable[[Any], Any]
T = typing.TypeVar("T")
_PLAIN_TYPES = (int, bool, float)


def encode(message: object) -> bytes:
    """The wire form of `message`; TypeError if it is none, MessageRefused where a field is not as declared."""
    cls = type(message)
    try:
        number = _NUMBERS[cls]
    except KeyError:
        raise TypeError(f"{cls.__name__} is not a message") from None
    data: bytes = msgpack.packb([VERSION, number, *_dataclass(cls)[0](message)])
    return data


def decode(data: bytes) -> object:
    """The message that `data` holds; MessageRefused if it holds none."""
    values = _unpack(data)
    if len(values) < 2:
        raise MessageRefused("no version and number")
    version, number = values[0], values[1]
    if type(version) is not int or version != VERSION:
        raise MessageRefused(f"version {version!r:.20}, not {VERSION}")
    if type(number) is not int or number not in REGISTRY:
        raise MessageRefused(f"unknown message number {number!r:.20}")
    return _dataclass(REGISTRY[number])[1](values[2:])


def encode_value(value: object) -> bytes:
    """The bytes of a declared dataclass that is no message; MessageRefused where a field is not as declared."""
    data: bytes = msgpack.packb([VERSION, *_dataclass(type(value))[0](value)])
    return data


def decode_value(cls: type[T], data: bytes) -> T:
    """The `cls` that `encode_value` wrote; MessageRefused if `data` is anything else."""
    values = _unpack(data)
    if not values or values[0] != VERSION:
        raise MessageRefused(f"{cls.__name__}: not version {VERSION}")
    return typing.cast(T, _dataclass(cls)[1](values[1:]))


def _unpack(data: bytes) -> tuple[Any, ...]:
    try:
        values = msgpack.unpackb(
            data, use_list=False, strict_map_key=True, max_map_len=0, max_ext_len=0, ext_hook=_refuse_extension
        )
    except Exception as error:  # msgpack raises many kinds; all mean one thing here
        raise MessageRefused(f"not msgpack: {type(error).__name__}") from error
    if type(values) is not tuple:
        raise MessageRefused("not a list")
    return values


def _refuse_extension(code: int, _data: bytes) -> Any:
    """One of length 0 is not stopped by the limit."""
    raise MessageRefused(f"msgpack extension {code}")


def _coders(annotation: Any, where: str) -> tuple[Coder, Coder]:
    """(encode, decode) for a field of this declared type."""
    limit = DEFAULT_MAX_LENGTH
    while typing.get_origin(annotation) is typing.Annotated:
        annotation, *metadata = typing.get_args(annotation)
        limit = next((item.value for item in metadata if isinstance(item, MaxLength)), limit)
    origin = typing.get_origin(annotation)
    if annotation == IpAddress:
        return _encode_address, _address_decoder(where)
    if origin in (typing.Union, types.UnionType):
        arms = tuple(arm for arm in typing.get_args(annotation) if arm is not type(None))
        return _optional(*_coders(typing.Union[arms], where))  # noqa: UP007 - made from a tuple
    if origin is tuple:
        return _tuple(*_coders(typing.get_args(annotation)[0], where), limit, where)
    if annotation is Secret:
        return _secret(limit, where)
    if dataclasses.is_dataclass(annotation):
        return _dataclass(typing.cast(type, annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum(annotation, where)
    if annotation in (str, bytes):
        return _bounded(annotation, limit, where)
    if annotation in _PLAIN_TYPES:
        return _plain(annotation, where)
    raise TypeError(f"{where}: no coder for {annotation}")


def _plain(kind: Any, where: str) -> tuple[Coder, Coder]:
    def check_bool(value: Any) -> Any:
        if type(value) is not bool:
            raise MessageRefused(f"{where}: {type(value).__name__}, not bool")
        return value

    def check_int(value: Any) -> Any:
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise MessageRefused(f"{where}: {type(value).__name__}, not an int from 0 to 2^64-1")
        return value

    def encode_int(value: Any) -> Any:
        if type(value) is int and 0 <= value < 1 << 64:
            return value
        return check_int(int(value))

    def check_float(value: Any) -> Any:
        if type(value) is not float or not value >= 0.0:
            raise MessageRefused(f"{where}: {type(value).__name__}, not a float of at least 0")
        return value

    if kind is bool:
        return check_bool, check_bool
    if kind is int:
        return encode_int, check_int
    return (lambda value: check_float(float(value))), check_float


def _bounded(kind: Any, limit: int, where: str) -> tuple[Coder, Coder]:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise MessageRefused(f"{where}: {type(value).__name__}, not {kind.__name__}")
        if len(value) > limit:
            raise MessageRefused(f"{where}: {len(value)} long, at most {limit}")
        return value

    return check, check


def _secret(limit: int, where: str) -> tuple[Coder, Coder]:
    check = _bounded(bytes, limit, where)[1]
    return lambda value: check(value.reveal()), lambda value: Secret(check(value))


def _encode_address(value: IpAddress) -> bytes:
    return value.packed


@functools.lru_cache(maxsize=ADDRESSES_REMEMBERED)
def _address(packed: bytes) -> IpAddress:
    return ipaddress.IPv4Address(packed) if len(packed) == 4 else ipaddress.IPv6Address(packed)


def _address_decoder(where: str) -> Coder:
    def decode_address(value: Any) -> IpAddress:
        if type(value) is bytes and len(value) in (4, 16):
            return _address(value)
        raise MessageRefused(f"{where}: not an address")

    return decode_address


def _enum(kind: type[enum.Enum], where: str) -> tuple[Coder, Coder]:
    members = {member.value: member for member in kind}
    value_type = type(next(iter(members)))

    def decode_enum(value: Any) -> Any:
        member = members.get(value) if type(value) is value_type else None
        if member is None:
            raise MessageRefused(f"{where}: {value!r:.20} is no {kind.__name__}")
        return member

    def encode_enum(value: Any) -> Any:
        if type(value) is not kind:
            raise MessageRefused(f"{where}: {value!r:.20} is no {kind.__name__}")
        return value._value_

    return encode_enum, decode_enum


def _optional(encode_inner: Coder, decode_inner: Coder) -> tuple[Coder, Coder]:
    return (
        lambda value: None if value is None else encode_inner(value),
        lambda value: None if value is None else decode_inner(value),
    )


def _tuple(encode_item: Coder, decode_item: Coder, limit: int, where: str) -> tuple[Coder, Coder]:
    def check(value: Any) -> Any:
        if type(value) is not tuple:
            raise MessageRefused(f"{where}: {type(value).__name__}, not a list")
        if len(value) > limit:
            raise MessageRefused(f"{where}: {len(value)} items, at most {limit}")
        return value

    return (
        lambda value: [encode_item(item) for item in check(value)],
        lambda value: tuple([decode_item(item) for item in check(value)]),
    )


def _dataclass(cls: type) -> tuple[Coder, Coder]:
    """Coders for a dataclass: a list of its fields in their order."""
    if cls in _ENCODERS:
        return _ENCODERS[cls], _DECODERS[cls]
    hints = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls)]
    coders = [_coders(hints[name], f"{cls.__name__}.{name}") for name in names]
    encoders = [pair[0] for pair in coders]
    decoders = [pair[1] for pair in coders]
    # Reading all fields at once and filling the slots by their descriptors takes half the time of getattr and __init__,
    # `map` two thirds of a loop.
    fields_of = operator.attrgetter(*names) if len(names) > 1 else lambda value: [getattr(value, n) for n in names]
    fill = [getattr(cls, name).__set__ for name in names]

    def encode_fields(value: Any) -> list[Any]:
        if type(value) is not cls:
            raise MessageRefused(f"{type(value).__name__}, not {cls.__name__}")
        return list(map(operator.call, encoders, fields_of(value)))

    def decode_fields(values: Any) -> Any:
        if type(values) is not tuple or len(values) != len(decoders):
            raise MessageRefused(f"{cls.__name__}: not its {len(decoders)} fields")
        made: Any = object.__new__(cls)
        list(map(operator.call, fill, itertools.repeat(made), map(operator.call, decoders, values)))
        return made

    if cls in _REMEMBERED:
        _ENCODERS[cls], _DECODERS[cls] = _remembering(encode_fields, decode_fields)
    else:
        _ENCODERS[cls], _DECODERS[cls] = encode_fields, decode_fields
    return _ENCODERS[cls], _DECODERS[cls]


def _remembering(encode_fields: Coder, decode_fields: Coder) -> tuple[Coder, Coder]:
    """Coders that remember: a policy has the same few objects in each rule, and the same rules at each reload.

    The same object is encoded once, and the same values give the same object: what is the same is found to be so at
    once, too. What was decoded and is sent on is not encoded at all.
    """
    encoded: dict[int, tuple[Any, Any]] = {}
    decoded: dict[bytes, Any] = {}

    def encode_remembered(value: Any) -> Any:
        found = encoded.get(id(value))
        if found is None or found[0] is not value:
            if len(encoded) >= MOST_REMEMBERED:
                encoded.clear()
            found = encoded[id(value)] = (value, encode_fields(value))
        return found[1]

    def decode_remembered(values: Any) -> Any:
        # Values as bytes, since True and 1 are equal. Version 2 writes equal values of equal types equally.
        key = marshal.dumps(values, 2)
        found = decoded.get(key)
        if found is None:
            if len(decoded) >= MOST_REMEMBERED:
                decoded.clear()
                encoded.clear()
            found = decoded[key] = decode_fields(values)
            encoded[id(found)] = (found, values)
        return found

    return encode_remembered, decode_remembered


_REMEMBERED = frozenset({KernelRule, NegotiationRule, Peer, EspProposal, IkeProposal, PortRange})
"""Without a secret, and sent again and again: at each reload a whole policy, a peer in each checkpoint."""
_ENCODERS: dict[type, Coder] = {}
_DECODERS: dict[type, Coder] = {}
_NUMBERS = {cls: number for number, cls in REGISTRY.items()}
