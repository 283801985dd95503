"""Host names of peers: asked for by children, within a bound, and kept for a loader that is started again."""

import sys
import time

import pytest

from ipc import messages as m
from ipc.loop import Loop
from supervisor import name_resolver
from supervisor.name_resolver import NameResolver


class Asked:
    """A resolver whose children run `code` with the name as their argument, and what it answered."""

    def __init__(self, code: str) -> None:
        self.loop = Loop()
        self.children = 0
        self.answers: list[m.NameResolved] = []
        self._code = code
        self.resolver = NameResolver(self.loop, self._command)

    def _command(self, name: str) -> list[str]:
        self.children += 1
        return [sys.executable, "-I", "-c", self._code, name]

    def ask(self, *names: str, generation: int = 1) -> list[m.NameResolved]:
        self.answers.clear()
        for number, name in enumerate(names):
            request = m.ResolveName(request_id=number, generation=generation, name=name)
            self.resolver.resolve(request, self.answers.append)
        deadline = time.monotonic() + 60.0
        while len(self.answers) < len(names):
            assert time.monotonic() < deadline, "no answer"
            self.loop.run_once(1.0)
        return sorted(self.answers, key=lambda answer: answer.request_id)


def addresses(answer: m.NameResolved) -> list[str]:
    return [str(one) for one in answer.addresses]


def test_a_name_is_answered_with_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_resolver, "RESOLVE_WITHIN_S", 30.0)
    (answer,) = Asked("print('192.0.2.1\\n2001:db8::1')").ask("branch.example.net")
    assert (addresses(answer), answer.error) == (["192.0.2.1", "2001:db8::1"], "")


@pytest.mark.parametrize(
    "code", ["", "raise SystemExit(1)", "print('no address')", "print('192.0.2.1 x')", "print('1' * 100000)"]
)
def test_a_child_that_says_anything_else_has_found_nothing(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_resolver, "RESOLVE_WITHIN_S", 30.0)
    (answer,) = Asked(code).ask("branch.example.net")
    assert (answer.addresses, answer.error) == ((), "it has no address")


def test_a_child_that_hangs_is_ended_and_all_are_answered_though_few_run_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(name_resolver, "RESOLVE_WITHIN_S", 0.5)
    asked = Asked("import time; time.sleep(600)")
    answers = asked.ask(*(f"host{number}" for number in range(20)))
    assert {answer.error for answer in answers} == {"no answer within 0.5 s"}
    assert asked.children <= 20


def test_what_was_found_for_a_policy_is_kept_for_it_and_asked_for_anew_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(name_resolver, "RESOLVE_WITHIN_S", 30.0)
    asked = Asked("print('192.0.2.1')")
    asked.ask("a", generation=1)
    asked.ask("a", generation=1)
    assert asked.children == 1
    asked.ask("a", generation=2)
    assert asked.children == 2
    asked.resolver.forget_before(2)
    asked.ask("a", generation=2)
    asked.ask("a", generation=1)
    assert asked.children == 3


@pytest.mark.root
def test_the_real_child_finds_what_the_hosts_file_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_resolver, "RESOLVE_WITHIN_S", 30.0)
    asked = Asked("")
    asked.resolver = NameResolver(asked.loop)
    (answer,) = asked.ask("localhost")
    assert "127.0.0.1" in addresses(answer)
