"""NAT detection, the move to port 4500, keepalives, and peers that change their address. RFC 7296 section 2.23."""

import logging
import math
from dataclasses import replace

from ike_worker.ikev2.context import Context
from ike_worker.ikev2.crypto.nat import nat_detection_hash
from ike_worker.ikev2.datagram import NAT_TRAVERSAL_PORT, Datagram, Endpoint
from ike_worker.ikev2.exchange_rules import Contents
from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.ike_sa import IkeSa, NatPath
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wire.notify import Notify
from ipc.types import IpAddress, Mode, TrafficSelector

log = logging.getLogger(__name__)

KEEPALIVE_S = 20.0
"""RFC 3948 section 4."""
KEEPALIVE = b"\xff"
_FALSE_PORT = 0
"""Hashed in place of our port where the peer is to find a NAT."""


def detection_notifies(path: NatPath, spi_i: bytes, spi_r: bytes) -> list[Notify]:
    """The two notifies of an IKE_SA_INIT message; a false source where we want ESP in UDP anyway."""
    local, remote = path.local, path.remote
    source_port = _FALSE_PORT if path.forced else local.port
    source = nat_detection_hash(spi_i, spi_r, local.address.packed, source_port)
    destination = nat_detection_hash(spi_i, spi_r, remote.address.packed, remote.port)
    return [
        Notify(type=NotifyType.NAT_DETECTION_SOURCE_IP, data=source),
        Notify(type=NotifyType.NAT_DETECTION_DESTINATION_IP, data=destination),
    ]


def detect(path: NatPath, contents: Contents, spi_i: bytes, spi_r: bytes, local: Endpoint, remote: Endpoint) -> None:
    """Notes what the peer's notifies say about a message that came from `remote` to `local`.

    A peer may send several sources, and one that wants ESP in UDP sends a false one: both are a NAT to us.
    """
    sources = contents.all_of(NotifyType.NAT_DETECTION_SOURCE_IP)
    destinations = contents.all_of(NotifyType.NAT_DETECTION_DESTINATION_IP)
    if not sources or not destinations:
        return
    seen_source = nat_detection_hash(spi_i, spi_r, remote.address.packed, remote.port)
    seen_destination = nat_detection_hash(spi_i, spi_r, local.address.packed, local.port)
    path.peer_behind_nat = all(one.data != seen_source for one in sources)
    path.we_behind_nat = all(one.data != seen_destination for one in destinations)


def as_we_see_them(
    path: NatPath, mode: Mode, *, local: tuple[TrafficSelector, ...], remote: tuple[TrafficSelector, ...]
) -> tuple[tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    """The peer's selectors, from our side, with the addresses that the packets have here (RFC 7296 section 2.23.1).

    In transport mode behind a NAT each side names its own end by the address that it knows, and sees the other under
    another one. Checksums need no original addresses: who opens the packet makes them anew, or need not look.
    """
    if mode is not Mode.TRANSPORT:
        return local, remote
    own = tuple(_at(path.local.address, one) for one in local) if path.we_behind_nat else local
    other = tuple(_at(path.remote.address, one) for one in remote) if path.peer_behind_nat else remote
    return own, other


def _at(address: IpAddress, selector: TrafficSelector) -> TrafficSelector:
    """A selector of one host, as that of the host at `address`."""
    if selector.start_address != selector.end_address or selector.start_address.version != address.version:
        return selector
    return replace(selector, start_address=address, end_address=address)


def float_port(path: NatPath) -> None:
    """The initiator moves both ends to port 4500 once a NAT was found."""
    if path.encapsulated:
        path.local = Endpoint(address=path.local.address, port=NAT_TRAVERSAL_PORT)
        path.remote = Endpoint(address=path.remote.address, port=NAT_TRAVERSAL_PORT)


def start_keepalives(context: Context, sa: IkeSa) -> None:
    """Keeps the mapping of the NAT that we are behind."""
    sa.path.keepalive_at = context.now + KEEPALIVE_S if sa.path.we_behind_nat else math.inf


def send_keepalive(context: Context, sa: IkeSa) -> None:
    """One byte that the peer drops."""
    path = sa.path
    context.outbox.append(Datagram(local=path.local, remote=path.remote, data=KEEPALIVE, own_spi=b""))
    path.keepalive_at = context.now + KEEPALIVE_S


def follow(context: Context, sa: IkeSa, local: Endpoint, remote: Endpoint) -> None:
    """Goes where an authentic new message of the peer came from.

    Not where we are behind a NAT ourselves (RFC 7296 section 2.23), except in the handshake, which changes ports. The
    Child SAs are rekeyed to the new place: an outbound SA can't move, since its sequence numbers would start again
    under the same key.
    """
    path = sa.path
    if path.remote == remote and path.local == local:
        return
    if sa.state not in (State.HALF_OPEN, State.AUTHENTICATING) and path.we_behind_nat:
        return
    old, path.remote, path.local = path.remote, remote, local
    if sa.state is not State.ESTABLISHED:
        return
    log.info("%s: the peer moved from %s to %s", sa, old, remote)
    for child in sa.children.values():
        if child.state is ChildState.INSTALLED:
            child.rekey_at = context.now
    context.mark_changed(sa)
