"""nftables as netlink messages (linux/netfilter/nf_tables.h): tables, chains, sets, expressions of rules. Pure.

A register is four bytes; what is loaded there is padded with zeros to a multiple of that.
"""

import enum
import struct

from kernel_agent.xfrm.constants import NLM_F_APPEND, NLM_F_CREATE
from kernel_agent.xfrm.netlink import Request
from kernel_agent.xfrm.structs import pack_attribute

INET = 1
"""NFPROTO_INET: IPv4 and IPv6."""
OWNED = 2
"""NFT_TABLE_F_OWNER: the table goes with the socket that made it, and nobody else can change it."""
FIRST_REGISTER = 8
"""NFT_REG32_00."""
ACCEPT, JUMP = 1, -3
_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWSETELEM = (_SUBSYSTEM << 8 | n for n in (0, 2, 3, 6, 9, 12))
GETTABLE, GETRULE = _SUBSYSTEM << 8 | 1, _SUBSYSTEM << 8 | 7
RULE_USERDATA = 7
"""The attribute of a rule for what its owner likes."""
_NESTED = 0x8000
_VERDICT_REGISTER = 0
_CONSTANT_KEY_TYPE = 0
_ADDRESS_TYPE, _OF_DESTINATION = 3, 2


class Hook(enum.IntEnum):
    """Where a base chain is (linux/netfilter.h)."""

    PREROUTING = 0
    OUTPUT = 3


class Meta(enum.IntEnum):
    """What `meta` loads."""

    MARK = 3
    IIF = 4
    OIF = 5
    NFPROTO = 15
    L4PROTO = 16


class Base(enum.IntEnum):
    """From where `payload` counts."""

    NETWORK = 1
    TRANSPORT = 2


def transaction(requests: list[Request]) -> list[Request]:
    """All of it or nothing."""
    marker = struct.pack("!BBH", 0, 0, _SUBSYSTEM)
    return [
        Request(_BATCH_BEGIN, marker, acknowledged=False),
        *requests,
        Request(_BATCH_END, marker, acknowledged=False),
    ]


def new_table(table: str, flags: int = 0) -> Request:
    """A table of family inet."""
    return _request(_NEWTABLE, _string(1, table) + _number(2, flags), NLM_F_CREATE)


def delete_table(table: str) -> Request:
    """Deletes a table with all in it."""
    return _request(_DELTABLE, _string(1, table))


def about_table(table: str) -> bytes:
    """Body of GETTABLE, and of GETRULE for all rules of a table."""
    return struct.pack("!BBH", INET, 0, 0) + _string(1, table)


def new_chain(table: str, chain: str) -> Request:
    """A chain to jump to."""
    return _request(_NEWCHAIN, _string(1, table) + _string(3, chain), NLM_F_CREATE)


def new_base_chain(table: str, chain: str, hook: Hook, priority: int) -> Request:
    """A chain of type filter at a hook; what gets through it is accepted."""
    where = _nested(4, _number(1, hook), _number(2, priority))
    names = _string(1, table) + _string(3, chain)
    return _request(_NEWCHAIN, names + where + _number(5, ACCEPT) + _string(7, "filter"), NLM_F_CREATE)


def new_rule(table: str, chain: str, *expressions: bytes, userdata: bytes = b"") -> Request:
    """A rule behind those of the chain."""
    body = _string(1, table) + _string(2, chain) + _nested(4, *expressions)
    if userdata:
        body += pack_attribute(RULE_USERDATA, userdata)
    return _request(_NEWRULE, body, NLM_F_CREATE | NLM_F_APPEND)


def new_set(table: str, name: str, number: int, key_bytes: int) -> Request:
    """A set of keys, looked up by hash. `number` is the transaction's own name for it."""
    body = _string(1, table) + _string(2, name) + _number(3, 0) + _number(4, _CONSTANT_KEY_TYPE)
    return _request(_NEWSET, body + _number(5, key_bytes) + _number(10, number), NLM_F_CREATE)


def new_elements(table: str, name: str, keys: list[bytes]) -> Request:
    """Adds keys to a set."""
    elements = (_nested(1, _nested(1, pack_attribute(1, key))) for key in keys)
    return _request(_NEWSETELEM, _string(1, table) + _string(2, name) + _nested(3, *elements), NLM_F_CREATE)


# ------------------------------------------------------------- expressions


def load_meta(key: Meta, register: int = FIRST_REGISTER) -> bytes:
    """What is known of the packet beside its content."""
    return _expression("meta", _number(2, key), _number(1, register))


def load_payload(base: Base, offset: int, length: int, register: int = FIRST_REGISTER) -> bytes:
    """Bytes of the packet. The rule ends here for a packet that has none, as a fragment has no transport header."""
    return _expression("payload", _number(1, register), _number(2, base), _number(3, offset), _number(4, length))


def load_address_type(register: int = FIRST_REGISTER) -> bytes:
    """What the routing table says of the destination: RTN_UNICAST, RTN_LOCAL ..."""
    return _expression("fib", _number(1, register), _number(2, _ADDRESS_TYPE), _number(3, _OF_DESTINATION))


def store_meta(key: Meta, register: int = FIRST_REGISTER) -> bytes:
    """Gives the packet what is loaded there, such as a mark."""
    return _expression("meta", _number(2, key), _number(3, register))


def mask(bits: bytes, register: int = FIRST_REGISTER) -> bytes:
    """Keeps only `bits` of what is loaded there."""
    return change_bits(bits, bytes(len(bits)), register)


def change_bits(keep: bytes, flip: bytes, register: int = FIRST_REGISTER) -> bytes:
    """Keeps only the bits `keep` of what is loaded there, and turns over the bits `flip`."""
    registers = _number(1, register) + _number(2, register) + _number(3, len(keep))
    return _expression("bitwise", registers, _nested(4, pack_attribute(1, keep)), _nested(5, pack_attribute(1, flip)))


def equal(value: bytes, register: int = FIRST_REGISTER) -> bytes:
    """The rule goes on only if just this is loaded there."""
    return _compare(0, value, register)


def unequal(value: bytes, register: int = FIRST_REGISTER) -> bytes:
    """The rule goes on only if something else is loaded there."""
    return _compare(1, value, register)


def in_set(name: str, number: int, register: int = FIRST_REGISTER) -> bytes:
    """The rule goes on only if the set has what is loaded from there on."""
    return _expression("lookup", _string(1, name), _number(2, register), _number(4, number))


def limit(per_second: int, burst: int) -> bytes:
    """The rule goes on so often only."""
    rate = pack_attribute(1, struct.pack("!Q", per_second)) + pack_attribute(2, struct.pack("!Q", 1))
    return _expression("limit", rate, _number(3, burst), _number(4, 0))


def log_to(group: int, prefix: str, length: int) -> bytes:
    """Gives `length` bytes of the packet to who listens to an NFLOG group."""
    numbers = pack_attribute(1, struct.pack("!H", group)), _number(3, length)
    return _expression("log", *numbers, _string(2, prefix))


def accept() -> bytes:
    """Nothing more in this base chain."""
    return _verdict(_number(1, ACCEPT))


def jump(chain: str) -> bytes:
    """Goes on in another chain, and then here."""
    return _verdict(_number(1, JUMP) + _string(2, chain))


def native(value: int) -> bytes:
    """Four bytes in the machine's own order, as `meta` loads numbers."""
    return struct.pack("=I", value)


def _compare(operator: int, value: bytes, register: int) -> bytes:
    return _expression("cmp", _number(1, register), _number(2, operator), _nested(3, pack_attribute(1, value)))


def _verdict(verdict: bytes) -> bytes:
    return _expression("immediate", _number(1, _VERDICT_REGISTER), _nested(2, _nested(2, verdict)))


def _expression(name: str, *data: bytes) -> bytes:
    return _nested(1, _string(1, name), _nested(2, *data))


def _request(kind: int, attributes: bytes, flags: int = 0) -> Request:
    """With struct nfgenmsg { __u8 nfgen_family, version; __be16 res_id; } ahead."""
    return Request(kind, struct.pack("!BBH", INET, 0, 0) + attributes, flags)


def _string(kind: int, text: str) -> bytes:
    return pack_attribute(kind, text.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return pack_attribute(kind, struct.pack("!I", value & 0xFFFF_FFFF))


def _nested(kind: int, *parts: bytes) -> bytes:
    return pack_attribute(kind | _NESTED, b"".join(parts))
