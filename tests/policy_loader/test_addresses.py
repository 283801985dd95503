"""Prefixes, addresses, ranges and groups, as IKE and as the kernel see them."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.types import Prefix
from policy_loader.addresses import Span, check_group_name, parse_spans
from policy_loader.values import BadItems

OFFICES = parse_spans(["10.1.0.0/16", "10.2.0.0/16"], {})


def span(text: str) -> Span:
    (one,) = parse_spans([text], {})
    return one


def complaint(items: Any, groups: Any = None) -> str:
    with pytest.raises(BadItems) as caught:
        parse_spans(items, groups or {})
    ((_, text),) = caught.value.items
    return text


@settings(deadline=None, derandomize=True)
@given(st.one_of(st.ip_addresses(), st.ip_addresses(network="10.0.0.0/8")), st.integers(0, 128))
def test_a_prefix_is_what_the_standard_library_says(address: IPv4Address | IPv6Address, length: int) -> None:
    length = min(length, address.max_prefixlen)
    network = ip_network((address, length), strict=False)
    found = span(str(network))
    assert found.prefixes == (Prefix(address=network.network_address, length=length),)
    assert (found.version, found.first, found.last) == (address.version, network[0], network[-1])
    assert span(str(address)).prefixes == (Prefix(address=address, length=address.max_prefixlen),)
    if network.network_address != address:
        assert f'write "{network}"' in complaint([f"{address}/{length}"])


@settings(deadline=None, derandomize=True)
@given(st.ip_addresses(v=4), st.integers(0, 5000))
def test_a_range_is_made_of_the_prefixes_that_hold_just_its_addresses(first: IPv4Address, more: int) -> None:
    last = ip_address(min(int(first) + more, 0xFFFFFFFF))
    found = span(f"{first}-{last}")
    held = [address for one in found.prefixes for address in ip_network((one.address, one.length))]
    assert (held[0], held[-1], len(held)) == (first, last, int(last) - int(first) + 1)
    assert held == sorted(held, key=int)


def test_a_range_of_five_takes_three_prefixes() -> None:
    assert [str(one) for one in span("10.0.0.5-10.0.0.9").prefixes] == ["10.0.0.5/32", "10.0.0.6/31", "10.0.0.8/31"]
    assert str(span("2001:db8::-2001:db8::ff")) == "2001:db8::/120"
    assert str(span("10.0.0.5 - 10.0.0.9")) == "10.0.0.5-10.0.0.9"


def test_what_tells_two_spans_apart_is_never_the_same_for_others() -> None:
    texts = ["10.0.0.0/8", "10.0.0.0/9", "10.0.0.0", "0.0.0.0/0", "::/0", "::", "10.0.0.0-10.0.0.1", "a00::/8"]
    assert len({span(text).print for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.9-10.0.0.5", 'write "10.0.0.5-10.0.0.9"'),
        ("10.0.0.5-2001:db8::1", "one address family"),
        ("10.0.0.5-", "no range"),
        ("10.01.0.0/16", "no prefix"),
        ("10.0.0.0/33", "from 0 to 32"),
        ("10.0.0.0/-1", "no prefix"),
        ("fe80::1%eth0", "no zone"),
        ("any", '"0.0.0.0/0" or "::/0"'),
        ("1\0", "no prefix"),
    ],
)
def test_what_is_none_is_refused(text: str, words: str) -> None:
    assert words in complaint([text])


def test_a_group_stands_for_its_list_and_nothing_is_there_twice() -> None:
    found = parse_spans(["10.2.0.0/16", "offices", "192.0.2.1"], {"offices": OFFICES})
    assert [str(one) for one in found] == ["10.2.0.0/16", "10.1.0.0/16", "192.0.2.1/32"]


def test_the_nearest_group_is_named() -> None:
    assert 'did you mean "offices"?' in complaint(["ofices"], {"offices": OFFICES})
    assert "there are none" in complaint(["offices"])


def test_too_many_prefixes_are_counted_with_those_of_ranges() -> None:
    ranges = [f"10.{n}.0.1-10.{n}.255.254" for n in range(40)]
    assert len(parse_spans(ranges[:30], {})) == 30
    with pytest.raises(ValueError, match="1200 prefixes, at most 1024"):
        parse_spans(ranges, {})


@pytest.mark.parametrize("name", ["", "any", "1st", "a.b", "a b", "fe80::1", "x" * 65, "-a"])
def test_a_group_can_not_be_called_what_an_address_is(name: str) -> None:
    with pytest.raises(ValueError, match="begins with a letter"):
        check_group_name(name)


def test_every_group_name_is_no_address() -> None:
    for name in ("abc", "a-b", "offices_2"):
        check_group_name(name)
        with pytest.raises(ValueError, match=name):
            ipaddress.ip_network(name)
