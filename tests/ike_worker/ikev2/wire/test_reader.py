import struct

import pytest

from ike_worker.ikev2.errors import MalformedMessage
from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.wire.reader import Reader

U16 = struct.Struct("!H")


def test_it_reads_fields_and_bytes_in_order() -> None:
    reader = Reader(b"\x01\x02abcde", "thing")
    assert reader.unpack(U16) == (0x0102,)
    assert reader.take(2) == b"ab"
    assert reader.remaining == 3
    assert reader.rest() == b"cde"
    assert reader.rest_or_empty() == b""
    reader.expect_end()


def test_the_error_says_what_was_needed_and_what_was_there() -> None:
    with pytest.raises(MalformedMessage, match="thing: 2 bytes needed, 1 there") as caught:
        Reader(b"\x01", "thing").unpack(U16)
    assert caught.value.notify is NotifyType.INVALID_SYNTAX
    with pytest.raises(MalformedMessage, match="thing: 3 bytes needed, 2 there"):
        Reader(b"ab", "thing").take(3)


def test_a_failed_read_takes_nothing() -> None:
    reader = Reader(b"ab", "thing")
    with pytest.raises(MalformedMessage):
        reader.take(3)
    assert reader.take(2) == b"ab"


def test_rest_is_at_least_one_byte() -> None:
    with pytest.raises(MalformedMessage, match="1 bytes needed, 0 there"):
        Reader(b"", "thing").rest()


def test_what_is_left_over_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="thing: 2 bytes left over"):
        Reader(b"ab", "thing").expect_end()


def test_a_part_ends_where_its_length_says() -> None:
    reader = Reader(b"headbodyrest", "whole")
    assert reader.take(4) == b"head"
    part = reader.part(8, 4, "part")
    assert reader.remaining == 4
    assert part.take(4) == b"body"
    with pytest.raises(MalformedMessage, match="part: 1 bytes needed, 0 there"):
        part.take(1)
    assert reader.rest() == b"rest"


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_length_that_does_not_cover_its_own_header_is_refused(length: int) -> None:
    reader = Reader(b"headbody", "whole")
    reader.take(4)
    with pytest.raises(MalformedMessage, match=f"part: length {length}, at least 4 needed"):
        reader.part(length, 4, "part")


def test_a_part_beyond_the_end_is_refused() -> None:
    reader = Reader(b"headbody", "whole")
    reader.take(4)
    with pytest.raises(MalformedMessage, match="whole: 5 bytes needed, 4 there"):
        reader.part(9, 4, "part")


def test_a_part_of_a_part_can_not_grow_out_of_it() -> None:
    part = Reader(b"headbodyrest", "whole", 4, 8)
    with pytest.raises(MalformedMessage):
        part.part(9, 4, "inner")
