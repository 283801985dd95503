"""The values of a policy file: from what TOML holds to what the roles speak of.

Each function takes whatever stood behind the key and gives the value, or raises ValueError with a sentence for the
operator: what is wrong and what would be right. Those for secrets never say what they were given. Addresses have a
file of their own, `addresses.py`.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from ipc.roles import MAX_WORKERS
from ipc.types import Identity, IdType, IpAddress, PortRange, Secret
from ipc.value import value
from policy_loader import distinguished_names
from policy_loader.errors import nearest, quoted

T = TypeVar("T")

PROTOCOLS: Mapping[str, int] = MappingProxyType(
    {
        "any": 0,
        "icmp": 1,
        "igmp": 2,
        "ipip": 4,
        "tcp": 6,
        "udp": 17,
        "dccp": 33,
        "ipv6": 41,
        "gre": 47,
        "icmpv6": 58,
        "ospf": 89,
        "pim": 103,
        "vrrp": 112,
        "l2tp": 115,
        "sctp": 132,
        "udplite": 136,
    }
)
"""IANA "Assigned Internet Protocol Numbers", by the names of /etc/protocols."""
PROTOCOLS_WITH_PORTS = frozenset({6, 17, 33, 132, 136})
ICMP, ICMPV6 = 1, 58
ICMP_TYPES: Mapping[str, int] = MappingProxyType(
    {
        "echo-reply": 0,
        "destination-unreachable": 3,
        "redirect": 5,
        "echo-request": 8,
        "router-advertisement": 9,
        "router-solicitation": 10,
        "time-exceeded": 11,
        "parameter-problem": 12,
        "timestamp-request": 13,
        "timestamp-reply": 14,
    }
)
"""IANA "ICMP Type Numbers"."""
ICMPV6_TYPES: Mapping[str, int] = MappingProxyType(
    {
        "destination-unreachable": 1,
        "packet-too-big": 2,
        "time-exceeded": 3,
        "parameter-problem": 4,
        "echo-request": 128,
        "echo-reply": 129,
        "router-solicitation": 133,
        "router-advertisement": 134,
        "neighbour-solicitation": 135,
        "neighbour-advertisement": 136,
        "redirect": 137,
    }
)
"""IANA "ICMPv6 type Numbers"."""

LONGEST_NAME = 128
LONGEST_PATH = 4096
LONGEST_PSK_BYTES = 4096
LONGEST_INTERFACE_NAME = 15
"""IFNAMSIZ less its end (net/if.h)."""
LONGEST_DURATION_S = 365 * 86400.0

SIZE_UNITS: Mapping[str, int] = MappingProxyType(
    {
        "kB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "TB": 10**12,
        "KiB": 1 << 10,
        "MiB": 1 << 20,
        "GiB": 1 << 30,
        "TiB": 1 << 40,
    }
)
LARGEST_COUNT = 10**18
FIRST_SPI, LAST_SPI = 256, 0xFFFF_FFFF

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_SIZE = re.compile(rf"([0-9]{{1,12}})({'|'.join(SIZE_UNITS)})")
_HEX_NUMBER = re.compile(r"0x([0-9A-Fa-f]{1,8})")
_TYPE_AND_CODE = re.compile(r"([0-9]{1,3})(?:/([0-9]{1,3}))?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_MAILBOX = re.compile(r"[!-?A-~]{1,64}@" + _HOST_NAME.pattern)
_KEY_ID = re.compile(r"(?:[0-9A-Fa-f]{2}){1,512}")


class HostName(str):
    """The name of a host, not looked up yet."""

    __slots__ = ()


class BadItems(ValueError):
    """What is wrong with items of a list: their indices and sentences."""

    def __init__(self, items: list[tuple[int, str]]) -> None:
        super().__init__(f"{len(items)} items are wrong")
        self.items = items


@value
class IcmpType:
    """An ICMP type, and one code of it or all, as RFC 7296 section 3.13.1 has them; None where a family lacks it."""

    v4: PortRange | None
    v6: PortRange | None


def list_of(parse: Callable[[Any], T], most: int) -> Callable[[Any], tuple[T, ...]]:
    """A parser of lists with 1 to `most` such items, none of them twice."""

    def parse_list(value: Any) -> tuple[T, ...]:
        parsed: list[T] = []
        wrong: list[tuple[int, str]] = []
        for index, item in enumerate(items_of(value, most)):
            try:
                one = parse(item)
                if one in parsed:
                    raise ValueError(f"{quoted(str(item), 60)} stands there twice")
                parsed.append(one)
            except ValueError as error:
                wrong.append((index, str(error)))
        if wrong:
            raise BadItems(wrong)
        return tuple(parsed)

    return parse_list


def one_or_list_of(
    parse: Callable[[Any], T], most: int, overlap: Callable[[T, T], bool]
) -> Callable[[Any], tuple[T, ...]]:
    """A parser of one such item, or of a list with 1 to `most` of which no two overlap."""
    parse_list = list_of(parse, most)

    def parse_either(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            return (parse(value),)
        items = parse_list(value)
        wrong = []
        for index, item in enumerate(items):
            before = next((place for place in range(index) if overlap(items[place], item)), None)
            if before is not None:
                wrong.append((index, f"{_said(value[index])} overlaps {_said(value[before])}, which stands before it"))
        if wrong:
            raise BadItems(wrong)
        return items

    return parse_either


def _said(value: Any) -> str:
    return quoted(value, 60) if isinstance(value, str) else str(value)


def items_of(value: Any, most: int) -> list[Any]:
    """A list that is neither empty nor too long, whatever its items are."""
    if not isinstance(value, list):
        raise ValueError(f'a list belongs here, in brackets: ["...", "..."], not {_kind(value)}')
    if not value:
        raise ValueError("the list is empty: leave the key out, or write what belongs in it")
    if len(value) > most:
        raise ValueError(f"the list has {len(value)} items, at most {most} are allowed")
    return value


def one_of(words: Mapping[str, T]) -> Callable[[Any], T]:
    """A parser of exactly these words."""

    def parse(value: Any) -> T:
        word = text_of(value)
        if word not in words:
            raise ValueError(f"{quoted(word, 40)} is not known; {nearest(word, words)}")
        return words[word]

    return parse


def parse_name(value: Any) -> str:
    """A name that an operator gives: of a rule, a peer, a set of proposals."""
    name = text_of(value)
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a name has 1 to {LONGEST_NAME} characters, none of them a control character")
    return name


def parse_interface(value: Any) -> str:
    """The name of a network interface, as the kernel allows them."""
    name = text_of(value)
    if not 1 <= len(name.encode()) <= LONGEST_INTERFACE_NAME or name in (".", ".."):
        raise ValueError(f"{quoted(name, 40)} can't be an interface: names have 1 to 15 bytes")
    if "/" in name or ":" in name or any(char.isspace() or not char.isprintable() for char in name):
        raise ValueError(f'{quoted(name, 40)} can\'t be an interface: names have no space, "/" or ":"')
    return name


def parse_peer_address(value: Any) -> "IpAddress | HostName | None":
    """Where a peer is: an address, a host name to be looked up, or "any": None."""
    text = text_of(value)
    if text == "any":
        return None
    if _is_host_name(text):
        return HostName(text)
    return parse_address(text)


def parse_address(value: Any) -> IpAddress:
    """An address of IKE and ESP: one host's, IPv4 or IPv6."""
    text = text_of(value)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{quoted(text, 60)} is no IPv4 or IPv6 address") from None
    if "%" in text or getattr(address, "ipv4_mapped", None) is not None:
        raise ValueError(f"{quoted(text, 60)} must be a plain address, with no zone and not IPv4 in IPv6")
    if address.is_multicast or address.is_unspecified or int(address) == 0xFFFFFFFF:
        raise ValueError(f'"{text}" is not the address of one host')
    return address


def _is_host_name(text: str) -> bool:
    return bool(_HOST_NAME.fullmatch(text)) and not text.replace(".", "").isdigit()


def parse_identity(value: Any) -> Identity:
    """An IKE identity (RFC 7296 section 3.5): an address, a host name, user@host, a DN, or "keyid:" and hex digits.

    "*" may stand for the first label of a host name, the user, or the value of an attribute of a DN.
    """
    text = text_of(value)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        if "%" in text:
            raise ValueError("an address as identity has no zone")
        return identity_of(address)
    if text.startswith("keyid:"):
        digits = text.removeprefix("keyid:")
        if not _KEY_ID.fullmatch(digits):
            raise ValueError('behind "keyid:" stand pairs of hex digits, 1 to 512 of them')
        return Identity(type=IdType.KEY_ID, data=bytes.fromhex(digits))
    if distinguished_names.looks_like_one(text):
        return Identity(type=IdType.DER_ASN1_DN, data=distinguished_names.parse(text))
    if _MAILBOX.fullmatch(text):
        return Identity(type=IdType.RFC822_ADDR, data=text.encode())
    if _is_host_name(text.removeprefix("*.")):
        return Identity(type=IdType.FQDN, data=text.encode())
    raise ValueError(
        f'{quoted(text, 60)} is no identity: write an IP address, a host name, user@host, "CN=...,O=...", '
        'or "keyid:" and hex'
    )


def identity_of(address: IpAddress) -> Identity:
    """The identity that is just this address."""
    return Identity(type=IdType.IPV4_ADDR if address.version == 4 else IdType.IPV6_ADDR, data=address.packed)


def parse_protocol(value: Any) -> int:
    """An IP protocol by name or number; 0 is any."""
    if type(value) is int:
        if not 0 <= value <= 255:
            raise ValueError("no IP protocol has that number: they are 0 (any) to 255")
        return value
    if not isinstance(value, str):
        raise ValueError('write a protocol\'s name ("tcp") or number (6)')
    if value not in PROTOCOLS:
        raise ValueError(
            f"{quoted(value, 40)} is no protocol's name (numbers are good too); {nearest(value, PROTOCOLS)}"
        )
    return PROTOCOLS[value]


def protocols_overlap(one: int, other: int) -> bool:
    """Whether two protocols of a list have packets in common: 0 is any."""
    return one == other or not one or not other


def parse_ports(value: Any) -> PortRange:
    """A port number, or a range of them as "a-b", both ends included."""
    first = last = -1
    if type(value) is int:
        first = last = value
    elif isinstance(value, str) and (found := _PORTS.fullmatch(value)):
        first = int(found[1])
        last = int(found[2] or found[1])
    if not 0 <= first <= last <= 65535:
        raise ValueError('write a port from 0 to 65535 (443), or a range with the smaller one first ("1024-2047")')
    return PortRange(first=first, last=last)


def ports_overlap(one: PortRange, other: PortRange) -> bool:
    """Whether two ranges have a port in common."""
    return one.first <= other.last and other.first <= one.last


def parse_icmp_type(value: Any) -> IcmpType:
    """An ICMP type by name or number, or "type/code"."""
    if isinstance(value, str) and (value in ICMP_TYPES or value in ICMPV6_TYPES):
        return IcmpType(v4=_any_code(ICMP_TYPES.get(value)), v6=_any_code(ICMPV6_TYPES.get(value)))
    number, code = -1, -1
    if type(value) is int:
        number = value
    elif isinstance(value, str) and (found := _TYPE_AND_CODE.fullmatch(value)):
        number, code = int(found[1]), int(found[2] or -1)
    elif isinstance(value, str):
        names = ICMP_TYPES.keys() | ICMPV6_TYPES.keys()
        raise ValueError(
            f'{quoted(value, 40)} is no ICMP type (numbers and "3/1" are good too); {nearest(value, names)}'
        )
    if not 0 <= number <= 255 or code > 255:
        raise ValueError('write an ICMP type by name ("echo-request") or number (8), or type and code ("3/1")')
    ports = _any_code(number) if code < 0 else PortRange(first=number << 8 | code, last=number << 8 | code)
    return IcmpType(v4=ports, v6=ports)


def icmp_types_overlap(one: IcmpType, other: IcmpType) -> bool:
    """Whether a message may be of both, in either family."""
    pairs = ((one.v4, other.v4), (one.v6, other.v6))
    return any(ours is not None and theirs is not None and ports_overlap(ours, theirs) for ours, theirs in pairs)


def _any_code(number: int | None) -> PortRange | None:
    return None if number is None else PortRange(first=number << 8, last=number << 8 | 255)


def parse_bool(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError("write true or false, without quotes")
    return value


def parse_size(value: Any) -> int:
    """So many bytes: a number, or one with kB, MB, GB, TB (thousands) or KiB, MiB, GiB, TiB behind it; 0 for never."""
    size = -1
    if type(value) is int:
        size = value
    elif isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        size = int(found[1]) * SIZE_UNITS[found[2]]
    if not 0 <= size <= LARGEST_COUNT:
        raise ValueError('write bytes (1000000), or a number with kB, MB, GB, TB, KiB, MiB ... ("1GB"); 0 for never')
    return size


def parse_count(value: Any) -> int:
    """So many packets; 0 means never."""
    if type(value) is not int or not 0 <= value <= LARGEST_COUNT:
        raise ValueError("write a number of packets (1000000); 0 for never")
    return value


def parse_workers(value: Any) -> int:
    """How many IKE workers there are to be."""
    if type(value) is not int or not 1 <= value <= MAX_WORKERS:
        raise ValueError(f"write a number of processes from 1 to {MAX_WORKERS}, at most one for each core")
    return value


def parse_spi(value: Any) -> int:
    """A fixed SPI (RFC 4303 section 2.1: those up to 255 are reserved)."""
    spi = -1
    if type(value) is int:
        spi = value
    elif isinstance(value, str) and (found := _HEX_NUMBER.fullmatch(value)):
        spi = int(found[1], 16)
    if not FIRST_SPI <= spi <= LAST_SPI:
        raise ValueError('write an SPI from 0x100 to 0xffffffff: 4096, 0x1000 or "0x1000"')
    return spi


def parse_key(value: Any) -> Secret:
    """A key for manual keying, in hex digits."""
    if not isinstance(value, str):
        raise ValueError("a key is hex digits in quotes")
    return check_key(value.encode())


def check_key(value: bytes) -> Secret:
    """The bytes of a key in hex digits; "0x" may stand before them."""
    try:
        return Secret(bytes.fromhex(value.strip().removeprefix(b"0x").decode("ascii")))
    except ValueError:
        raise ValueError("the key is not pairs of hex digits (openssl rand -hex 64)") from None


def parse_duration(value: Any) -> float:
    """A time in seconds: a number of them, or a whole number with s, m, h or d behind it. 0 means never."""
    seconds = -1.0
    if type(value) in (int, float) and abs(value) <= LONGEST_DURATION_S:
        seconds = float(value)
    elif isinstance(value, str) and (found := _DURATION.fullmatch(value)):
        seconds = float(int(found[1]) * _UNITS[found[2]])
    if not 0.0 <= seconds <= LONGEST_DURATION_S or not math.isfinite(seconds):
        raise ValueError('write seconds (30), or a number with s, m, h or d ("8h"); at most 365 days, 0 for never')
    return seconds


def parse_psk(value: Any) -> Secret:
    """A pre-shared key, as its UTF-8 bytes."""
    if not isinstance(value, str):
        raise ValueError("a pre-shared key is text in quotes")
    return check_psk(value.encode())


def check_psk(value: bytes) -> Secret:
    """The bytes of a pre-shared key, if they can be one."""
    if not value:
        raise ValueError("the pre-shared key is empty")
    if len(value) > LONGEST_PSK_BYTES:
        raise ValueError(f"the pre-shared key is longer than {LONGEST_PSK_BYTES} bytes")
    return Secret(value)


def parse_path(value: Any) -> str:
    """An absolute path."""
    path = text_of(value)
    if not path.startswith("/") or len(path) > LONGEST_PATH or not path.isprintable():
        raise ValueError('write the whole path, from "/" on')
    return path


def text_of(value: Any) -> str:
    """Text, whatever it says."""
    if not isinstance(value, str):
        raise ValueError(f"text in quotes belongs here, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")
