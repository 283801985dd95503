"""Messages to bytes and back: msgpack of [VERSION, number, field, field, ...], typed and bounded.

The invariant: arbitrary bytes give a message whose every field has its declared type and length, or MessageRefused,
in time linear in their length. The encoders and decoders of a class are made from its annotations, when the first of it
comes or goes.
"""

import dataclasses
import enum
import functools
import ipaddress
import marshal
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

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


@dataclasses.dataclass(frozen=True, slots=True)
class _FieldCoder:
    """How the values of one declared type are checked and changed.

    The functions do all of it. The expressions do the same for what is as declared and leave the rest to the functions:
    in them {x} is the value, {f} the function, and `names` are known. They become part of the code of a whole class,
    since a call for each field took most of the time in which a message is encoded or decoded.
    """

    encode: Coder
    decode: Coder
    encode_expression: str = "{f}({x})"
    decode_expression: str = "{f}({x})"
    names: tuple[tuple[str, object], ...] = ()


def _field_coder(annotation: Any, where: str) -> _FieldCoder:
    """For a field of this declared type."""
    limit = DEFAULT_MAX_LENGTH
    while typing.get_origin(annotation) is typing.Annotated:
        annotation, *metadata = typing.get_args(annotation)
        limit = next((item.value for item in metadata if isinstance(item, MaxLength)), limit)
    origin = typing.get_origin(annotation)
    if annotation == IpAddress:
        return _FieldCoder(_encode_address, _address_decoder(where))
    if origin in (typing.Union, types.UnionType):
        arms = tuple(arm for arm in typing.get_args(annotation) if arm is not type(None))
        return _optional(_field_coder(typing.Union[arms], where))  # noqa: UP007 - made from a tuple
    if origin is tuple:
        return _tuple(_field_coder(typing.get_args(annotation)[0], where), limit, where)
    if annotation is Secret:
        return _secret(limit, where)
    if dataclasses.is_dataclass(annotation):
        return _FieldCoder(*_dataclass(typing.cast(type, annotation)))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum(annotation, where)
    if annotation in (str, bytes):
        return _bounded(annotation, limit, where)
    if annotation in _PLAIN_TYPES:
        return _plain(annotation, where)
    raise TypeError(f"{where}: no coder for {annotation}")


def _plain(kind: Any, where: str) -> _FieldCoder:
    def check_bool(value: Any) -> Any:
        if type(value) is not bool:
            raise MessageRefused(f"{where}: {type(value).__name__}, not bool")
        return value

    def check_int(value: Any) -> Any:
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise MessageRefused(f"{where}: {type(value).__name__}, not an int from 0 to 2^64-1")
        return value

    def check_float(value: Any) -> Any:
        if type(value) is not float or not value >= 0.0:
            raise MessageRefused(f"{where}: {type(value).__name__}, not a float of at least 0")
        return value

    if kind is bool:
        expression = "{x} if type({x}) is bool else {f}({x})"
        return _FieldCoder(check_bool, check_bool, expression, expression)
    if kind is int:
        expression = f"{{x}} if type({{x}}) is int and 0 <= {{x}} < {1 << 64} else {{f}}({{x}})"
        return _FieldCoder(lambda value: check_int(int(value)), check_int, expression, expression)
    expression = "{x} if type({x}) is float and {x} >= 0.0 else {f}({x})"
    return _FieldCoder(lambda value: check_float(float(value)), check_float, expression, expression)


def _bounded(kind: Any, limit: int, where: str) -> _FieldCoder:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise MessageRefused(f"{where}: {type(value).__name__}, not {kind.__name__}")
        if len(value) > limit:
            raise MessageRefused(f"{where}: {len(value)} long, at most {limit}")
        return value

    expression = f"{{x}} if type({{x}}) is {kind.__name__} and len({{x}}) <= {limit} else {{f}}({{x}})"
    return _FieldCoder(check, check, expression, expression)


def _secret(limit: int, where: str) -> _FieldCoder:
    check = _bounded(bytes, limit, where).decode
    return _FieldCoder(lambda value: check(value.reveal()), lambda value: Secret(check(value)))


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


def _enum(kind: type[enum.Enum], where: str) -> _FieldCoder:
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

    name, values = f"enum_{kind.__name__}", f"values_{kind.__name__}"
    return _FieldCoder(
        encode_enum,
        decode_enum,
        f"{{x}}._value_ if type({{x}}) is {name} else {{f}}({{x}})",
        f"{values}[{{x}}] if type({{x}}) is {value_type.__name__} and {{x}} in {values} else {{f}}({{x}})",
        ((name, kind), (values, members)),
    )


def _optional(inner: _FieldCoder) -> _FieldCoder:
    encode_inner, decode_inner = inner.encode, inner.decode
    return _FieldCoder(
        lambda value: None if value is None else encode_inner(value),
        lambda value: None if value is None else decode_inner(value),
        f"None if {{x}} is None else ({inner.encode_expression})",
        f"None if {{x}} is None else ({inner.decode_expression})",
        inner.names,
    )


def _tuple(inner: _FieldCoder, limit: int, where: str) -> _FieldCoder:
    encode_item, decode_item = inner.encode, inner.decode

    def check(value: Any) -> Any:
        if type(value) is not tuple:
            raise MessageRefused(f"{where}: {type(value).__name__}, not a list")
        if len(value) > limit:
            raise MessageRefused(f"{where}: {len(value)} items, at most {limit}")
        return value

    return _FieldCoder(
        lambda value: list(map(encode_item, check(value))),
        lambda value: tuple(map(decode_item, check(value))),
        "{x} if {x} == () else {f}({x})",
        "{x} if {x} == () else {f}({x})",
    )


def _dataclass(cls: type) -> tuple[Coder, Coder]:
    """Coders for a dataclass: a list of its fields in their order."""
    if cls in _ENCODERS:
        return _ENCODERS[cls], _DECODERS[cls]
    hints = typing.get_type_hints(cls, include_extras=True)
    coders = {
        field.name: _field_coder(hints[field.name], f"{cls.__name__}.{field.name}") for field in dataclasses.fields(cls)
    }
    encode_fields, decode_fields = _compiled(cls, coders)
    if cls in _REMEMBERED:
        encode_fields, decode_fields = _remembering(encode_fields, decode_fields)
    _ENCODERS[cls], _DECODERS[cls] = encode_fields, decode_fields
    return encode_fields, decode_fields


def _compiled(cls: type, coders: Mapping[str, _FieldCoder]) -> tuple[Coder, Coder]:
    """Functions that encode and decode all fields of `cls`, which has slots: those are filled by their descriptors."""
    names: dict[str, Any] = {"cls": cls, "new": object.__new__, "refuse": _refuse_fields}
    reads, encoded, fills = [], [], []
    for number, (name, coder) in enumerate(coders.items()):
        x = f"v{number}"
        names |= {f"e{number}": coder.encode, f"d{number}": coder.decode, **dict(coder.names)}
        names[f"s{number}"] = getattr(cls, name).__set__
        reads.append(f"    {x} = value.{name}\n")
        encoded.append(coder.encode_expression.format(x=x, f=f"e{number}"))
        fills.append(f"    s{number}(made, {coder.decode_expression.format(x=x, f=f'd{number}')})\n")
    listed = "".join(f"v{number}, " for number in range(len(coders)))
    code = (
        "def encode_fields(value):\n"
        "    if type(value) is not cls: refuse(cls, 'not a ' + type(value).__name__)\n"
        f"{''.join(reads)}"
        f"    return [{', '.join(encoded)}]\n"
        "def decode_fields(values):\n"
        f"    if type(values) is not tuple or len(values) != {len(coders)}:\n"
        f"        refuse(cls, 'not its {len(coders)} fields')\n"
        f"    {listed or '()'} = values\n"
        "    made = new(cls)\n"
        f"{''.join(fills)}"
        "    return made\n"
    )
    exec(code, names)  # as `ipc/value.py` does it
    return names["encode_fields"], names["decode_fields"]


def _refuse_fields(cls: type, found: str) -> NoReturn:
    raise MessageRefused(f"{cls.__name__}: {found}")


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
