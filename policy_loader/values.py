"""The values of a policy file: from what TOML holds to what the roles speak of.

Each function takes whatever stood behind the key and gives the value, or raises ValueError with a sentence for the
operator: what is wrong and what would be right. `parse_psk` never says what it was given.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from ipc.types import Identity, IdType, IpAddress, PortRange, Prefix, Secret
from policy_loader.errors import nearest, printable

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

LONGEST_NAME = 128
LONGEST_PATH = 4096
LONGEST_PSK_BYTES = 4096
LONGEST_INTERFACE_NAME = 15
"""IFNAMSIZ less its end (net/if.h)."""
LONGEST_DURATION_S = 365 * 86400.0

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_MAILBOX = re.compile(r"[!-?A-~]{1,64}@" + _HOST_NAME.pattern)
_KEY_ID = re.compile(r"(?:[0-9A-Fa-f]{2}){1,512}")


def one_of(words: Mapping[str, T]) -> Callable[[Any], T]:
    """A parser of exactly these words."""

    def parse(value: Any) -> T:
        word = _text(value)
        if word not in words:
            raise ValueError(f'"{printable(word, 40)}" is not known; {nearest(word, words)}')
        return words[word]

    return parse


def parse_name(value: Any) -> str:
    """A name that an operator gives: of a rule, a peer, a set of proposals."""
    name = _text(value)
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a name has 1 to {LONGEST_NAME} characters, none of them a control character")
    return name


def parse_interface(value: Any) -> str:
    """The name of a network interface, as the kernel allows them."""
    name = _text(value)
    if not 1 <= len(name.encode()) <= LONGEST_INTERFACE_NAME or name in (".", ".."):
        raise ValueError(f'"{printable(name, 40)}" can\'t be an interface: names have 1 to 15 bytes')
    if "/" in name or ":" in name or any(char.isspace() or not char.isprintable() for char in name):
        raise ValueError(f'"{printable(name, 40)}" can\'t be an interface: names have no space, "/" or ":"')
    return name


def parse_address(value: Any) -> IpAddress:
    """An address of IKE and ESP: one host's, IPv4 or IPv6."""
    text = _text(value)
    if text == "any":
        raise ValueError('"any" is not supported yet: write the peer\'s IPv4 or IPv6 address')
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        if _HOST_NAME.fullmatch(text) and not text.replace(".", "").isdigit():
            raise ValueError("DNS names are not supported yet: write the IPv4 or IPv6 address") from None
        raise ValueError(f'"{printable(text, 60)}" is no IPv4 or IPv6 address') from None
    if "%" in text or getattr(address, "ipv4_mapped", None) is not None:
        raise ValueError(f'"{printable(text, 60)}" must be a plain address, with no zone and not IPv4 in IPv6')
    if address.is_multicast or address.is_unspecified or int(address) == 0xFFFFFFFF:
        raise ValueError(f'"{text}" is not the address of one host')
    return address


def parse_prefix(value: Any) -> Prefix:
    """A prefix of inner addresses ("10.1.0.0/16"), or one address."""
    text = _text(value)
    network, slash, bits = text.partition("/")
    try:
        address = ipaddress.IPv6Address(network) if ":" in network else ipaddress.IPv4Address(network)
    except ValueError:
        hint = '; leave the key out for any address, or write "0.0.0.0/0" or "::/0"' if text in ("any", "*") else ""
        raise ValueError(f'"{printable(text, 60)}" is no prefix such as "10.1.0.0/16" and no address{hint}') from None
    width: int = address.max_prefixlen
    if not slash:
        length = width
    elif bits.isascii() and bits.isdigit() and len(bits) <= 3 and int(bits) <= width:
        length = int(bits)
    else:
        raise ValueError(f'"{printable(text, 60)}": the part behind "/" must be a number from 0 to {width}')
    if "%" in network:
        raise ValueError(f'"{printable(text, 60)}": an address here has no zone')
    host_bits = int(address) & ((1 << (width - length)) - 1)
    if host_bits:
        start = type(address)(int(address) - host_bits)
        raise ValueError(
            f'"{text}" has host bits set: write "{start}/{length}", or "{address}/{width}" for the one address'
        )
    return Prefix(address=address, length=length)


def parse_identity(value: Any) -> Identity:
    """An IKE identity (RFC 7296 section 3.5): an IP address, a host name, user@host, or "keyid:" and hex digits."""
    text = _text(value)
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
    if _MAILBOX.fullmatch(text):
        return Identity(type=IdType.RFC822_ADDR, data=text.encode())
    if _HOST_NAME.fullmatch(text) and not text.replace(".", "").isdigit():
        return Identity(type=IdType.FQDN, data=text.encode())
    raise ValueError(
        f'"{printable(text, 60)}" is no identity: write an IP address, a host name, user@host, or "keyid:" and hex'
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
            f'"{printable(value, 40)}" is no protocol\'s name (numbers are good too); {nearest(value, PROTOCOLS)}'
        )
    return PROTOCOLS[value]


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
    path = _text(value)
    if not path.startswith("/") or len(path) > LONGEST_PATH or not path.isprintable():
        raise ValueError('write the whole path, from "/" on')
    return path


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text in quotes belongs here, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")
