"""Rule ids: numbers from 1 to 1,048,575 by which agent, worker and kernel know a rule, and which SAs belong to it.

Two promises. A rule that does not change keeps its id over reloads, reorderings and renamings, so its SAs live on. And
a rule that does change gets an id that no SA carries, so its SAs go (RFC 4301 section 4.4.1; ipsecd(8), HUP).

An id is a hash of the rule's *fingerprint*: all that shapes its SAs, and nothing else (`compile.fingerprint`). A loader
that has been restarted thus finds the same ids for the same file, without having been told. Where two rules of a policy
want the same id, the one with the smaller fingerprint has it, wherever they stand in the file, and the other takes the
next of its own series of hashes. Rules that are equal in all that matters are told apart by their order.

Besides, this process remembers every id that it ever gave away, and for which fingerprint: the same fingerprint has it
again, another never. Only a *restarted* loader does not know those; for it, a rule that had lost a collision to a rule
since removed can get another id than before. Its SAs are then negotiated anew: nothing worse, as agent and worker
compare rules and not ids alone.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

LAST_RULE_ID = (1 << 20) - 1
MOST_REMEMBERED = 500_000
"""Beyond this many, ids of rules that are no longer in the policy are forgotten."""


_Claim = tuple[bytes, int]
"""A fingerprint, and 0 for the first of several equal rules, 1 for the second ..."""


class RuleIds:
    """Gives out ids, and remembers them for the life of the process."""

    def __init__(self) -> None:
        self._ids: dict[_Claim, int] = {}
        self._taken: dict[int, _Claim] = {}

    def assign(self, fingerprints: Sequence[bytes]) -> list[int]:
        """The ids of the rules with these fingerprints, in their order."""
        counts: Counter[bytes] = Counter()
        claims = []
        for fingerprint in fingerprints:
            claims.append((fingerprint, counts[fingerprint]))
            counts[fingerprint] += 1
        if len(self._ids) + len(claims) > MOST_REMEMBERED:
            self._forget_all_but(set(claims))
        for claim in sorted(claim for claim in claims if claim not in self._ids):
            number = self._free_id(claim)
            self._ids[claim] = number
            self._taken[number] = claim
        return [self._ids[claim] for claim in claims]

    def _free_id(self, claim: _Claim) -> int:
        fingerprint, occurrence = claim
        attempt = 0
        while True:
            seed = b"%d %d " % (occurrence, attempt) + fingerprint
            number = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big") % LAST_RULE_ID + 1
            if number not in self._taken:
                return number
            attempt += 1

    def _forget_all_but(self, claims: set[_Claim]) -> None:
        self._ids = {claim: number for claim, number in self._ids.items() if claim in claims}
        self._taken = {number: claim for claim, number in self._ids.items()}
