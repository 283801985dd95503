"""Why negotiations came to nothing: the last failures with each peer, for `ipsecctl why`, and a line each in the log.

A stranger can fail as often as it likes: what it does is compared and kept so many times in a second, for so many
addresses; otherwise it is refused all the same.
"""

import logging
from collections.abc import Sequence

from ike_worker.ikev2.datagram import Endpoint
from ike_worker.ikev2.features import differences
from ike_worker.ikev2.features.differences import Difference, selectors_text
from ike_worker.ikev2.features.failures import Failures
from ike_worker.ikev2.features.gate import Budget
from ike_worker.ikev2.iana import ExchangeType, NotifyType, name_of
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.selection import offer_esp, offer_ike
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ipc.identities import of_payload
from ipc.messages import NegotiationRule, Peer
from ipc.types import AuthMethod, Mode, TrafficSelector
from ipc.wishes import Failure

log = logging.getLogger(__name__)

STRANGERS_PER_SECOND = 10
MAX_SENTENCE = 2000
MAX_ITEM = 1000
_THEIR_LOG = "the peer says no more to us (RFC 7296): its own log has the rest"
_PSK_REMEDY = "make the pre-shared key of the two the same: compare both files to the last byte, line ends included"


class Reasons:
    """Puts failures into words."""

    def __init__(self) -> None:
        self.failures = Failures()
        self._strangers = Budget(STRANGERS_PER_SECOND)

    # ------------------------------------------------------------------ we refuse

    def init_refused(
        self, now: float, remote: Endpoint, candidates: Sequence[Peer], offered: SecurityAssociation
    ) -> None:
        """No proposal of an IKE_SA_INIT fits, or nobody of the policy is there."""
        if not self._strangers.take(now):
            return
        if candidates:
            peer = candidates[0]
            found = differences.of_proposals(offer_ike(peer.ike_proposals), offered, peer=peer.name)
        else:
            peer = None
            found = Difference(
                subject="IKE proposals",
                ours=(),
                theirs=tuple(differences.words_of(one) for one in offered.proposals[: differences.MOST_COMPARED]),
                first=f"no peer of the policy may speak from {remote.address} to this address",
                remedy=f'here, add a peer with address = "{remote.address}"; or have the peer call from its address',
            )
        self._keep(
            _failure(
                now,
                remote,
                peer.name if peer is not None else "",
                exchange="IKE_SA_INIT",
                notify=NotifyType.NO_PROPOSAL_CHOSEN,
                found=found,
            )
        )

    def ike_rekey_refused(self, now: float, sa: IkeSa, offered: SecurityAssociation) -> None:
        """No proposal of the peer is acceptable for the IKE SA that it wants in the place of `sa`."""
        found = differences.of_proposals(offer_ike(sa.peer.ike_proposals), offered, peer=sa.peer.name)
        self._keep(_failure_of(now, sa, "CREATE_CHILD_SA", NotifyType.NO_PROPOSAL_CHOSEN, found))

    def child_refused(
        self, now: float, sa: IkeSa, rules: Sequence[NegotiationRule], offered: SecurityAssociation, *, auth: bool
    ) -> None:
        """`rules` cover the traffic that the peer asks for, and no proposal fits. `auth`: in IKE_AUTH."""
        tunnel_only = [rule for rule in rules if rule.mode is Mode.TRANSPORT]
        ours = offer_esp(rules[0].esp_proposals, 0, key_exchange=True)
        found = differences.of_proposals(ours, offered, peer=sa.peer.name, key_exchange=not auth)
        if tunnel_only and found.first.startswith("nothing"):
            rule = tunnel_only[0].name
            found = Difference(
                subject="mode",
                ours=("transport",),
                theirs=("tunnel",),
                first="mode: ours transport, theirs tunnel",
                remedy=f'here, write mode = "tunnel" for rule "{rule}"; or have the peer ask for transport mode',
            )
        self._keep(_failure_of(now, sa, _exchange(auth=auth), NotifyType.NO_PROPOSAL_CHOSEN, found, rule=rules[0].name))

    def selectors_refused(
        self,
        now: float,
        sa: IkeSa,
        rules: Sequence[NegotiationRule],
        local: tuple[TrafficSelector, ...],
        remote: tuple[TrafficSelector, ...],
        *,
        auth: bool,
    ) -> None:
        """No rule covers the traffic that the peer asks for."""
        found = differences.of_selectors(rules, local, remote)
        self._keep(_failure_of(now, sa, _exchange(auth=auth), NotifyType.TS_UNACCEPTABLE, found))

    def not_identified(
        self, now: float, sa: IkeSa, candidates: Sequence[Peer], said: tuple[str, ...], why: str
    ) -> None:
        """An initiator is nobody of the policy at its address. `said`: who it is, and perhaps whom it wants."""
        if not self._strangers.take(now):
            return
        found = Difference(
            subject="identities",
            ours=tuple(line for peer in candidates[:4] for line in _identities(peer)),
            theirs=(f"its identity {said[0]}", *(f"wants us to be {one}" for one in said[1:])),
            first=why,
            remedy=f'here, write remote_id = "{said[0]}" for the peer if that is who it should be; '
            "or have the peer use the identities above",
        )
        self._keep(_failure_of(now, sa, "IKE_AUTH", NotifyType.AUTHENTICATION_FAILED, found))

    def not_authentic(self, now: float, sa: IkeSa, id_payload: bytes, method: int, why: str) -> None:
        """The peer's identity is right, or the one that was expected, and its AUTH is not."""
        if not sa.initiator and not self._strangers.take(now):
            return
        by = name_of(AuthMethod, method)
        by_psk = method == AuthMethod.PSK and _their_method(sa.peer) is AuthMethod.PSK
        found = Difference(
            subject="identities",
            ours=_identities(sa.peer),
            theirs=(f"its identity {_identity_text(id_payload)}", f"authenticates by {by}"),
            first=why or "its AUTH is wrong",
            remedy=_PSK_REMEDY if by_psk else "make the peer's authentication and the lines of the policy agree",
        )
        self._keep(_failure_of(now, sa, "IKE_AUTH", NotifyType.AUTHENTICATION_FAILED, found))

    def wrong_responder(self, now: float, sa: IkeSa, id_payload: bytes, why: str) -> None:
        """Who answers is not who was called."""
        found = Difference(
            subject="identities",
            ours=_identities(sa.peer),
            theirs=(f"its identity {_identity_text(id_payload)}",),
            first=why,
            remedy=f'here, write remote_id = "{_identity_text(id_payload)}" for peer "{sa.peer.name}" if that is who '
            "it should be; or have the peer use the identity above as its own",
        )
        self._keep(_failure_of(now, sa, "IKE_AUTH", NotifyType.AUTHENTICATION_FAILED, found))

    # ------------------------------------------------------------------ the peer refuses

    def ike_refused_by_peer(self, now: float, sa: IkeSa, exchange: int, notify: int) -> None:
        """The peer refuses our proposals for an IKE SA."""
        found = Difference(
            subject="IKE proposals",
            ours=tuple(differences.words_of(one) for one in offer_ike(sa.peer.ike_proposals).proposals),
            theirs=(),
            first="not known here: the peer may lack one of the algorithms, or does not know us at this address",
            remedy=f"have the peer take one of ours, or write one that it takes in ike of the proposals of peer "
            f'"{sa.peer.name}"; {_THEIR_LOG}',
        )
        self._keep(_failure_of(now, sa, name_of(ExchangeType, exchange), notify, found, by_peer=True))

    def auth_refused_by_peer(self, now: float, sa: IkeSa, notify: int) -> None:
        """The peer refuses us in IKE_AUTH."""
        found = Difference(
            subject="identities",
            ours=_identities(sa.peer),
            theirs=(),
            first="not known here: the peer does not know our identity, has another one than we ask for, or can't "
            "verify our AUTH (another pre-shared key, a certificate that it does not trust)",
            remedy=f"compare identities and secrets with the peer's configuration; {_THEIR_LOG}",
        )
        self._keep(_failure_of(now, sa, "IKE_AUTH", notify, found, by_peer=True))

    def child_refused_by_peer(
        self, now: float, sa: IkeSa, rule: NegotiationRule | None, notify: int, *, auth: bool
    ) -> None:
        """The peer refuses our request for a Child SA."""
        if rule is None:
            return
        if notify == NotifyType.TS_UNACCEPTABLE:
            subject = "traffic selectors"
            ours: tuple[str, ...] = (f"local {selectors_text(rule.local)}", f"remote {selectors_text(rule.remote)}")
            first = "not known here: nothing of this traffic is in a rule of the peer"
            remedy = f'have the peer allow it, or change local and remote of rule "{rule.name}"; {_THEIR_LOG}'
        elif notify == NotifyType.NO_PROPOSAL_CHOSEN:
            subject = "ESP proposals"
            offer = offer_esp(rule.esp_proposals, 0, key_exchange=not auth)
            ours = (*(differences.words_of(one) for one in offer.proposals), f"{rule.mode.name.lower()} mode")
            first = "not known here: the peer may lack one of the algorithms, want another key exchange or another mode"
            remedy = (
                f"have the peer take one of ours, or write one that it takes in esp of the proposals of peer "
                f'"{sa.peer.name}"; {_THEIR_LOG}'
            )
        else:
            return
        found = Difference(subject=subject, ours=ours, theirs=(), first=first, remedy=remedy)
        self._keep(_failure_of(now, sa, _exchange(auth=auth), notify, found, rule=rule.name, by_peer=True))

    # ------------------------------------------------------------------ all others

    def other(self, now: float, sa: IkeSa, rule: str, reason: str) -> None:
        """A failure that was not told of in more words just now."""
        if any(last.at == now for last in self.failures.of(sa.peer.name)[:1]):
            return
        self.failures.add(
            Failure(
                peer=sa.peer.name,
                rule=rule,
                remote=str(sa.path.remote),
                at=now,
                exchange="",
                notify="",
                by_peer=False,
                sentence=reason[:MAX_SENTENCE],
                first_at=now,
            )
        )

    def _keep(self, failure: Failure) -> None:
        log.info("why: %s", failure.sentence)
        self.failures.add(failure)


def _exchange(*, auth: bool) -> str:
    return "IKE_AUTH" if auth else "CREATE_CHILD_SA"


def _failure_of(
    now: float, sa: IkeSa, exchange: str, notify: int, found: Difference, *, rule: str = "", by_peer: bool = False
) -> Failure:
    return _failure(
        now, sa.path.remote, sa.peer.name, exchange=exchange, notify=notify, found=found, rule=rule, by_peer=by_peer
    )


def _failure(
    now: float,
    remote: Endpoint,
    peer: str,
    *,
    exchange: str,
    notify: int,
    found: Difference,
    rule: str = "",
    by_peer: bool = False,
) -> Failure:
    name = name_of(NotifyType, notify)
    who = f"{peer} ({remote})" if peer else str(remote)
    verb = "answers" if by_peer else "is answered"
    lists = f"{found.subject}: ours {_joined(found.ours)}" + ("" if by_peer else f"; theirs {_joined(found.theirs)}")
    sentence = f"{who} {verb} {name} in {exchange}; {lists}; differs: {found.first}; remedy: {found.remedy}"
    return Failure(
        peer=peer,
        rule=rule,
        remote=str(remote),
        at=now,
        exchange=exchange,
        notify=name,
        by_peer=by_peer,
        sentence=_plain(sentence[:MAX_SENTENCE]),
        subject=found.subject,
        ours=tuple(_plain(one[:MAX_ITEM]) for one in found.ours),
        theirs=tuple(_plain(one[:MAX_ITEM]) for one in found.theirs),
        difference=_plain(found.first[:MAX_SENTENCE]),
        remedy=_plain(found.remedy[:MAX_SENTENCE]),
        first_at=now,
    )


def _plain(text: str) -> str:
    """`text` without what a log or a terminal would take for something else."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _joined(items: tuple[str, ...]) -> str:
    return f"[{' | '.join(items)}]"


def _identities(peer: Peer) -> tuple[str, ...]:
    by, from_it = peer.auth.name, _their_method(peer).name
    return (f"we are {peer.local_id}, by {by}", f"peer {peer.name} must be {peer.remote_id}, by {from_it}")


def _their_method(peer: Peer) -> AuthMethod:
    return peer.remote_auth or peer.auth


def _identity_text(body: bytes) -> str:
    """The identity in the body of an ID payload (RFC 7296 section 3.5)."""
    identity = of_payload(body[0], body[4:]) if len(body) >= 4 else None
    return str(identity) if identity is not None else body.hex()
