"""The nftables table that marks packets by where they came in, for policies, which can't see that.

    table inet ipsecd {
        chain prerouting {
            type filter hook prerouting priority -300; policy accept;
            iif ipsec0 meta mark set meta mark | INNER_MARK
            iif != ipsec0 meta mark set meta mark & ~INNER_MARK
            meta mark set meta mark & ~INTERFACE_MARK_MASK
            iif eth0 meta mark set meta mark | index of eth0 in INTERFACE_MARK_MASK
        }
    }

The first two are for the user-space data path: inbound policies accept protected traffic only with the mark. Without
the table nothing carries it, and protected traffic is blocked. The others are there where rules name interfaces.
Written as netlink messages (linux/netfilter/nf_tables.h), in one transaction.
"""

import errno
import struct
from collections.abc import Iterable, Iterator, Sequence

from ipc.ownership import INNER_MARK, INTERFACE_MARK_MASK, NFT_TABLE, interface_mark
from ipc.value import value
from kernel_agent.xfrm import constants as c
from kernel_agent.xfrm.netlink import NetlinkError, Request, RequestSocket
from kernel_agent.xfrm.structs import pack_attribute, unpack_attributes

_NFPROTO_INET = 1
_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _GETRULE = (_SUBSYSTEM << 8 | n for n in (0, 1, 2, 3, 6, 7))
_NESTED = 0x8000
_CHAIN = b"prerouting\0"
_TABLE = NFT_TABLE.encode() + b"\0"
_PRIORITY_RAW = -300
_NF_ACCEPT = 1
_REGISTER = 8  # NFT_REG32_00
_META_MARK, _META_IIF = 3, 4
_CMP_EQ, _CMP_NEQ = 0, 1
_RULE_USERDATA = 7


def install(requests: RequestSocket, tun_ifindex: int, interfaces: Iterable[int] = ()) -> None:
    """Makes the table what it should be; writes nothing if it is. OSError if the kernel refuses.

    `tun_ifindex` is 0 without a TUN; `interfaces` are the indexes of those that rules name. With neither there is none.
    """
    wanted = [*_tun_rules(tun_ifindex), *_interface_rules(sorted(interfaces))]
    if not wanted:
        remove(requests)
        return
    if _present(requests) == [rule.userdata for rule in wanted]:
        return
    transaction = [
        # Created first, so that the removal of what may be there can't fail.
        _request(_NEWTABLE, _attribute(1, _TABLE), c.NLM_F_CREATE),
        _request(_DELTABLE, _attribute(1, _TABLE)),
        _request(_NEWTABLE, _attribute(1, _TABLE), c.NLM_F_CREATE),
        _request(_NEWCHAIN, _chain(), c.NLM_F_CREATE),
        *(_request(_NEWRULE, _rule_body(rule), c.NLM_F_CREATE | c.NLM_F_APPEND) for rule in wanted),
    ]
    requests.execute(_batch(transaction))


def remove(requests: RequestSocket) -> int:
    """Removes the table; returns how many there were, 0 or 1."""
    try:
        requests.ask(_GETTABLE, _header() + _attribute(1, _TABLE))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return 0
        raise
    requests.execute(_batch([_request(_DELTABLE, _attribute(1, _TABLE))]))
    return 1


def _present(requests: RequestSocket) -> list[bytes]:
    """What our rules in the kernel say of themselves."""
    try:
        answers = requests.dump(_GETRULE, _header() + _attribute(1, _TABLE))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    return [
        attribute.value
        for answer in answers
        for attribute in unpack_attributes(answer.body, 4)
        if attribute.kind == _RULE_USERDATA
    ]


@value
class _Rule:
    """`userdata` says all that is in the expressions, so that it tells whether the kernel has the rule."""

    userdata: bytes
    expressions: tuple[bytes, ...]


def _tun_rules(tun_ifindex: int) -> Iterator[_Rule]:
    if not tun_ifindex:
        return
    for from_tun in (True, False):
        yield _Rule(
            userdata=f"{NFT_TABLE} 1 {'' if from_tun else 'not '}{tun_ifindex}".encode(),
            expressions=(
                _meta_load(_META_IIF),
                _compare(_CMP_EQ if from_tun else _CMP_NEQ, tun_ifindex),
                *_set_mark(INNER_MARK, INNER_MARK if from_tun else 0),
            ),
        )


def _interface_rules(interfaces: Sequence[int]) -> Iterator[_Rule]:
    if not interfaces:
        return
    yield _Rule(userdata=f"{NFT_TABLE} 1 any interface".encode(), expressions=_set_mark(INTERFACE_MARK_MASK, 0))
    for ifindex in interfaces:
        yield _Rule(
            userdata=f"{NFT_TABLE} 1 interface {ifindex}".encode(),
            expressions=(
                _meta_load(_META_IIF),
                _compare(_CMP_EQ, ifindex),
                *_set_mark(INTERFACE_MARK_MASK, interface_mark(ifindex)),
            ),
        )


def _set_mark(mask: int, value: int) -> tuple[bytes, ...]:
    """The packet's mark with `value` in place of the bits of `mask`."""
    return (
        _meta_load(_META_MARK),
        _change_bits(keep=~mask & 0xFFFF_FFFF, flip=value),
        _expression(b"meta\0", _number(2, _META_MARK), _number(3, _REGISTER)),
    )


def _header(resource: int = 0) -> bytes:
    """struct nfgenmsg { __u8 nfgen_family, version; __be16 res_id; };"""
    return struct.pack("!BBH", _NFPROTO_INET, 0, resource)


def _batch(transaction: list[Request]) -> list[Request]:
    marker = struct.pack("!BBH", 0, 0, _SUBSYSTEM)
    return [
        Request(_BATCH_BEGIN, marker, acknowledged=False),
        *transaction,
        Request(_BATCH_END, marker, acknowledged=False),
    ]


def _request(kind: int, attributes: bytes, flags: int = 0) -> Request:
    return Request(kind, _header() + attributes, flags)


def _attribute(kind: int, value: bytes) -> bytes:
    return pack_attribute(kind, value)


def _number(kind: int, value: int) -> bytes:
    return pack_attribute(kind, struct.pack("!I", value & 0xFFFF_FFFF))


def _nested(kind: int, *parts: bytes) -> bytes:
    return pack_attribute(kind | _NESTED, b"".join(parts))


def _chain() -> bytes:
    hook = _nested(4, _number(1, 0), _number(2, _PRIORITY_RAW))
    return _attribute(1, _TABLE) + _attribute(3, _CHAIN) + hook + _number(5, _NF_ACCEPT) + _attribute(7, b"filter\0")


def _rule_body(rule: _Rule) -> bytes:
    names = _attribute(1, _TABLE) + _attribute(2, _CHAIN)
    return names + _nested(4, *rule.expressions) + _attribute(_RULE_USERDATA, rule.userdata)


def _expression(name: bytes, *data: bytes) -> bytes:
    return _nested(1, _attribute(1, name), _nested(2, *data))


def _meta_load(key: int) -> bytes:
    return _expression(b"meta\0", _number(2, key), _number(1, _REGISTER))


def _compare(operator: int, value: int) -> bytes:
    return _expression(b"cmp\0", _number(1, _REGISTER), _number(2, operator), _nested(3, _data(value)))


def _change_bits(*, keep: int, flip: int) -> bytes:
    registers = _number(1, _REGISTER) + _number(2, _REGISTER) + _number(3, 4)
    return _expression(b"bitwise\0", registers, _nested(4, _data(keep)), _nested(5, _data(flip)))


def _data(value: int) -> bytes:
    """A register's content: in the machine's own order, as meta puts it there."""
    return pack_attribute(1, struct.pack("=I", value))
