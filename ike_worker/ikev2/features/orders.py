"""What an operator has asked for, until it is done or has failed: so that a command can wait for its result.

An order is looked at whenever something has happened, and hears of events; each ends with one OrderEnded.
"""

from ike_worker.ikev2.context import Context
from ike_worker.ikev2.events import (
    ChildSaClosed,
    ChildSaEstablished,
    Event,
    IkeSaClosed,
    IkeSaEstablished,
    IkeSaNotRekeyed,
    NegotiationFailed,
    OrderEnded,
)
from ike_worker.ikev2.features.elsewhere import has_child
from ike_worker.ikev2.states import ChildState
from ike_worker.ikev2.wish import WishKind
from ipc.value import value

DONE = ""
"""An order that has not failed for any reason."""


@value
class Up:
    """A rule is to have a Child SA."""

    rule_id: int
    rule: str

    def look(self, context: Context) -> str | None:
        """DONE, why it has failed, or None while it is under way."""
        rule = context.policy.rule(self.rule_id)
        if rule is None:
            return "the rule has gone from the policy"
        children = (child for sa in context.ike_sas.values() for child in sa.children.values())
        stands = any(child.rule_id == self.rule_id and child.state is ChildState.INSTALLED for child in children)
        return DONE if stands or has_child(context, rule.peer, self.rule_id) else None

    def hear(self, event: Event) -> str | None:
        """As `look`."""
        return event.reason if isinstance(event, NegotiationFailed) and event.rule == self.rule else None


@value
class DownRule:
    """A rule is to have no Child SA."""

    rule_id: int

    def look(self, context: Context) -> str | None:
        """As `Up.look`."""
        for sa in context.ike_sas.values():
            if any(wish.kind is WishKind.CREATE_CHILD and wish.rule_id == self.rule_id for wish in sa.all_wishes):
                return None
            for child in sa.children.values():
                if child.rule_id == self.rule_id and child.state is not ChildState.DRAINING:
                    return None
        return DONE

    def hear(self, _event: Event) -> str | None:
        """Nothing hinders it: a silent peer is given up."""
        return None


@value
class DownPeer:
    """There is to be no IKE SA with a peer."""

    peer: str

    def look(self, context: Context) -> str | None:
        """As `Up.look`."""
        return None if context.with_peer(self.peer) else DONE

    def hear(self, _event: Event) -> str | None:
        """As `DownRule.hear`."""
        return None


@value
class RekeyChild:
    """Another Child SA is to take the place of this one."""

    spi_in: int
    rule: str

    def look(self, _context: Context) -> str | None:
        """Events tell."""
        return None

    def hear(self, event: Event) -> str | None:
        """As `Up.look`; whoever rekeys it."""
        match event:
            case ChildSaEstablished() if event.rekeyed_spi_in == self.spi_in:
                return DONE
            case ChildSaClosed() if event.spi_in == self.spi_in:
                return event.reason
            case NegotiationFailed() if event.rule == self.rule:
                return event.reason
        return None


@value
class RekeyIke:
    """Another IKE SA is to take the place of this one."""

    own_spi: bytes

    def look(self, _context: Context) -> str | None:
        """Events tell."""
        return None

    def hear(self, event: Event) -> str | None:
        """As `Up.look`; whoever rekeys it."""
        if isinstance(event, IkeSaEstablished) and event.replaces == self.own_spi:
            return DONE
        if isinstance(event, IkeSaNotRekeyed | IkeSaClosed) and event.own_spi == self.own_spi:
            return event.reason
        return None


Order = Up | DownRule | DownPeer | RekeyChild | RekeyIke


class Orders:
    """Those that are under way, by the number that the caller gave them; 0 is the number of nobody's order."""

    def __init__(self) -> None:
        self._open: dict[int, Order] = {}

    def take(self, number: int, order: Order) -> None:
        """It is to be followed."""
        if number:
            self._open[number] = order

    def forget(self, number: int) -> None:
        """Nobody waits for it any more."""
        self._open.pop(number, None)

    def look(self, context: Context) -> None:
        """Something has happened: ends those that are done."""
        for number, order in list(self._open.items()):
            self._end(context, number, order.look(context))

    def hear(self, context: Context, event: Event) -> None:
        """This has happened."""
        for number, order in list(self._open.items()):
            self._end(context, number, order.hear(event))

    def _end(self, context: Context, number: int, failure: str | None) -> None:
        if failure is not None:
            del self._open[number]
            context.events.append(OrderEnded(order=number, failure=failure))
