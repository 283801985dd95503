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
from collections.abc import Iterable, Iterator, Sequence

from ipc.ownership import INNER_MARK, INTERFACE_MARK_MASK, NFT_TABLE, interface_mark
from ipc.value import value
from kernel_agent import nft
from kernel_agent.nft import Hook, Meta
from kernel_agent.xfrm.netlink import NetlinkError, RequestSocket
from kernel_agent.xfrm.structs import unpack_attributes

_CHAIN = "prerouting"
_PRIORITY_RAW = -300


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
        nft.new_table(NFT_TABLE),
        nft.delete_table(NFT_TABLE),
        nft.new_table(NFT_TABLE),
        nft.new_base_chain(NFT_TABLE, _CHAIN, Hook.PREROUTING, _PRIORITY_RAW),
        *(nft.new_rule(NFT_TABLE, _CHAIN, *rule.expressions, userdata=rule.userdata) for rule in wanted),
    ]
    requests.execute(nft.transaction(transaction))


def remove(requests: RequestSocket) -> int:
    """Removes the table; returns how many there were, 0 or 1."""
    try:
        requests.ask(nft.GETTABLE, nft.about_table(NFT_TABLE))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return 0
        raise
    requests.execute(nft.transaction([nft.delete_table(NFT_TABLE)]))
    return 1


def _present(requests: RequestSocket) -> list[bytes]:
    """What our rules in the kernel say of themselves."""
    try:
        answers = requests.dump(nft.GETRULE, nft.about_table(NFT_TABLE))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    return [
        attribute.value
        for answer in answers
        for attribute in unpack_attributes(answer.body, 4)
        if attribute.kind == nft.RULE_USERDATA
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
                nft.load_meta(Meta.IIF),
                (nft.equal if from_tun else nft.unequal)(nft.native(tun_ifindex)),
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
                nft.load_meta(Meta.IIF),
                nft.equal(nft.native(ifindex)),
                *_set_mark(INTERFACE_MARK_MASK, interface_mark(ifindex)),
            ),
        )


def _set_mark(mask: int, flip: int) -> tuple[bytes, ...]:
    """The packet's mark with `flip` in place of the bits of `mask`."""
    return (
        nft.load_meta(Meta.MARK),
        nft.change_bits(nft.native(~mask & 0xFFFF_FFFF), nft.native(flip)),
        nft.store_meta(Meta.MARK),
    )
