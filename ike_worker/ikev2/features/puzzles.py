"""Client puzzles: an initiator pays with work before a responder under attack does. RFC 8019 sections 4.4 and 7.

To be found: four different keys K so that prf(K, S) ends in so many zero bits. S is the cookie in IKE_SA_INIT, and
Nr | SPIr in IKE_AUTH, where we solve what is asked and ask nothing ourselves: a responder of ours has its keys before
IKE_AUTH comes, so nobody makes it compute them, and a message that is not authentic costs it one look.
"""

import hmac
from collections.abc import Callable

from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.wire.notify import Notify
from ipc.algorithms import PRF_BYTES, PRF_DIGESTS, PrfId
from ipc.value import value

KEYS = 4
"""How many keys a solution has (RFC 8019 section 4.4)."""
MAX_DIFFICULTY = 20
"""We work on no harder puzzle: four million attempts, some seconds."""
ATTEMPTS_PER_TURN = 2000
"""A few milliseconds; then other work has its turn."""
MAX_ATTEMPTS = 1 << 24
"""So many without success, and we go on without a solution, as RFC 8019 section 7.1.2 lets us."""
_KEY_BYTES = 4


@value
class Puzzle:
    """What the responder asks."""

    string: bytes
    """S."""
    prf: PrfId
    difficulty: int


def read(string: bytes, notify: Notify) -> Puzzle | None:
    """The puzzle in a PUZZLE notify about the string S: prf (2 bytes), difficulty (1); None if we do not work on it."""
    number = int.from_bytes(notify.data[:2])
    if len(notify.data) != 3 or number not in PrfId._value2member_map_ or notify.data[2] > MAX_DIFFICULTY:
        return None
    # Difficulty 0: as hard as we like (RFC 8019 section 7.1.1.1).
    return Puzzle(string=string, prf=PrfId(number), difficulty=notify.data[2] or MAX_DIFFICULTY - 8)


def ask(prf: PrfId, difficulty: int) -> Notify:
    """The notify that asks."""
    return Notify(type=NotifyType.PUZZLE, data=int(prf).to_bytes(2) + bytes((difficulty,)))


class Solver:
    """Works on a puzzle, some attempts at a time."""

    __slots__ = ("_attempts", "_found", "_mask", "_puzzle", "_start")

    def __init__(self, puzzle: Puzzle, random_bytes: Callable[[int], bytes]) -> None:
        self._puzzle = puzzle
        self._mask = (1 << puzzle.difficulty) - 1
        self._start = int.from_bytes(random_bytes(_KEY_BYTES))
        self._attempts = 0
        self._found: list[bytes] = []

    @property
    def solution(self) -> bytes:
        """The four keys in a row; empty if there are not four yet."""
        return b"".join(self._found) if len(self._found) == KEYS else b""

    @property
    def done(self) -> bool:
        """Solved, or given up."""
        return len(self._found) == KEYS or self._attempts >= MAX_ATTEMPTS

    def work(self) -> None:
        """One turn."""
        digest, string, mask = PRF_DIGESTS[self._puzzle.prf], self._puzzle.string, self._mask
        for number in range(self._start + self._attempts, self._start + self._attempts + ATTEMPTS_PER_TURN):
            key = (number & 0xFFFFFFFF).to_bytes(_KEY_BYTES)
            if not int.from_bytes(hmac.digest(key, string, digest)[-4:]) & mask:
                self._found.append(key)
                if len(self._found) == KEYS:
                    return
        self._attempts += ATTEMPTS_PER_TURN


def is_solved(solution: bytes, puzzle: Puzzle) -> bool:
    """Whether `solution` is four different keys of one length, each of which solves `puzzle`."""
    size, rest = divmod(len(solution), KEYS)
    if rest or not 1 <= size <= PRF_BYTES[puzzle.prf]:
        return False
    keys = {solution[start : start + size] for start in range(0, len(solution), size)}
    digest, mask = PRF_DIGESTS[puzzle.prf], (1 << puzzle.difficulty) - 1
    return len(keys) == KEYS and all(not int.from_bytes(hmac.digest(key, puzzle.string, digest)) & mask for key in keys)
