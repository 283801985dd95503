"""Client puzzles. RFC 8019 sections 3, 7.1 and 8."""

import hashlib
import hmac
import random

import pytest

from ike_worker.ikev2.features import puzzles
from ike_worker.ikev2.features.puzzles import Puzzle, Solver
from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.wire.notify import Notify
from ipc.algorithms import PrfId

COOKIE = b"the cookie"


def puzzle(difficulty: int = 8, prf: PrfId = PrfId.HMAC_SHA2_256) -> Puzzle:
    return Puzzle(cookie=COOKIE, prf=prf, difficulty=difficulty)


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
        bytes(4 * 33),  # longer keys than the prf's own (RFC 8019 section 3)
    ]
    assert not any(puzzles.is_solved(one, puzzle()) for one in wrong)
    assert not puzzles.is_solved(solution, Puzzle(cookie=b"another", prf=PrfId.HMAC_SHA2_256, difficulty=8))


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
