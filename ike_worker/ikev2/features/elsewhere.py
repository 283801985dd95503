"""What the other workers have, where there are several: each has the IKE SAs whose SPIs of ours lead to it.

One peer may have IKE SAs in several workers: who calls us chooses the SPI by which its first message is steered, and
nobody knows yet who it is. So each worker tells the others, through the supervisor, which of its IKE SAs stand and what
they carry, before the peer hears of it. By that every worker decides alike which one negotiates with a peer, what is
there already, and which of two that both sides have begun at once is to go. A thing that is told late costs a second
pair of SAs, which work as the first do (RFC 7296 section 2.8), and never one that is needed.
"""

import zlib
from collections.abc import Iterable

from ike_worker.ikev2.context import Context
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.selection import is_subset
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wish import Wish, WishKind
from ipc.messages import StandingChild, StandingSa, WorkerNews
from ipc.roles import SPI_STEER_BYTE
from ipc.types import TrafficSelector

_CARRIES = (ChildState.INSTALLED, ChildState.REKEYING)


def is_ours(context: Context, peer: str) -> bool:
    """Whether this worker is the one that negotiates with a peer now.

    That is one where an IKE SA with it stands; with none it is the same one always.
    """
    place = context.place
    if place.workers == 1:
        return True
    home = zlib.crc32(peer.encode()) % place.workers
    standing = {one.spi[SPI_STEER_BYTE] % place.workers for one in context.elsewhere.of(peer) if not one.leaving}
    if any(sa.state is State.ESTABLISHED and not _is_leaving(sa) for sa in context.with_peer(peer)):
        standing.add(place.index)
    return place.index == (home if home in standing or not standing else min(standing))


def serves(context: Context, peer: str, wish: Wish) -> bool:
    """Whether another worker has a Child SA that would do for what a CREATE_CHILD wants."""
    for child in _children(context.elsewhere.of(peer)):
        packets = [(wish.packet_local, child.local), (wish.packet_remote, child.remote)]
        if child.rule_id == wish.rule_id and all(
            packet is None or is_subset((packet,), selectors) for packet, selectors in packets
        ):
            return True
    return False


def has_child(context: Context, peer: str, rule_id: int) -> bool:
    """Whether another worker has a Child SA of this rule."""
    return any(child.rule_id == rule_id for child in _children(context.elsewhere.of(peer)))


def drop_call(context: Context, sa: IkeSa) -> None:
    """The peer was faster than our own call, which has not come as far as AUTH: another worker has all it is for."""
    if sa.state is not State.CONNECTING or sa.in_handshake.takes_over:
        return
    if all(serves(context, sa.peer.name, wish) for wish in sa.all_wishes):
        sa.wishes.clear()
        sa.window.pending = None
        context.close(sa, "the peer has called us meanwhile")


def end_if_superfluous(context: Context, sa: IkeSa) -> None:
    """Ends an IKE SA of our making that has nothing to do any more, if another worker has one that has."""
    if context.place.workers == 1 or sa.state is not State.ESTABLISHED or sa.children or any(sa.all_wishes):
        return
    if sa.origin is not None and sa.origin.ours and any(one.children for one in alike(context, sa)):
        sa.wishes.append(Wish(kind=WishKind.DELETE_IKE))


def carries(
    context: Context,
    sa: IkeSa,
    rule_id: int,
    local: tuple[TrafficSelector, ...],
    remote: tuple[TrafficSelector, ...],
    *,
    since: float = 0.0,
) -> bool:
    """Whether another worker has a Child SA for this traffic, with the peer of `sa`, authenticated `since`."""
    return any(
        child.rule_id == rule_id and is_subset(local, child.local) and is_subset(remote, child.remote)
        for child in _children(one for one in alike(context, sa) if one.authenticated_at >= since)
    )


def alike(context: Context, sa: IkeSa) -> list[StandingSa]:
    """IKE SAs of other workers that stand with the same peer, by its identity too, and are to stay."""
    origin = sa.origin
    return [
        one
        for one in context.elsewhere.of(sa.peer.name)
        if not one.leaving
        and (sa.peer.address is not None or one.remote == sa.path.remote.address)
        and (origin is None or one.peer_id == origin.peer_id)
    ]


def news(context: Context, changed: Iterable[bytes], gone: Iterable[bytes]) -> WorkerNews | None:
    """What the other workers are to be told, now that these IKE SAs have changed or are no more; None if nothing."""
    elsewhere = context.elsewhere
    anew, ended = tuple(elsewhere.anew), tuple(elsewhere.ended)
    elsewhere.anew.clear()
    elsewhere.ended.clear()
    if context.place.workers == 1:
        return None
    standing, fallen = [], [spi for spi in gone if elsewhere.told.pop(spi, None) is not None]
    for spi in changed:
        one = _standing(context.ike_sas[spi])
        if one is None:
            fallen += [spi] if elsewhere.told.pop(spi, None) is not None else []
        elif elsewhere.told.get(spi) != one:
            elsewhere.told[spi] = one
            standing.append(one)
    if not (standing or fallen or anew or ended):
        return None
    return WorkerNews(standing=tuple(standing), gone=tuple(fallen), anew=anew, ended=ended)


def know_as_told(context: Context, sa: IkeSa) -> None:
    """`sa` is restored: the worker before us has told the others of it."""
    one = _standing(sa)
    if context.place.workers > 1 and one is not None:
        context.elsewhere.told[sa.own_spi] = one


def _standing(sa: IkeSa) -> StandingSa | None:
    origin = sa.origin
    if sa.state is not State.ESTABLISHED or origin is None:
        return None
    return StandingSa(
        spi=sa.own_spi,
        peer=sa.peer.name,
        peer_id=origin.peer_id,
        remote=sa.path.remote.address,
        ours=origin.ours,
        rank=origin.rank,
        created_at=origin.created_at,
        authenticated_at=origin.authenticated_at,
        leaving=_is_leaving(sa),
        children=tuple(
            StandingChild(rule_id=child.rule_id, local=child.inbound.local, remote=child.inbound.remote)
            for child in sa.children.values()
            if child.state in _CARRIES and child.outbound_installed
        ),
    )


def _is_leaving(sa: IkeSa) -> bool:
    return sa.handover is not None or sa.wants(WishKind.DELETE_IKE)


def _children(standing: Iterable[StandingSa]) -> Iterable[StandingChild]:
    return (child for one in standing for child in one.children)
