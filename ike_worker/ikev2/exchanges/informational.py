"""INFORMATIONAL: deletes, liveness, and whatever the peer notifies. RFC 7296 sections 1.4, 2.4 and 2.25."""

import logging
import math
from collections.abc import Sequence

from ike_worker.ikev2.child_sa import DRAIN_S, ChildSa
from ike_worker.ikev2.context import Context, Ending, Request, Response, Work
from ike_worker.ikev2.exchange_rules import Contents
from ike_worker.ikev2.exchanges import reauthentication
from ike_worker.ikev2.features import handover
from ike_worker.ikev2.features.retransmission import Pending
from ike_worker.ikev2.iana import ExchangeType, NotifyType, ProtocolId
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.selection import is_subset
from ike_worker.ikev2.states import ChildState, State, enter
from ike_worker.ikev2.wire.delete import Delete
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wish import Wish, WishKind

log = logging.getLogger(__name__)

_SPI_BYTES = 4
_ALIVE = frozenset({ChildState.INBOUND, ChildState.INSTALLED, ChildState.REKEYING, ChildState.REKEYED})


# ------------------------------------------------------------------ initiator


def request(context: Context, sa: IkeSa, wish: Wish) -> Request:
    """A DELETE of the IKE SA or of a Child SA, or an empty request."""
    payloads: list[Payload] = []
    if wish.kind is WishKind.DELETE_IKE:
        enter(sa, State.DELETING)
        payloads.append(Delete(protocol=ProtocolId.IKE))
        if wish.failed:
            payloads.insert(0, Notify(type=NotifyType.AUTHENTICATION_FAILED))
    elif wish.kind is WishKind.DELETE_CHILD:
        child = sa.children.get(wish.spi_in)
        if child is not None and child.state is not ChildState.DELETING:
            enter(child, ChildState.DELETING)
        # RFC 7296 section 1.4.1: the SPIs are those that the sender expects in inbound packets.
        payloads.append(Delete(protocol=ProtocolId.ESP, spis=(wish.spi_in.to_bytes(_SPI_BYTES, "big"),)))
    context.mark_changed(sa)
    return Request(wish=wish, exchange_type=ExchangeType.INFORMATIONAL, payloads=payloads)


def complete(context: Context, sa: IkeSa, pending: Pending, contents: Contents) -> Work[None]:
    """Acts on the response. Which payloads it has does not matter: it is answered."""
    wish = pending.wish
    sa.window.pending = None
    if wish.kind is WishKind.DELETE_IKE:
        context.close(sa, "the peer could not be authenticated" if wish.failed else "deleted by us")
    elif wish.kind is WishKind.DELETE_CHILD:
        child = sa.children.get(wish.spi_in)
        if child is not None and child.state is ChildState.DELETING:
            _finish(context, sa, child, "deleted by us")
    return
    yield  # an exchange is a generator, and this one asks nothing


# ------------------------------------------------------------------ responder


def respond(context: Context, sa: IkeSa, contents: Contents) -> Work[Response]:
    """Answers a request of any content."""
    if any(delete.protocol == ProtocolId.IKE for delete in contents.deletes):
        for child in list(sa.children.values()):
            yield from _leave(context, child, context.siblings(sa))
        return Response(payloads=[], close="deleted by the peer", ending=Ending.PEERS)
    if contents.notify(NotifyType.AUTHENTICATION_FAILED) is not None:
        return Response(payloads=[], close="the peer could not authenticate us")
    for notify in contents.notifies:
        log.debug("%s: notify %d ignored", sa, notify.type)
    reauthentication.heed(context, sa, contents)
    answered: list[bytes] = []
    for delete in contents.deletes:
        if delete.protocol == ProtocolId.ESP:
            for spi in delete.spis:
                yield from _deleted_by_peer(context, sa, spi, answered)
    payloads: list[Payload] = [Delete(protocol=ProtocolId.ESP, spis=tuple(answered))] if answered else []
    return Response(payloads=payloads)


def _deleted_by_peer(context: Context, sa: IkeSa, spi: bytes, answered: list[bytes]) -> Work[None]:
    child = sa.child_by_outbound(spi)
    if child is None or child.state is ChildState.DRAINING:
        return
    yield from _leave(context, child, (sa, *context.siblings(sa)))
    if child.spi_in not in sa.children:
        return
    # RFC 7296 section 1.4.1: deletes that cross each other are not answered with a Delete payload.
    if child.state is not ChildState.DELETING:
        answered.append(child.spi_in.to_bytes(_SPI_BYTES, "big"))
    if child.state is ChildState.INBOUND:
        _reinstate(sa, child.replaces)
    if not _finish(context, sa, child, "deleted by the peer"):
        context.note_end(sa, child.rule_id, Ending.PEERS)


def _reinstate(sa: IkeSa, spi_in: int) -> None:
    """The peer takes its rekey back: the Child SA that was to be replaced stays."""
    old = sa.children.get(spi_in)
    if old is not None and old.state is ChildState.REKEYED and old.outbound_installed:
        enter(old, ChildState.INSTALLED)


def _same_traffic(child: ChildSa, owners: Sequence[IkeSa]) -> list[ChildSa]:
    """Others of these IKE SAs that are alive and have the traffic of `child`, or could have it."""
    return [
        one
        for owner in owners
        for one in owner.children.values()
        if one is not child
        and one.rule_id == child.rule_id
        and one.state in _ALIVE
        and is_subset(child.inbound.local, one.inbound.local)
        and is_subset(child.inbound.remote, one.inbound.remote)
    ]


def _leave(context: Context, child: ChildSa, owners: Sequence[IkeSa]) -> Work[None]:
    """The peer ends `child`: we send on what it has made in its place, or beside it if that is all there is."""
    others = _same_traffic(child, owners)
    waiting = [one for one in others if one.state is ChildState.INBOUND]
    successor = next((one for one in waiting if one.replaces == child.spi_in), None)
    if successor is None and not any(one.outbound_installed for one in others):
        successor = next(iter(waiting), None)
    if successor is not None:
        yield from switch_outbound(context, successor)


def switch_outbound(context: Context, child: ChildSa) -> Work[None]:
    """From now on we send on `child`, which the peer made."""
    if child.switching:
        return  # what the kernel agent is told from now on comes behind it
    child.switching = True
    try:
        yield from context.install(child.outbound)
    finally:
        child.switching = False
    owner = context.child_owners.get(child.spi_in)
    if child.state is ChildState.INBOUND and owner is not None:
        child.outbound_installed = True
        child.due_at = math.inf
        enter(child, ChildState.INSTALLED)
        context.ask_for_traffic_later(child)
        handover.settle_twins(context, owner, child)
        context.mark_changed(owner)
        context.wake(owner)


def _finish(context: Context, sa: IkeSa, child: ChildSa, reason: str) -> bool:
    """Both sides have deleted `child`. If another replaces it, it receives what is still under way; True then."""
    if child.state is not ChildState.INBOUND and _same_traffic(child, (sa, *context.siblings(sa))):
        context.drain_child(sa, child, DRAIN_S)
        return True
    context.close_child(sa, child, reason)
    return False
