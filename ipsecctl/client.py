"""Conversations with the supervisor of an instance, each in bounded time: one question and its answers; listening."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from ipc import messages as m
from ipc import wishes as w
from ipc.channel import Channel, Gatekeeper
from ipc.links import CONTROL
from ipc.loop import Loop
from ipc.roles import Role
from ipsecctl.errors import NoAnswer

LOOK_AROUND_S = 2.0
"""So often somebody who listens looks whether there is still an instance."""


class Conversation:
    """The control link, and what has come in on it and was not taken yet."""

    def __init__(self, channel: Channel, loop: Loop, answers: list[Any]) -> None:
        self._channel = channel
        self._loop = loop
        self._answers = answers

    def say(self, message: object) -> None:
        """Sends `message`."""
        self._channel.try_send(message)

    def next(self, within_s: float) -> Any:
        """The next message; None if there is none `within_s`."""
        deadline = time.monotonic() + within_s
        while not self._answers:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            self._loop.run_once(left_s)
        return self._answers.pop(0)


@contextlib.contextmanager
def conversation(instance: str) -> Iterator[Conversation]:
    """A conversation with the supervisor of `instance`."""
    # What ipc logs is for daemons; here the answer, or that there is none, is all there is to say.
    logging.getLogger("ipc").addHandler(logging.NullHandler())
    answers: list[Any] = []
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    loop = Loop()
    try:
        channel = Channel(
            context=context,
            loop=loop,
            gatekeeper=Gatekeeper(context, loop),
            link=CONTROL,
            role=Role.IPSECCTL,
            run_directory=instance,
            handlers=dict.fromkeys(CONTROL.receivable(Role.IPSECCTL), lambda message, _peer: answers.append(message)),
        )
        yield Conversation(channel, loop, answers)
    finally:
        context.destroy(linger=0)
        loop.close()


def converse(instance: str, question: object, timeout_s: float) -> list[Any]:
    """Sends `question` and returns all answers; NoAnswer if the last one has not come within `timeout_s`."""
    answers: list[Any] = []
    deadline = time.monotonic() + timeout_s
    with conversation(instance) as with_supervisor:
        with_supervisor.say(question)
        while not answers or not getattr(answers[-1], "last", True):
            answer = with_supervisor.next(max(0.0, deadline - time.monotonic()))
            if answer is None:
                raise NoAnswer(f"the supervisor of {instance} did not answer within {timeout_s:g} s")
            answers.append(answer)
    return answers


def ask(instance: str, question: object, timeout_s: float) -> m.CommandDone:
    """Sends `question` and returns how it ended; NoAnswer if that is not told within `timeout_s`."""
    done = converse(instance, question, timeout_s)[-1]
    if not isinstance(done, m.CommandDone):
        raise NoAnswer(f"the supervisor of {instance} answered {type(done).__name__}")
    return done


def listen(instance: str, lives: Callable[[], bool]) -> Iterator[w.MonitorEvents]:
    """What happens, from now on; ends when nobody `lives` who could tell."""
    with conversation(instance) as with_supervisor:
        with_supervisor.say(w.MonitorCommand())
        while True:
            events = with_supervisor.next(LOOK_AROUND_S)
            if isinstance(events, w.MonitorEvents):
                yield events
                with_supervisor.say(w.MonitorTaken())
            elif not lives():
                return
