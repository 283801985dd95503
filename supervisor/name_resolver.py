"""Host names of peers to addresses, for the loader, which has no way to the network.

Each name is asked for by a short-lived child (`resolve.py`) that has no privilege and no descriptor of ours; nobody
waits for it. What was found for the policy in force is kept: a loader that is started again gets the same answers, so
that no tunnel is lost because a name has moved or a resolver is away. A reload asks anew.
"""

import ipaddress
import logging
import os
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ipc import messages as m
from ipc.loop import Loop, Timer
from ipc.patience import patient
from ipc.roles import module_command
from ipc.types import IpAddress
from supervisor.spawn import base_environment

log = logging.getLogger(__name__)

RESOLVE_WITHIN_S = patient(3.0)
MOST_CHILDREN = 8
"""Names that are asked for at a time; the others wait their turn, and their time runs."""
LONGEST_ANSWER_BYTES = 4096

Answer = Callable[[m.NameResolved], object]


@dataclass(slots=True, kw_only=True)
class _Question:
    request: m.ResolveName
    answer: Answer
    timer: Timer
    child: "subprocess.Popen[bytes] | None" = None
    said: bytes = b""


class NameResolver:
    """Answers ResolveName within RESOLVE_WITHIN_S, one way or the other."""

    def __init__(self, loop: Loop, command: Callable[[str], list[str]] | None = None) -> None:
        self._loop = loop
        self._command = command or _command
        self._known: dict[tuple[int, str], tuple[IpAddress, ...]] = {}
        self._waiting: deque[_Question] = deque()
        self._asked: list[_Question] = []

    def resolve(self, request: m.ResolveName, answer: Answer) -> None:
        """Calls `answer` in the end, at once if the name was resolved for that generation already."""
        known = self._known.get((request.generation, request.name))
        if known is not None:
            answer(m.NameResolved(request_id=request.request_id, addresses=known, error=""))
            return
        timer = self._loop.call_later(RESOLVE_WITHIN_S, lambda: self._too_late(question))
        question = _Question(request=request, answer=answer, timer=timer)
        self._waiting.append(question)
        self._go_on()

    def forget_before(self, generation: int) -> None:
        """Forgets the answers for policies older than `generation`."""
        self._known = {key: value for key, value in self._known.items() if key[0] >= generation}

    def _go_on(self) -> None:
        while self._waiting and len(self._asked) < MOST_CHILDREN:
            question = self._waiting.popleft()
            try:
                self._ask(question)
            except OSError as error:
                self._finish(question, (), f"it can't be asked for: {error}")

    def _ask(self, question: _Question) -> None:
        child = subprocess.Popen(
            self._command(question.request.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=base_environment(),
            process_group=0,
            bufsize=0,
        )
        question.child = child
        self._asked.append(question)
        self._loop.add_reader(_output(child), lambda: self._on_readable(question, child))

    def _on_readable(self, question: _Question, child: "subprocess.Popen[bytes]") -> None:
        data = os.read(_output(child), LONGEST_ANSWER_BYTES)
        question.said += data
        if data and len(question.said) <= LONGEST_ANSWER_BYTES:
            return
        addresses = tuple(_addresses(question.said)) if not data else ()
        self._finish(question, addresses, "" if addresses else "it has no address")

    def _too_late(self, question: _Question) -> None:
        self._finish(question, (), f"no answer within {RESOLVE_WITHIN_S:g} s")

    def _finish(self, question: _Question, addresses: tuple[IpAddress, ...], error: str) -> None:
        question.timer.cancel()
        if question in self._waiting:
            self._waiting.remove(question)
        if question.child is not None:
            self._asked.remove(question)
            self._end(question.child)
        request = question.request
        if addresses:
            self._known[request.generation, request.name] = addresses
        log.debug("%s: %s", request.name, error or ", ".join(map(str, addresses)))
        question.answer(m.NameResolved(request_id=request.request_id, addresses=addresses, error=error))
        self._go_on()

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        """It has said all that it is heard for: it ends now, whatever it is at."""
        self._loop.remove_reader(_output(child))
        if child.stdout is not None:
            child.stdout.close()
        child.kill()
        child.wait()


def _output(child: "subprocess.Popen[bytes]") -> int:
    if child.stdout is None:
        raise ValueError("a child without a pipe")
    return child.stdout.fileno()


def _addresses(said: bytes) -> list[IpAddress]:
    """What the child printed, as far as it is addresses; nothing if any of it is not."""
    try:
        return [ipaddress.ip_address(line) for line in said.decode("ascii").split()]
    except ValueError:
        return []


def _command(name: str) -> list[str]:
    return module_command("supervisor.resolve", name, str(os.getpid()))
