"""ipsecctl's link: reload, confirm, roll back, stop; what is asked of the SAs goes to `operator_wishes`.

Only root gets in: the socket's mode says so, and the uid that the kernel reports.
"""

import dataclasses
from collections.abc import Callable

from ipc import messages as m
from ipc import wishes as w
from ipc.channel import Handler
from ipc.roles import Role
from supervisor.channels import Channels
from supervisor.monitor import Monitor
from supervisor.operator_wishes import OperatorWishes
from supervisor.policy import Finished
from supervisor.reload import Reloads

MAX_LINES = 1000
MAX_LINE_CHARACTERS = 8000


class Control:
    """Answers commands. A stop is answered in the end, by `stopped`."""

    def __init__(
        self,
        channels: Channels,
        reloads: Reloads,
        stop: Callable[[str], None],
        log_unmatched: Callable[[bool], None],
        wishes: OperatorWishes,
        monitor: Monitor,
    ) -> None:
        self._channels = channels
        self._reloads = reloads
        self._stop = stop
        self._log_unmatched = log_unmatched
        self._wishes = wishes
        self._monitor = monitor
        self._waiting_for_stop: list[bytes] = []

    def handlers(self) -> dict[type, Handler]:
        """For the control link."""
        return {
            m.StopCommand: self._on_stop_command,
            m.ReloadCommand: self._on_reload_command,
            m.ConfirmCommand: self._on_confirm_command,
            m.RollbackCommand: self._on_rollback_command,
            m.LogUnmatchedCommand: self._on_log_unmatched_command,
            w.OperatorCommand: self._wishes.on_command,
            w.MonitorCommand: self._monitor.on_listen,
            w.MonitorTaken: self._monitor.on_taken,
        }

    def stopped(self, lines: tuple[str, ...]) -> None:
        """The instance has stopped: whoever asked for that is told."""
        for peer in self._waiting_for_stop:
            self._done(peer, 0, lines)
        self._waiting_for_stop.clear()

    def _on_stop_command(self, _command: m.StopCommand, peer: bytes) -> None:
        self._waiting_for_stop.append(peer)
        self._stop("ipsecctl asked for it")

    def _on_reload_command(self, command: m.ReloadCommand, peer: bytes) -> None:
        if command.dry_run:
            self._reloads.plan(lambda done: self._tell(peer, done))
        else:
            self._reloads.reload(self._finish(peer), command.confirm_s)

    def _on_rollback_command(self, command: m.RollbackCommand, peer: bytes) -> None:
        self._reloads.roll_back(command.generation, self._finish(peer), command.confirm_s)

    def _on_confirm_command(self, _command: m.ConfirmCommand, peer: bytes) -> None:
        self._tell(peer, self._reloads.confirm())

    def _on_log_unmatched_command(self, command: m.LogUnmatchedCommand, peer: bytes) -> None:
        self._log_unmatched(command.on)
        are = "are" if command.on else "are not"
        self._done(peer, 0, (f"packets that no rule matches {are} logged",))

    def _finish(self, peer: bytes) -> Finished:
        return lambda in_force, lines: self._done(peer, 0 if in_force else 1, lines)

    def _done(self, peer: bytes, code: int, lines: tuple[str, ...]) -> None:
        self._tell(peer, m.CommandDone(exit_code=code, lines=lines))

    def _tell(self, peer: bytes, done: m.CommandDone) -> None:
        bounded = tuple(line[:MAX_LINE_CHARACTERS] for line in done.lines[:MAX_LINES])
        self._channels.send(Role.IPSECCTL, dataclasses.replace(done, lines=bounded), peer)
