"""What an operator may see of the SAs: a list, what is waited for, and, asked for in so many words, the keys."""

import math
from collections.abc import Iterator
from dataclasses import replace

from ike_worker.ikev2.child_sa import ChildSa, sa_name
from ike_worker.ikev2.context import Context
from ike_worker.ikev2.features import elsewhere
from ike_worker.ikev2.iana import ExchangeType, name_of
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import ChildState, State
from ipc.messages import NegotiationRule, SaName
from ipc.value import value
from ipc.wishes import EspSaKeys, Failure, IkeSaKeys, ListedChildSa, ListedIkeSa

_REKEYED_BY_NAME = frozenset({ChildState.INSTALLED, ChildState.REKEYING})


@value
class SaPairName:
    """The names of both directions of a Child SA."""

    inbound: SaName
    outbound: SaName


class View:
    """Looks at the SAs of an engine and changes nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def rule(self, name: str) -> NegotiationRule | None:
        """The protect rule of this name."""
        policy = self._context.policy
        rules = (policy.rule(rule_id) for rule_id in policy.rule_ids)
        return next((rule for rule in rules if rule is not None and rule.name == name), None)

    def is_peer(self, name: str) -> bool:
        """Whether the policy has a peer of this name."""
        return self._context.policy.peer(name) is not None

    def can_be_called(self, rule: NegotiationRule) -> bool:
        """Whether the policy says where the peer of `rule` is, or an IKE SA with it stands."""
        peer = self._context.policy.peer(rule.peer)
        return bool(self._context.with_peer(rule.peer)) or (peer is not None and peer.address is not None)

    def is_ours(self, rule: NegotiationRule) -> bool:
        """Whether this worker, of several, negotiates with the peer of `rule`."""
        return elsewhere.is_ours(self._context, rule.peer)

    def children_of(self, rule_id: int) -> list[int]:
        """The inbound SPIs of the Child SAs of a rule that can be rekeyed."""
        children = (child for sa in self._context.ike_sas.values() for child in sa.children.values())
        return [child.spi_in for child in children if child.rule_id == rule_id and child.state in _REKEYED_BY_NAME]

    def ike_sas_with(self, peer: str) -> list[bytes]:
        """Our SPIs of the IKE SAs that stand with a peer."""
        return [sa.own_spi for sa in self._context.with_peer(peer) if sa.state is State.ESTABLISHED]

    def child_called(self, spi: int) -> int | None:
        """The inbound SPI of the Child SA that has this SPI, inbound or outbound; None if there is none."""
        children = (child for sa in self._context.ike_sas.values() for child in sa.children.values())
        return next((child.spi_in for child in children if spi in (child.spi_in, child.outbound.spi)), None)

    def ike_sa_called(self, spi: bytes) -> bytes | None:
        """Our SPI of the IKE SA that has this SPI, ours or the peer's; None if there is none."""
        return next((sa.own_spi for sa in self._context.ike_sas.values() if spi in (sa.own_spi, sa.peer_spi)), None)

    def awaits(self, peer: str) -> str:
        """What the IKE SAs with a peer are waiting for, in a sentence."""
        waiting = [_awaits(sa) for sa in self._context.with_peer(peer)]
        return "; ".join(one for one in waiting if one) or "nothing is under way"

    def failures(self, name: str) -> tuple[Failure, ...]:
        """Those with a peer, a rule's peer, or an address that nobody of the policy has; the last one first."""
        rule = self.rule(name)
        return self._context.reasons.failures.of(rule.peer if rule is not None else name)

    def listed(self) -> Iterator[ListedIkeSa]:
        """All IKE SAs, half-open ones that strangers began left out."""
        now = self._context.now
        for sa in sorted(self._context.ike_sas.values(), key=lambda sa: (sa.peer.name, sa.created_at)):
            if sa.state is not State.HALF_OPEN:
                yield ListedIkeSa(
                    status=replace(sa.status(), children=()),
                    age_s=max(0.0, now - (sa.established_at or sa.created_at)),
                    rekey_in_s=_in(sa.rekey_at, now),
                    reauth_in_s=_in(sa.reauth_at, now),
                    children=tuple(_listed_child(child, now) for child in sa.children.values()),
                )

    def pairs(self) -> dict[int, SaPairName]:
        """What names both directions of each Child SA in the kernel, by inbound SPI."""
        children = [child for sa in self._context.ike_sas.values() for child in sa.children.values()]
        return {
            child.spi_in: SaPairName(inbound=sa_name(child.inbound), outbound=sa_name(child.outbound))
            for child in children
        }

    def ike_keys(self, peer: str) -> Iterator[IkeSaKeys]:
        """What decrypts the IKE SAs with a peer, with all if `peer` is empty."""
        for sa in self._context.ike_sas.values():
            if sa.session is not None and sa.state is not State.HALF_OPEN and peer in ("", sa.peer.name):
                suite, keys = sa.session.suite, sa.session.keys
                yield IkeSaKeys(
                    peer=sa.peer.name,
                    spi_i=sa.spi_i,
                    spi_r=sa.spi_r,
                    cipher=suite.cipher,
                    integrity=suite.integrity,
                    sk_ei=keys.sk_ei,
                    sk_er=keys.sk_er,
                    sk_ai=keys.sk_ai,
                    sk_ar=keys.sk_ar,
                )

    def esp_keys(self, peer: str) -> Iterator[EspSaKeys]:
        """What decrypts the Child SAs with a peer, with all if `peer` is empty."""
        for sa in self._context.ike_sas.values():
            for child in sa.children.values() if peer in ("", sa.peer.name) else ():
                for one in (child.inbound, child.outbound):
                    yield EspSaKeys(
                        spi=one.spi,
                        source=one.source,
                        destination=one.destination,
                        cipher=one.cipher,
                        integrity=one.integrity,
                        encryption_key=one.encryption_key,
                        integrity_key=one.integrity_key,
                        esn=one.esn,
                    )


def _listed_child(child: ChildSa, now: float) -> ListedChildSa:
    return ListedChildSa(
        status=child.status(),
        state=child.state.value,
        age_s=max(0.0, now - child.established_at),
        rekey_in_s=_in(child.rekey_at, now),
        expires_in_s=_in(child.dies_at, now),
    )


def _in(when: float, now: float) -> float | None:
    return None if math.isinf(when) else max(0.0, when - now)


def _awaits(sa: IkeSa) -> str:
    pending = sa.window.pending
    if pending is not None and not pending.answered:
        exchange = name_of(ExchangeType, pending.exchange_type)
        return f"{sa.path.remote} has not answered {exchange} yet"
    if sa.window.preparing is not None:
        return f"{sa.state.value}: a request to {sa.path.remote} is being put together"
    return "" if sa.state is State.ESTABLISHED and not sa.wishes else f"{sa.path.remote}: {sa.state.value}"
