"""A short conversation with the supervisor of an instance: one question, one answer, in bounded time."""

import logging
import time

import zmq

from ipc import messages as m
from ipc.channel import Channel, Gatekeeper
from ipc.links import CONTROL
from ipc.loop import Loop
from ipc.roles import Role
from ipsecctl.errors import NoAnswer


def ask(instance: str, question: object, timeout_s: float) -> m.CommandDone:
    """Sends `question` and returns how it ended; NoAnswer if that is not told within `timeout_s`."""
    # What ipc logs is for daemons; here the answer, or that there is none, is all there is to say.
    logging.getLogger("ipc").addHandler(logging.NullHandler())
    answers: list[m.CommandDone] = []
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
            handlers={m.CommandDone: lambda message, _peer: answers.append(message)},
        )
        channel.try_send(question)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            loop.run_once(deadline - time.monotonic())
            if answers:
                return answers[0]
    finally:
        context.destroy(linger=0)
    raise NoAnswer(f"the supervisor of {instance} did not answer within {timeout_s:g} s")
