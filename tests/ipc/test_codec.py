"""Every message there is, round and refused; the tests come from the declarations in `ipc/messages.py`."""

import dataclasses
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipc import messages as m
from ipc.codec import decode, decode_value, encode, encode_value
from ipc.errors import MessageRefused
from ipc.messages import REGISTRY, VERSION
from ipc.types import MaxLength
from tests.ipc.values import declared, fields_of, good, strategy, wrong_fields

MESSAGES = [pytest.param(number, cls, id=cls.__name__) for number, cls in sorted(REGISTRY.items())]
SETTINGS = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def wire(number: int, fields: list[Any]) -> bytes:
    """The bytes of a message, right or wrong."""
    data: bytes = msgpack.packb([VERSION, number, *fields])
    return data


def good_fields(cls: type) -> list[Any]:
    return [good(hint) for hint in fields_of(cls).values()]


@pytest.mark.parametrize(("number", "cls"), MESSAGES)
def test_it_comes_back_as_it_was_sent(number: int, cls: type) -> None:
    @SETTINGS
    @given(message=strategy(cls))
    def round_trip(message: object) -> None:
        back = decode(encode(message))
        assert back == message
        assert type(back) is cls

    round_trip()


@pytest.mark.parametrize(("number", "cls"), MESSAGES)
def test_every_wrong_field_is_refused(number: int, cls: type) -> None:
    assert type(decode(wire(number, good_fields(cls)))) is cls
    for item in wrong_fields(cls):
        try:
            message = decode(wire(number, item.value))
        except MessageRefused:
            continue
        pytest.fail(f"{cls.__name__}, {item.why}: taken as {message!r:.200}")


@pytest.mark.parametrize(("number", "cls"), MESSAGES)
def test_a_refusal_never_shows_the_value(number: int, cls: type) -> None:
    for position, hint in enumerate(fields_of(cls).values()):
        fields = good_fields(cls)
        fields[position] = {"": "not for any log"} if declared(hint).kind is str else "not for any log" * 20
        with pytest.raises(MessageRefused) as refusal:
            decode(wire(number, fields))
        assert "not for any log" * 2 not in str(refusal.value)


@pytest.mark.parametrize(("number", "cls"), MESSAGES)
def test_too_long_a_field_is_not_even_encoded(number: int, cls: type) -> None:
    message = decode(wire(number, good_fields(cls)))
    for name, hint in fields_of(cls).items():
        one = declared(hint)
        if one.kind not in (str, bytes) or one.limit > 1_000_000:
            continue
        too_long = one.kind() + ("x" if one.kind is str else b"x") * (one.limit + 1)
        with pytest.raises(MessageRefused):
            encode(dataclasses.replace(message, **{name: too_long}))  # type: ignore[type-var]


def test_every_message_number_is_in_the_wire_form() -> None:
    for number, cls in REGISTRY.items():
        assert msgpack.unpackb(encode(decode(wire(number, good_fields(cls)))))[:2] == [VERSION, number]


@pytest.mark.parametrize("number", [0, 19, 250, 65536, -1, True, None, "1", b"1", 1.0, []])
def test_an_unknown_number_is_refused(number: object) -> None:
    with pytest.raises(MessageRefused):
        decode(msgpack.packb([VERSION, number, 1]))


@pytest.mark.parametrize("version", [0, VERSION + 1, -1, True, None, "1", 1.0])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(MessageRefused, match="version"):
        decode(msgpack.packb([version, 2, 1]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x91\x01",
        b"\x80",
        msgpack.packb({"a": 1}),
        msgpack.packb([VERSION, 2, {}]),
        msgpack.packb([VERSION, 2, msgpack.ExtType(5, b"x")]),
        msgpack.packb([VERSION, 2, 1]) + b"\x00",
        msgpack.packb([VERSION, 2, 1])[:-1],
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x93\x01\x05\xa2\xff\xfe",
        msgpack.packb([VERSION, 2, msgpack.Timestamp(1)]),
    ],
    ids=lambda data: data[:8].hex() or "nothing",
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(MessageRefused):
        decode(data)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except MessageRefused:
        return


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(number=st.sampled_from(sorted(REGISTRY)), fields=st.lists(ANYTHING, max_size=8))
def test_arbitrary_fields_are_a_message_or_refused(number: int, fields: list[Any]) -> None:
    try:
        message = decode(wire(number, fields))
    except MessageRefused:
        return
    assert decode(encode(message)) == message


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_a_message_with_one_byte_changed_is_a_message_or_refused(data: st.DataObject) -> None:
    cls = data.draw(st.sampled_from(sorted(REGISTRY.values(), key=lambda one: one.__name__)))
    octets = bytearray(encode(data.draw(strategy(cls))))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(octets))
    except MessageRefused:
        return


def test_what_is_no_message_is_not_encoded() -> None:
    with pytest.raises(TypeError):
        encode("a string")
    with pytest.raises(TypeError):
        encode(MaxLength(1))


@SETTINGS
@given(snapshot=strategy(m.IkeSaSnapshot))
def test_a_value_that_is_no_message_comes_back_as_it_was(snapshot: m.IkeSaSnapshot) -> None:
    assert decode_value(m.IkeSaSnapshot, encode_value(snapshot)) == snapshot


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        decode_value(m.IkeSaSnapshot, data)
    except MessageRefused:
        return


@pytest.mark.parametrize("cls", [m.AddPolicy, m.AddNegotiationRule])
def test_a_rule_that_comes_again_is_the_same_object_and_is_sent_on_as_it_came(cls: type) -> None:
    @SETTINGS
    @given(message=strategy(cls))
    def come_twice(message: Any) -> None:
        data = encode(message)
        first: Any = decode(data)
        second: Any = decode(data)
        assert [id(rule) for rule in first.rules] == [id(rule) for rule in second.rules]
        assert encode(first) == data

    come_twice()
