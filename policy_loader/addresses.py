"""Inner addresses of rules: prefixes, single addresses, ranges, and the names of [addresses] that stand for lists.

What is written becomes a Span: the range as IKE speaks of it (RFC 7296 section 3.13.1), and the fewest prefixes that
make it up, as the kernel knows them. Large policies write ten thousands of them, so the common ones are read without
a detour.
"""

import functools
import ipaddress
import re
import socket
from collections.abc import Collection, Mapping
from typing import Any

from ipc.types import IpAddress, Prefix
from ipc.value import value
from policy_loader.errors import nearest, quoted
from policy_loader.values import BadItems, items_of, text_of

MOST_PREFIXES = 1024
"""On one side of a rule: what a message holds."""
LONGEST_GROUP_NAME = 64

_GROUP_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{LONGEST_GROUP_NAME - 1}}}")
_RESERVED = ("any", "all")
_V4 = (4, 32, ipaddress.IPv4Address)
_V6 = (6, 128, ipaddress.IPv6Address)


PrefixKey = tuple[int, int, int]
"""Version, length, and the bits of the prefix."""


@value
class Span:
    """Consecutive addresses."""

    version: int
    first: IpAddress
    last: IpAddress
    prefixes: tuple[Prefix, ...]
    keys: tuple[PrefixKey, ...]
    """The prefixes, to be looked up."""
    print: bytes
    """What tells it from every other one."""

    def __str__(self) -> str:
        return str(self.prefixes[0]) if len(self.prefixes) == 1 else f"{self.first}-{self.last}"


Spans = tuple[Span, ...]


def parse_spans(value: Any, groups: Mapping[str, Spans]) -> Spans:
    """A list of prefixes, addresses, ranges, and names of `groups`."""
    if type(value) is list and len(value) == 1 and type(value[0]) is str and value[0] not in groups:
        try:
            return (_parse_span(value[0]),)
        except ValueError as error:
            raise BadItems([(0, _unknown(value[0], groups, error))]) from None
    spans: list[Span] = []
    wrong: list[tuple[int, str]] = []
    for index, item in enumerate(items_of(value, MOST_PREFIXES)):
        try:
            text = text_of(item)
            found = groups[text] if text in groups else (_parse_span(text),)
            spans += [one for one in found if one not in spans]
        except ValueError as error:
            wrong.append((index, _unknown(item, groups, error)))
    if wrong:
        raise BadItems(wrong)
    count = sum(len(one.prefixes) for one in spans)
    if count > MOST_PREFIXES:
        raise ValueError(f"the list stands for {count} prefixes, at most {MOST_PREFIXES} are allowed: split it")
    return tuple(spans)


def span_of_prefix(text: str) -> Span:
    """A prefix that is known to be one."""
    return _parse_span(text)


def span_of_host(address: IpAddress) -> Span:
    """Just this address."""
    prefix = Prefix(address=address, length=address.max_prefixlen)
    return _span(address, address, (prefix,))


def check_group_name(name: str) -> None:
    """ValueError if a group of addresses can't be called that."""
    if not _GROUP_NAME.fullmatch(name) or name in _RESERVED:
        raise ValueError(
            f"a group's name begins with a letter, then come letters, digits, - and _, {LONGEST_GROUP_NAME} at most; "
            'it is not "any" or "all"'
        )


def _unknown(item: Any, groups: Collection[str], error: ValueError) -> str:
    """The sentence about an item, with the group that was perhaps meant."""
    if not isinstance(item, str) or not _GROUP_NAME.fullmatch(item) or item in _RESERVED:
        return str(error)
    return f"{quoted(item, 60)} is no address, and no group of [addresses]; {nearest(item, groups)}"


@functools.lru_cache(maxsize=65536)
def _parse_span(text: str) -> Span:
    if "-" in text:
        return _parse_range(text)
    network, slash, bits = text.partition("/")
    packed = _packed(network, text)
    version, width, cls = _V4 if len(packed) == 4 else _V6
    length = width
    if slash:
        if not (bits.isascii() and bits.isdigit() and len(bits) <= 3 and int(bits) <= width):
            raise ValueError(f'{quoted(text)}: the part behind "/" must be a number from 0 to {width}')
        length = int(bits)
    number = int.from_bytes(packed)
    rest = width - length
    host_mask = (1 << rest) - 1
    address = cls(number)
    if number & host_mask:
        start = cls(number & ~host_mask)
        raise ValueError(
            f'"{text}" has host bits set: write "{start}/{length}", or "{address}/{width}" for the one address'
        )
    return Span(
        version=version,
        first=address,
        last=cls(number | host_mask) if host_mask else address,
        prefixes=(Prefix(address=address, length=length),),
        keys=((version, length, number >> rest),),
        print=b"%d/%d " % (version, length) + packed,
    )


def _parse_range(text: str) -> Span:
    low, _, high = text.partition("-")
    first = ipaddress.ip_address(_packed(low.strip(), text))
    last = ipaddress.ip_address(_packed(high.strip(), text))
    if first.version != last.version:
        raise ValueError(f"{quoted(text, 90)}: both ends of a range are of one address family")
    if int(first) > int(last):
        raise ValueError(f'"{text}": the smaller address of a range comes first: write "{last}-{first}"')
    networks = ipaddress.summarize_address_range(first, last)
    prefixes = tuple(Prefix(address=one.network_address, length=one.prefixlen) for one in networks)
    return _span(first, last, prefixes)


def _packed(text: str, whole: str) -> bytes:
    """The 4 or 16 bytes of an address in `whole`."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        pass
    if "%" in text:
        raise ValueError(f"{quoted(whole, 60)}: an address here has no zone")
    hint = '; leave the key out for any address, or write "0.0.0.0/0" or "::/0"' if text in (*_RESERVED, "*") else ""
    raise ValueError(
        f'{quoted(whole, 60)} is no prefix ("10.1.0.0/16"), no address and no range ("10.0.0.5-10.0.0.9"){hint}'
    )


def _key(prefix: Prefix) -> PrefixKey:
    address = prefix.address
    return address.version, prefix.length, int(address) >> (address.max_prefixlen - prefix.length)


def _span(first: IpAddress, last: IpAddress, prefixes: tuple[Prefix, ...]) -> Span:
    return Span(
        version=first.version,
        first=first,
        last=last,
        prefixes=prefixes,
        keys=tuple(_key(one) for one in prefixes),
        print=b"".join(b"%d/%d " % (first.version, one.length) + one.address.packed for one in prefixes),
    )
