"""The runtime of every unprivileged role: descriptors, dropping, the loop, the links, life and health.

A role's `__main__` is three lines: `RoleProcess.start(role)` while everything is imported and still root, its own
object with the links it opens, and `run()`. The supervisor is told Hello when the role is ready to work.
"""

import argparse
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import zmq

from ipc import messages as m
from ipc import privileges
from ipc.channel import Channel, Gatekeeper, Handler
from ipc.garbage import look_seldom
from ipc.links import Link, links_of
from ipc.loop import Loop
from ipc.roles import Role, name_of, process_name, uid_of
from ipc.round_log import LineFormat, RoundLog

log = logging.getLogger(__name__)

DESCRIPTORS_VARIABLE = "IPSECD_DESCRIPTORS"
"""Environment of a role: name=number,name=number of the descriptors it inherits."""
LOG_LEVEL_VARIABLE = "IPSECD_LOG_LEVEL"
LISTENER_PREFIX = "link:"
"""A descriptor of this name is the listener of that link."""
STILL_WORKING_S = 1.0
"""How often a role that has much to do says that it is alive."""
SUPERVISOR_OPTION = "--supervisor"
WORKER_OPTION = "--worker"
"""Which of several processes of its role this one is; not given to the first."""

CAPABILITIES: Mapping[Role, frozenset[int]] = {
    Role.KERNEL_AGENT: frozenset({privileges.CAP_NET_ADMIN}),  # NETLINK_XFRM, nftables, routes
    Role.POLICY_LOADER: frozenset(),
    Role.IKE_WORKER: frozenset(),
    Role.DATA_PATH: frozenset(),
}


def process_start_time(pid: int) -> float:
    """When `pid` started, in seconds since boot (proc(5), field 22); OSError if there is no such process."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    ticks = int(stat.rpartition(b")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def inherited_descriptors() -> dict[str, int]:
    """The descriptors that the supervisor handed over, by name."""
    text = os.environ.get(DESCRIPTORS_VARIABLE, "")
    pairs = (item.rpartition("=") for item in text.split(",") if item)
    return {name: int(number) for name, _, number in pairs}


def set_up_log(name: str, level: str) -> RoundLog:
    """Log lines to stderr, which the supervisor has pointed where they belong."""
    handler = RoundLog(sys.stderr.fileno())
    handler.setFormatter(LineFormat(f"%(asctime)s {name}[%(process)d] %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    # No line says where in the program it was written: finding that out takes as long as the rest.
    logging._srcfile = None  # as the manual has it
    logging.logThreads = logging.logMultiprocessing = False
    # Formatting must open no file once privileges are gone.
    time.localtime()
    return handler


class RoleProcess:
    """One running role, from after its privileges are dropped to its end."""

    def __init__(
        self,
        role: Role,
        run_directory: str,
        descriptors: dict[str, int],
        start_time: float,
        round_log: RoundLog,
        index: int = 0,
    ) -> None:
        self.role = role
        self.index = index
        self.run_directory = run_directory
        self.descriptors = descriptors
        self.loop = Loop()
        self._start_time = start_time
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gatekeeper = Gatekeeper(self._context, self.loop)
        self._channels: list[Channel] = []
        self._supervisor: Channel | None = None
        self._on_stop: Callable[[float], None] | None = None
        self._said_working_at = 0.0
        self._round_log = round_log

    @classmethod
    def start(cls, role: Role) -> "RoleProcess":
        """Reads the arguments and descriptors, drops privileges for good, and makes the loop.

        Everything that the role will ever import must be imported by now: another uid may not read it.
        """
        parser = argparse.ArgumentParser(prog=role.value)
        parser.add_argument("--instance", required=True, metavar="DIR")
        parser.add_argument(SUPERVISOR_OPTION, required=True, type=int, metavar="PID", dest="supervisor")
        parser.add_argument(WORKER_OPTION, default=0, type=int, metavar="INDEX", dest="worker")
        arguments = parser.parse_args()
        round_log = set_up_log(process_name(role, arguments.worker), os.environ.get(LOG_LEVEL_VARIABLE, "INFO"))
        descriptors = inherited_descriptors()
        start_time = process_start_time(os.getpid())
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        uid = uid_of(role)
        privileges.drop(uid=uid, gid=uid, capabilities=CAPABILITIES[role], parent=arguments.supervisor)
        gc.collect()
        gc.freeze()
        look_seldom()
        return cls(role, arguments.instance, descriptors, start_time, round_log, arguments.worker)

    def open_link(
        self,
        link: Link,
        handlers: Mapping[type, Handler],
        on_connected: Callable[[bytes], None] | None = None,
    ) -> Channel:
        """Opens `link` with exactly the handlers that its access list asks for."""
        channel = Channel(
            context=self._context,
            loop=self.loop,
            gatekeeper=self._gatekeeper,
            link=link,
            role=self.role,
            run_directory=self.run_directory,
            handlers=handlers,
            listener=self.descriptors.get(LISTENER_PREFIX + link.name),
            on_connected=on_connected,
            on_refused=self._report_refusal,
            index=self.index,
        )
        self._channels.append(channel)
        return channel

    def open_supervisor_link(
        self, handlers: Mapping[type, Handler], on_stop: Callable[[float], None] | None = None
    ) -> Channel:
        """Opens the link to the supervisor. Health is answered here; `handlers` are the role's own.

        `on_stop(deadline_s)` is called once at Stop and must lead to `finish`; without it the role finishes at once.
        """
        (link,) = (one for one in links_of(self.role) if one.binder is Role.SUPERVISOR)
        life: dict[type, Handler] = {
            m.HealthQuestion: self._on_health_question,
            m.Stop: self._on_stop_message,
        }
        self._on_stop = on_stop
        self._supervisor = self.open_link(link, {**life, **handlers})
        return self._supervisor

    def say_hello(self) -> None:
        """Tells the supervisor that this role is ready to work."""
        self._to_supervisor(m.Hello(pid=os.getpid(), start_time=self._start_time))

    def still_working(self) -> None:
        """To be called in the midst of long work: once a second it answers the question that nobody could read yet."""
        now = time.monotonic()
        if now - self._said_working_at >= STILL_WORKING_S:
            self._said_working_at = now
            self._say_healthy(0)

    def finish(self, summary: str) -> None:
        """Says Stopped and ends the loop."""
        self._to_supervisor(m.Stopped(summary=summary))
        self.loop.stop()

    def run(self) -> None:
        """Goes round until `finish`, then closes everything."""
        self._round_log.gather()
        self.loop.before_wait(self._round_log.flush)
        self.loop.run()
        for channel in self._channels:
            channel.close()
        self._gatekeeper.close()
        self._context.term()
        self.loop.close()

    def run_and_leave(self) -> NoReturn:
        """As `run`; then the process is gone at once: to take very many rules apart takes longer than all else."""
        self.run()
        logging.shutdown()
        os._exit(0)

    def _to_supervisor(self, message: object) -> None:
        if self._supervisor is None:
            raise RuntimeError("open_supervisor_link comes first")
        self._supervisor.try_send(message)

    def _on_health_question(self, question: m.HealthQuestion, _peer: bytes) -> None:
        self._say_healthy(question.sequence)

    def _say_healthy(self, sequence: int) -> None:
        refused = sum(channel.refused for channel in self._channels)
        self._to_supervisor(m.HealthAnswer(sequence=sequence, refused_messages=refused))

    def _on_stop_message(self, stop: m.Stop, _peer: bytes) -> None:
        if self._on_stop is None:
            self.finish("")
        else:
            self._on_stop(stop.deadline_s)

    def _report_refusal(self, link: Link, reason: str, peer: bytes) -> None:
        if self._supervisor is not None and link is not self._supervisor.link:
            self._to_supervisor(m.SenderMisbehaved(link=link.name, reason=reason[:200], sender=name_of(peer)))
