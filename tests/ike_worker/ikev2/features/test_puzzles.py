"""Client puzzles. RFC 8019 sections 4.4, 7 and 8.

There is no vector: the keys of the example in section 4.4 do not give the digits that stand beside them, however its
words are read.
"""

import hashlib
import hmac
import random

import pytest

from ike_worker.ikev2.crypto.protection import MessageProtection
from ike_worker.ikev2.datagram import Datagram
from ike_worker.ikev2.errors import IntegrityFailure
from ike_worker.ikev2.exchanges import ike_sa_init
from ike_worker.ikev2.features import puzzles
from ike_worker.ikev2.features.puzzles import Puzzle, Solver
from ike_worker.ikev2.iana import ExchangeType, NotifyType
from ike_worker.ikev2.wire.message import (
    open_fragment,
    open_message,
    parse_message,
    parse_plaintext,
    seal_message,
    split_message,
)
from ike_worker.ikev2.wire.nonce import Nonce
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.puzzle_solution import PuzzleSolution
from ipc.algorithms import AES256GCM16, IntegrityId, PrfId
from ipc.types import Secret
from tests.ike_worker.ikev2.two_sides import RULE_ID, Side, World

COOKIE = b"the cookie"


def puzzle(difficulty: int = 8, prf: PrfId = PrfId.HMAC_SHA2_256) -> Puzzle:
    return Puzzle(string=COOKIE, prf=prf, difficulty=difficulty)


def solve(task: Puzzle) -> bytes:
    solver = Solver(task, random.Random(1).randbytes)
    while not solver.done:
        solver.work()
    return solver.solution


@pytest.mark.parametrize(("prf", "digest"), [(PrfId.HMAC_SHA2_256, "sha256"), (PrfId.HMAC_SHA2_512, "sha512")])
def test_a_solution_is_four_keys_whose_prf_ends_in_zero_bits(prf: PrfId, digest: str) -> None:
    solution = solve(puzzle(9, prf))
    assert len(solution) == 16
    keys = [solution[start : start + 4] for start in range(0, 16, 4)]
    assert len(set(keys)) == 4
    for key in keys:
        bits = bin(int.from_bytes(hmac.new(key, COOKIE, getattr(hashlib, digest)).digest()) | 1 << 600)[3:]
        assert bits.endswith("0" * 9)
    assert puzzles.is_solved(solution, puzzle(9, prf))


def test_what_is_no_solution() -> None:
    solution = solve(puzzle())
    keys = [solution[start : start + 4] for start in range(0, 16, 4)]
    wrong = [
        b"",
        solution[:-1],
        solution[:12],
        solution + solution,
        keys[0] * 4,
        b"".join(keys[:3]) + bytes(4),
        bytes(4 * 33),  # longer keys than the prf's own (RFC 8019 section 8.2)
    ]
    assert not any(puzzles.is_solved(one, puzzle()) for one in wrong)
    assert not puzzles.is_solved(solution, Puzzle(string=b"another", prf=PrfId.HMAC_SHA2_256, difficulty=8))


def test_work_goes_in_turns_and_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puzzles, "ATTEMPTS_PER_TURN", 10)
    monkeypatch.setattr(puzzles, "MAX_ATTEMPTS", 50)
    solver = Solver(puzzle(20), random.Random(1).randbytes)
    turns = 0
    while not solver.done:
        solver.work()
        turns += 1
    assert (turns, solver.solution) == (5, b"")


def test_a_puzzle_is_asked_and_read() -> None:
    assert puzzles.read(COOKIE, puzzles.ask(PrfId.HMAC_SHA2_384, 15)) == puzzle(15, PrfId.HMAC_SHA2_384)
    assert puzzles.ask(PrfId.HMAC_SHA2_256, 15).data == bytes.fromhex("00050f")


@pytest.mark.parametrize("data", ["", "0005", "00050f00", "00630f", "000515"])
def test_a_puzzle_that_is_malformed_or_too_hard_is_left_alone(data: str) -> None:
    assert puzzles.read(COOKIE, Notify(type=NotifyType.PUZZLE, data=bytes.fromhex(data))) is None


def test_difficulty_zero_leaves_it_to_us() -> None:
    task = puzzles.read(COOKIE, puzzles.ask(PrfId.HMAC_SHA2_256, 0))
    assert task is not None
    assert task.difficulty == 12


# ------------------------------------------------------------------ in IKE_AUTH (section 7.2)


def test_a_puzzle_for_ike_auth_is_solved_ahead_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A responder of ours asks for none: here it is made to, and the solution is looked at on the wire."""
    asked = puzzles.ask(PrfId.HMAC_SHA2_256, 10)
    monkeypatch.setattr(ike_sa_init.signatures, "certificate_requests", lambda _peers, in_clear: [asked] * in_clear)
    world, seen = World(), list[bytes]()

    def watch(_: Side, datagram: Datagram) -> list[Datagram]:
        seen.append(datagram.data.removeprefix(bytes(4)))
        return [datagram]

    world.filter = watch
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(1)
    world.agree(1)
    response, request = parse_message(seen[1]), parse_message(seen[2])
    nonce = next(one.data for one in response.payloads if isinstance(one, Nonce))
    (solution,) = request.payloads
    assert isinstance(solution, PuzzleSolution)
    assert request.encrypted is not None
    task = Puzzle(string=nonce + response.header.spi_r, prf=PrfId.HMAC_SHA2_256, difficulty=10)
    assert puzzles.is_solved(solution.data, task)


def test_in_fragments_the_solution_goes_with_the_first() -> None:
    """Also where it is cut anew. Who changes it is noticed."""
    protection = MessageProtection(AES256GCM16, IntegrityId.NONE, Secret(bytes(36)), Secret(b""))
    inside, solution = Notify(type=NotifyType.INITIAL_CONTACT, data=bytes(3000)), PuzzleSolution(data=bytes(range(16)))
    whole = seal_message(
        spi_i=b"initiatr",
        spi_r=b"respondr",
        exchange_type=ExchangeType.IKE_AUTH,
        initiator=True,
        response=False,
        message_id=1,
        payloads=[inside],
        protection=protection,
        iv=bytes(8),
        in_clear=[solution],
    )
    message = parse_message(whole)
    assert (message.payloads, open_message(whole, message, protection)) == ((solution,), (inside,))
    with pytest.raises(IntegrityFailure):
        changed = whole.replace(solution.data, bytes(16))
        open_message(changed, parse_message(changed), protection)
    parts: tuple[bytes, ...] = (whole,)
    for most in (1200, 500):
        parts = split_message(parts, most, protection, random.Random(1).randbytes)
        messages = [parse_message(part) for part in parts]
        assert max(map(len, parts)) <= most
        assert [one.payloads for one in messages] == [(solution,)] + [()] * (len(parts) - 1)
        plaintext = b"".join(
            open_fragment(part, one.fragment, protection)
            for part, one in zip(parts, messages, strict=True)
            if one.fragment is not None
        )
        first = messages[0].fragment
        assert first is not None
        assert parse_plaintext(first.first_payload, plaintext) == (inside,)
