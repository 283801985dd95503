"""The role kernel_agent: probes the kernel as root, drops to CAP_NET_ADMIN alone, then serves its links."""

import os
import socket
import time
from typing import NoReturn

from ipc import messages as m
from ipc.channel import Channel
from ipc.links import AGENT_DATA_PATH, LOADER_AGENT, WORKER_AGENT
from ipc.process import RoleProcess
from ipc.roles import Role
from ipc.types import DataPathKind
from kernel_agent import clean
from kernel_agent.agent import Agent, Speech, Surroundings
from kernel_agent.data_path import DataPath, DataPathError
from kernel_agent.drift import LOOK_EVERY_S
from kernel_agent.probe import KernelEsp, ScratchSockets, probe_kernel_esp, scratch_sockets
from kernel_agent.unmatched_log import UnmatchedLog
from kernel_agent.userspace.userspace_path import UserspacePath
from kernel_agent.xfrm.xfrm_path import XfrmPath


class AgentProcess:
    """The agent with its links and sockets."""

    def __init__(self, process: RoleProcess, esp: KernelEsp, scratch: ScratchSockets) -> None:
        self._process = process
        self._esp = esp
        self._scratch = scratch
        self._data_path_link: Channel | None = None
        self._userspace: UserspacePath | None = None
        self._agent = Agent(
            Speech(
                supervisor=lambda message: self._supervisor.try_send(message),
                loader=lambda message: self._loader.try_send(message),
                worker=lambda message, worker: self._worker.try_send(message, worker),
            ),
            Surroundings(
                now=time.monotonic,
                random_bytes=os.urandom,
                interfaces=lambda: tuple(name for _, name in socket.if_nameindex()),
                make_data_path=self._make_data_path,
                log_unmatched=UnmatchedLog(process.loop).set_rules,
            ),
        )
        agent = self._agent
        self._supervisor = process.open_supervisor_link(agent.supervisor_handlers(), on_stop=self._on_stop)
        self._loader = process.open_link(
            LOADER_AGENT, agent.loader_handlers(), on_connected=lambda _peer: agent.on_loader_connected()
        )
        self._worker = process.open_link(WORKER_AGENT, agent.worker_handlers(), on_connected=agent.on_worker_connected)
        self._look_for_drift()
        process.say_hello()
        self._supervisor.send(m.AgentReady(kernel_esp=esp.present, detail=esp.detail))

    def _make_data_path(self, message: m.UseDataPath) -> DataPath:
        if message.kind is DataPathKind.KERNEL:
            if not self._esp.present:
                raise DataPathError(self._esp.detail)
            return XfrmPath(
                self._process.loop,
                drop_leftovers=clean.remove_around_tun,
                scratch=self._scratch.xfrm,
                working=self._process.still_working,
            )
        if message.kind is not DataPathKind.USERSPACE:
            raise DataPathError("automatic is no data path: the supervisor decides")
        self._userspace = UserspacePath(
            message.tun_interface,
            self._say_to_data_path,
            scratch=self._scratch,
            working=self._process.still_working,
        )
        if self._data_path_link is None:
            self._data_path_link = self._process.open_link(
                AGENT_DATA_PATH,
                dict.fromkeys(AGENT_DATA_PATH.receivable(Role.KERNEL_AGENT), self._hear_data_path),
                on_connected=self._on_data_path_connected,
            )
        return self._userspace

    def _look_for_drift(self) -> None:
        self._process.loop.call_later(LOOK_EVERY_S, self._look_for_drift)
        self._agent.look_for_drift()

    def _hear_data_path(self, message: object, peer: bytes) -> None:
        if self._userspace is not None:
            self._userspace.handlers()[type(message)](message, peer)

    def _on_data_path_connected(self, peer: bytes) -> None:
        if self._userspace is not None:
            self._userspace.on_connected(peer)

    def _say_to_data_path(self, message: object) -> bool:
        return self._data_path_link is not None and self._data_path_link.try_send(message)

    def _on_stop(self, _deadline_s: float) -> None:
        try:
            lines = clean.remove_everything().lines()
        except OSError as error:
            lines = [f"not all kernel objects could be removed: {error.strerror}"]
        self._process.finish("; ".join(lines) or "nothing was installed")


def main() -> NoReturn:
    """Runs the role until the supervisor stops it."""
    esp, scratch = probe_kernel_esp(), scratch_sockets()
    process = RoleProcess.start(Role.KERNEL_AGENT)
    AgentProcess(process, esp, scratch)
    process.run_and_leave()


if __name__ == "__main__":
    main()
