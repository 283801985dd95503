"""Where two configurations do not meet: what both sides have, what differs first, and what would have matched.

For our own operator only; a peer is told no more than the notify of RFC 7296. Proposals are in the words of the SPD.
"""

import ipaddress
from collections.abc import Mapping, Sequence

from ike_worker.ikev2.iana import ProtocolId, TransformType, name_of
from ike_worker.ikev2.selection import overlap
from ike_worker.ikev2.wire.sa import Proposal, SecurityAssociation, Transform
from ipc.algorithms import (
    CIPHER_NAMES,
    ESN_NAMES,
    FIXED_KEY_CIPHERS,
    INTEGRITY_NAMES,
    KEY_EXCHANGE_NAMES,
    PRF_NAMES,
    EsnId,
    cipher_sizes,
)
from ipc.messages import NegotiationRule
from ipc.types import TrafficSelector
from ipc.value import value

MOST_COMPARED = 8
"""So many proposals of a peer are looked at and shown, and so many rules of ours."""

_ORDER = (TransformType.ENCR, TransformType.INTEG, TransformType.PRF, TransformType.KE, TransformType.ESN)
_KINDS: Mapping[int, str] = {
    TransformType.ENCR: "encryption",
    TransformType.INTEG: "integrity",
    TransformType.PRF: "PRF",
    TransformType.KE: "key exchange",
    TransformType.ESN: "sequence numbers",
}
_WORDS: Mapping[int, Mapping[int, str]] = {
    TransformType.INTEG: {number: word for word, number in INTEGRITY_NAMES.items()},
    TransformType.PRF: {number: word for word, number in PRF_NAMES.items()},
    TransformType.KE: {number: word for word, number in KEY_EXCHANGE_NAMES.items()},
    TransformType.ESN: {number: word for word, number in ESN_NAMES.items()},
}
_CIPHERS: Mapping[tuple[int, int], str] = {(cipher.id, cipher.key_bits): word for word, cipher in CIPHER_NAMES.items()}
_FIXED: Mapping[int, str] = {cipher.id: word for word, cipher in CIPHER_NAMES.items() if cipher.id in FIXED_KEY_CIPHERS}
_STEMS: Mapping[int, str] = {
    TransformType.ENCR: "encr",
    TransformType.INTEG: "integ",
    TransformType.PRF: "prf",
    TransformType.KE: "ke",
}
_NO_ESN = next(word for word, number in ESN_NAMES.items() if number is EsnId.NO_ESN)


@value
class Difference:
    """What both sides have of `subject`, the first thing that differs, and the smallest change that would match."""

    subject: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    first: str
    remedy: str


# ------------------------------------------------------------------ proposals


def words_of(proposal: Proposal) -> str:
    """A proposal in the words of the SPD; what these have no word for, by its number."""
    by_kind = _by_kind(proposal)
    return _joined([word for kind in sorted(by_kind, key=_rank) for word in by_kind[kind]]) or "nothing"


def _joined(words: list[str]) -> str:
    """Words of one proposal; what the SPD means without a word has none."""
    return "-".join(words if "esn" in words else [word for word in words if word != _NO_ESN])


def of_proposals(
    ours: SecurityAssociation, theirs: SecurityAssociation, *, peer: str, key_exchange: bool = True
) -> Difference:
    """Where the peer's offer does not meet ours. Without `key_exchange` (IKE_AUTH) groups do not count for ESP."""
    protocol = ours.proposals[0].protocol
    ike = protocol == ProtocolId.IKE
    offered = [one for one in theirs.proposals[:MOST_COMPARED] if one.protocol == protocol]
    pairs = [_Pair(own, other, key_exchange=ike or key_exchange) for own in ours.proposals for other in offered]
    key = f'{"ike" if ike else "esp"} of the proposals of peer "{peer}"'
    if pairs:
        closest = min(pairs, key=lambda pair: len(pair.different))
        first, remedy = closest.first, closest.remedy(key)
    else:
        names = ", ".join(sorted({name_of(ProtocolId, one.protocol) for one in theirs.proposals}))
        first = f"protocol: ours {name_of(ProtocolId, protocol)}, theirs {names}"
        remedy = f'have the peer offer {name_of(ProtocolId, protocol)}, such as "{words_of(ours.proposals[0])}"'
    return Difference(
        subject="IKE proposals" if ike else "ESP proposals",
        ours=tuple(words_of(one) for one in ours.proposals),
        theirs=tuple(words_of(one) for one in theirs.proposals[:MOST_COMPARED]),
        first=first,
        remedy=remedy,
    )


class _Pair:
    """One proposal of ours and one of the peer's, transform type by transform type."""

    def __init__(self, own: Proposal, other: Proposal, *, key_exchange: bool) -> None:
        self._own_proposal = own
        self._own, self._other = _by_kind(own), _by_kind(other)
        if TransformType.ESN in self._own:
            self._other.setdefault(TransformType.ESN, [_NO_ESN])
        common = {kind: self._common(kind) for kind in {*self._own, *self._other}}
        combined = self._combined(self._own), self._combined(self._other)
        self._mixed = combined[0] is not combined[1]
        ignored = set() if key_exchange else {TransformType.KE}
        if any(combined) or self._mixed:
            ignored.add(TransformType.INTEG)
        self.different = sorted((kind for kind in common if not common[kind] and kind not in ignored), key=_rank)
        self._common_words = common
        self._ignored = ignored

    def _common(self, kind: int) -> list[str]:
        others = self._other.get(kind, [])
        return [word for word in self._own.get(kind, []) if word in others]

    @staticmethod
    def _combined(words: Mapping[int, list[str]]) -> bool:
        ciphers = [CIPHER_NAMES[word] for word in words.get(TransformType.ENCR, ()) if word in CIPHER_NAMES]
        return bool(ciphers) and cipher_sizes(ciphers[0]).aead

    @property
    def first(self) -> str:
        """The first transform type without a common algorithm."""
        if not self.different:
            return "nothing: these two would match"
        kind = self.different[0]
        own, other = ", ".join(self._own.get(kind, ())), ", ".join(self._other.get(kind, ()))
        return f"{_KINDS.get(kind, f'transform type {kind}')}: ours {own or 'none'}, theirs {other or 'none'}"

    def remedy(self, key: str) -> str:
        """The smallest change of `key` here, or of the peer."""
        own = words_of(self._own_proposal)
        known = {kind: [word for word in self._other.get(kind, ()) if _is_word(word)] for kind in self.different}
        there = "-".join(self._own[kind][0] for kind in self.different if self._own.get(kind)) or f"only {own}"
        if any(kind not in _KINDS or (self._other.get(kind) and not known[kind]) for kind in self.different):
            return f'have the peer offer "{there}": ipsecd does not have what it wants'
        added = [known[kind][0] for kind in self.different if known[kind]]
        if not self._mixed and len(added) == len(self.different):
            wider = _joined(
                [
                    word
                    for kind in _ORDER
                    for word in (*self._own.get(kind, ()), *(known[kind][:1] if kind in self.different else ()))
                ]
            )
            return f'here, write "{wider}" for "{own}" in {key}; or have the peer offer "{there}"'
        return f'here, add "{self._made_to_measure()}" to {key}; or have the peer offer "{own}"'

    def _made_to_measure(self) -> str:
        """A proposal that takes one algorithm of each type that the peer offers, a common one if there is any."""
        words = []
        for kind in _ORDER:
            known = [word for word in self._other.get(kind, ()) if _is_word(word)]
            if kind is TransformType.INTEG and self._combined(self._other):
                continue
            if kind is TransformType.KE and kind in self._ignored:
                known = self._own.get(kind, [])
            words += (self._common_words.get(kind) or known)[:1]
        return _joined(words)


def _by_kind(proposal: Proposal) -> dict[int, list[str]]:
    """The words for the algorithms of each transform type; NONE has no word."""
    found: dict[int, list[str]] = {}
    for transform in proposal.transforms:
        if transform.id or transform.type == TransformType.ESN:
            found.setdefault(transform.type, []).append(_word(transform))
    return found


def _word(transform: Transform) -> str:
    if transform.type == TransformType.ENCR:
        bits = transform.key_bits
        found = _FIXED.get(transform.id, "") if bits is None else _CIPHERS.get((transform.id, bits), "")
        return found or f"encr{transform.id}" + (f"/{bits}" if bits else "")
    stem = _STEMS.get(transform.type, f"type{transform.type}/")
    return _WORDS.get(transform.type, {}).get(transform.id, f"{stem}{transform.id}")


def _is_word(word: str) -> bool:
    return word in CIPHER_NAMES or any(word in words.values() for words in _WORDS.values())


def _rank(kind: int) -> int:
    return [int(known) for known in _ORDER].index(kind) if kind in _KINDS else len(_ORDER) + kind


# ------------------------------------------------------------------ traffic selectors


def of_selectors(
    rules: Sequence[NegotiationRule], local: tuple[TrafficSelector, ...], remote: tuple[TrafficSelector, ...]
) -> Difference:
    """Where none of our rules meets the traffic that the peer asks for; `local` and `remote` from our side."""
    theirs = (f"local {selectors_text(local)}", f"remote {selectors_text(remote)}")
    shown = tuple(
        f"{rule.name}: local {selectors_text(rule.local)}, remote {selectors_text(rule.remote)}"
        for rule in rules[:MOST_COMPARED]
    )
    if not rules:
        return Difference(
            subject="traffic selectors",
            ours=(),
            theirs=theirs,
            first="the policy has no protect rule for this peer",
            remedy=f"here, add a rule for it with local {selectors_text(local)} and remote {selectors_text(remote)}",
        )
    closest = min(rules, key=lambda rule: (not overlap(local, rule.local)) + (not overlap(remote, rule.remote)))
    side, own, other = "local", closest.local, local
    if overlap(local, closest.local):
        side, own, other = "remote", closest.remote, remote
    ours, wanted = selectors_text(own), selectors_text(other)
    return Difference(
        subject="traffic selectors",
        ours=shown,
        theirs=theirs,
        first=f"{side} of rule {closest.name}: ours {ours}, theirs {wanted}",
        remedy=_selector_remedy(closest.name, side, own, other),
    )


def _selector_remedy(rule: str, side: str, own: tuple[TrafficSelector, ...], other: tuple[TrafficSelector, ...]) -> str:
    anything = tuple(_without_ports(one) for one in own)
    peers_side = "remote" if side == "local" else "local"
    there = f"have the peer ask for {selectors_text(own)} as its {peers_side} traffic"
    if not other:
        return there
    there = f"or {there}"
    if overlap(anything, tuple(_without_ports(one) for one in other)):
        return f'here, let rule "{rule}" allow {selectors_text(other[:1])}, protocol and port; {there}'
    return f'here, add "{addresses_text(other[0])}" to {side} of rule "{rule}"; {there}'


def _without_ports(selector: TrafficSelector) -> TrafficSelector:
    return TrafficSelector(
        protocol=0,
        start_address=selector.start_address,
        end_address=selector.end_address,
        start_port=0,
        end_port=65535,
    )


def selectors_text(selectors: tuple[TrafficSelector, ...]) -> str:
    """Selectors as the SPD writes them, the first of them."""
    if not selectors:
        return "none"
    more = len(selectors) - MOST_COMPARED
    return ", ".join(_selector_text(one) for one in selectors[:MOST_COMPARED]) + (
        f" and {more} more" if more > 0 else ""
    )


def _selector_text(selector: TrafficSelector) -> str:
    return str(selector).replace(str(_without_ports(selector)), addresses_text(selector), 1)


def addresses_text(selector: TrafficSelector) -> str:
    """The addresses of a selector: one, a prefix, or a range."""
    first, last = selector.start_address, selector.end_address
    if first == last:
        return str(first)
    if int(first) < int(last):
        networks = list(ipaddress.summarize_address_range(first, last))
        if len(networks) == 1:
            return str(networks[0])
    return f"{first}-{last}"
