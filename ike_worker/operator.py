"""What the worker does when an operator asks: SAs up, down and rekeyed, listed, explained, and their keys shown.

Each wish has one end: an answer that comes in time, or the word that it did not come, and what it waits for. Nothing
here makes the loop wait.
"""

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ike_worker.ikev2 import events
from ike_worker.ikev2.engine import Engine
from ike_worker.ikev2.view import View
from ike_worker.kernel_client import Counts, KernelClient
from ipc import messages as m
from ipc import wishes as w
from ipc.loop import Loop, Timer
from ipc.types import StartAction

log = logging.getLogger(__name__)

USAGE_WITHIN_S = 3.0
"""So long a list waits for the agent to say what traffic there was; then it goes without."""
IKE_SAS_PER_MESSAGE = 64
MAX_NAMED = 20
_IKE_SPI_DIGITS, _ESP_SPI_DIGITS = 16, 8

Send = Callable[[object], object]


@dataclass(slots=True, kw_only=True)
class Open:
    """A wish that is not done yet."""

    wish: w.OperatorWish
    orders: set[int] = field(default_factory=set)
    """Of the engine, those that have not ended."""
    failures: list[str] = field(default_factory=list)
    done_lines: tuple[str, ...] = ()
    peer: str = ""
    """Of whom an answer is awaited."""
    timer: Timer | None = None


class Operator:
    """Follows wishes until they end. `send` speaks to the supervisor."""

    def __init__(self, engine: Engine, kernel: KernelClient, loop: Loop, send: Send) -> None:
        self._engine = engine
        self._kernel = kernel
        self._loop = loop
        self._send = send
        self._orders = itertools.count(1)
        self._open: dict[int, Open] = {}

    def on_wish(self, wish: w.OperatorWish, _peer: bytes) -> None:
        """Begins what is wished."""
        actions = {
            w.OperatorVerb.UP: self._up,
            w.OperatorVerb.DOWN: self._down,
            w.OperatorVerb.REKEY: self._rekey,
            w.OperatorVerb.LIST: self._list,
            w.OperatorVerb.WHY: self._why,
            w.OperatorVerb.CAPTURE_KEYS: self._capture_keys,
        }
        actions[wish.verb](wish, self._engine.view(time.monotonic()))

    def on_order_ended(self, event: events.OrderEnded) -> None:
        """The engine has done it, or it has failed."""
        one = next((one for one in self._open.values() if event.order in one.orders), None)
        if one is None:
            return
        one.orders.discard(event.order)
        if event.failure:
            one.failures.append(event.failure)
        if not one.orders:
            self._finish(one)

    # ------------------------------------------------------------------ up, down, rekey

    def _up(self, wish: w.OperatorWish, view: View) -> None:
        rule = view.rule(wish.target)
        if rule is None:
            self._end(wish, False, f'there is no protect rule "{wish.target}" that is negotiated by IKE')
            return
        if not view.is_ours(rule):
            line = "no IKE worker has taken it on, since they had to tell each other something just now: try again"
            self._end(wish, False, line, nothing=True)
            return
        if not view.can_be_called(rule):
            self._end(wish, False, f'peer "{rule.peer}" of the rule has no address in the policy: it must call us')
            return
        one = self._begin(wish, peer=rule.peer, done_lines=(f"{rule.name} is up",))
        self._order(one, lambda order, now: self._engine.initiate(rule.rule_id, now, order=order))

    def _down(self, wish: w.OperatorWish, view: View) -> None:
        rule = view.rule(wish.target)
        if rule is not None:
            again = "the next packet that it is about may bring it up again"
            if rule.start is StartAction.RESPOND_ONLY:
                again = "the peer may bring it up again"
            one = self._begin(wish, peer=rule.peer, done_lines=(f"{rule.name} is down; {again}",))
            rule_id = rule.rule_id
            self._order(one, lambda order, now: self._engine.end_rule(rule_id, now, order=order))
        elif view.is_peer(wish.target):
            line = f"there is no IKE SA with {wish.target} any more; the next packet to it may make one"
            one = self._begin(wish, peer=wish.target, done_lines=(line,))
            self._order(one, lambda order, now: self._engine.end_peer(wish.target, now, order=order))
        else:
            self._end(wish, False, f'there is no protect rule and no peer "{wish.target}"')

    def _rekey(self, wish: w.OperatorWish, view: View) -> None:
        rule = view.rule(wish.target)
        children: list[int] = []
        ike_sas: list[bytes] = []
        if rule is not None:
            children = view.children_of(rule.rule_id)
        elif view.is_peer(wish.target):
            ike_sas = view.ike_sas_with(wish.target)
        else:
            spi = _spi(wish.target)
            if spi is None:
                self._end(wish, False, f'"{wish.target}" is no protect rule, no peer, and no SPI of 8 or 16 hex digits')
                return
            child = view.child_called(int.from_bytes(spi, "big")) if len(spi) == _ESP_SPI_DIGITS // 2 else None
            ike_sa = view.ike_sa_called(spi) if len(spi) == _IKE_SPI_DIGITS // 2 else None
            children = [child] if child is not None else []
            ike_sas = [ike_sa] if ike_sa is not None else []
        count = len(children) + len(ike_sas)
        if not count:
            self._end(wish, False, f"{wish.target} has no SA that could be rekeyed", nothing=True)
            return
        kind = "Child" if children else "IKE"
        one = self._begin(
            wish, peer=rule.peer if rule else wish.target, done_lines=(f"{count} {kind} SAs are rekeyed",)
        )
        one.orders = {next(self._orders) for _ in range(count)}
        now = time.monotonic()
        orders = sorted(one.orders)
        for order, spi_in in zip(orders, children, strict=False):
            self._engine.rekey_child(spi_in, now, order=order)
        for order, own_spi in zip(orders, ike_sas, strict=False):
            self._engine.rekey_ike_sa(own_spi, now, order=order)

    def _begin(self, wish: w.OperatorWish, *, peer: str, done_lines: tuple[str, ...]) -> Open:
        one = self._open[wish.request_id] = Open(wish=wish, peer=peer, done_lines=done_lines)
        one.timer = self._loop.call_later(wish.timeout_s, lambda: self._give_up(one))
        return one

    def _order(self, one: Open, give: Callable[[int, float], None]) -> None:
        order = next(self._orders)
        one.orders.add(order)
        give(order, time.monotonic())

    def _finish(self, one: Open) -> None:
        self._forget(one)
        if one.failures:
            self._end(one.wish, False, *dict.fromkeys(one.failures[:MAX_NAMED]))
        else:
            self._end(one.wish, True, *one.done_lines)

    def _give_up(self, one: Open) -> None:
        self._forget(one)
        for order in one.orders:
            self._engine.forget_order(order)
        awaited = self._engine.view(time.monotonic()).awaits(one.peer)
        line = f"not done within {one.wish.timeout_s:g} s, and goes on: {awaited}"
        self._end(one.wish, False, *dict.fromkeys(one.failures[:MAX_NAMED]), line)

    def _forget(self, one: Open) -> None:
        self._open.pop(one.wish.request_id, None)
        if one.timer is not None:
            one.timer.cancel()

    def _end(self, wish: w.OperatorWish, done: bool, *lines: str, nothing: bool = False) -> None:
        self._send(w.WishEnded(request_id=wish.request_id, done=done, lines=lines, nothing=nothing))

    # ------------------------------------------------------------------ questions

    def _list(self, wish: w.OperatorWish, view: View) -> None:
        listed, pairs = list(view.listed()), view.pairs()
        names = tuple(name for pair in pairs.values() for name in (pair.inbound, pair.outbound))

        def counted(child: w.ListedChildSa, usage: Counts) -> w.ListedChildSa:
            pair = pairs[child.status.spi_in]
            return replace(
                child, inbound=_traffic(usage.get(pair.inbound)), outbound=_traffic(usage.get(pair.outbound))
            )

        def answer(usage: Counts) -> None:
            filled = [replace(sa, children=tuple(counted(child, usage) for child in sa.children)) for sa in listed]
            self._say_list(wish, filled)

        self._kernel.count(names, answer, min(USAGE_WITHIN_S, wish.timeout_s))

    def _say_list(self, wish: w.OperatorWish, listed: list[w.ListedIkeSa]) -> None:
        size = IKE_SAS_PER_MESSAGE
        for start in range(0, max(len(listed), 1), size):
            part, last = tuple(listed[start : start + size]), start + size >= len(listed)
            self._send(w.SasListed(request_id=wish.request_id, ike_sas=part, last=last))

    def _why(self, wish: w.OperatorWish, view: View) -> None:
        failures = view.failures(wish.target)
        if failures:
            self._tell_failures(wish, failures, time.monotonic())
        elif view.rule(wish.target) is None and not view.is_peer(wish.target):
            line = f'"{wish.target}" is no protect rule, no peer, and no address from which a stranger was refused'
            self._end(wish, False, line)
        else:
            self._end(wish, True, f"nothing has failed with {wish.target} since ipsecd was started")

    def _tell_failures(self, wish: w.OperatorWish, failures: tuple[w.Failure, ...], now: float) -> None:
        last, *earlier = [w.PastFailure(failure=one, age_s=max(0.0, now - one.at)) for one in failures]
        self._send(
            w.FailureTold(
                request_id=wish.request_id,
                failure=last.failure,
                age_s=last.age_s,
                earlier=tuple(earlier),
                since_s=max(0.0, now - last.failure.first_at),
            )
        )

    def _capture_keys(self, wish: w.OperatorWish, view: View) -> None:
        if wish.target and not view.is_peer(wish.target):
            self._end(wish, False, f'there is no peer "{wish.target}"')
            return
        ike_sas, esp_sas = tuple(view.ike_keys(wish.target)), tuple(view.esp_keys(wish.target))
        log.warning("the keys of %d IKE SAs and %d ESP SAs are handed out", len(ike_sas), len(esp_sas))
        size = m.RULES_PER_MESSAGE
        most = max(len(ike_sas), len(esp_sas), 1)
        for start in range(0, most, size):
            self._send(
                w.CaptureKeys(
                    request_id=wish.request_id,
                    ike_sas=ike_sas[start : start + size],
                    esp_sas=esp_sas[start : start + size],
                    last=start + size >= most,
                )
            )


def _traffic(usage: m.Usage | None) -> w.Traffic | None:
    if usage is None:
        return None
    return w.Traffic(packets=usage.packets, bytes=usage.bytes, idle_s=usage.idle_s)


def _spi(text: str) -> bytes | None:
    """The SPI that `text` writes in hex; None if it is none."""
    if len(text) not in (_IKE_SPI_DIGITS, _ESP_SPI_DIGITS):
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None
