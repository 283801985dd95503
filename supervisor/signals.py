"""Signals only queue: each wakes the loop, which acts on it between two messages."""

import os
import signal
from collections.abc import Callable, Mapping
from types import FrameType

from ipc.loop import Loop


class Signals:
    """Calls `actions[number]` from the loop for each signal that came."""

    def __init__(self, loop: Loop, actions: Mapping[signal.Signals, Callable[[], None]]) -> None:
        self._loop = loop
        self._actions = dict(actions)
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in self._actions:
            signal.signal(number, _queued)
        loop.add_reader(self._read_end, self._on_readable)

    def close(self) -> None:
        """Queues no more; a signal has its default effect again."""
        for number in self._actions:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._loop.remove_reader(self._read_end)
        os.close(self._read_end)
        os.close(self._write_end)

    def _on_readable(self) -> None:
        for number in dict.fromkeys(os.read(self._read_end, 4096)):
            action = self._actions.get(signal.Signals(number))
            if action is not None:
                action()


def _queued(_number: int, _frame: FrameType | None) -> None:
    """Python writes the number to the wakeup descriptor; there is nothing else to do."""
