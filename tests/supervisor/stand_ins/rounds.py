"""Supervisors with stand-ins for their roles, started and stopped again and again in one process.

Arguments: run directory, policy file, rounds. After each round it prints how many descriptors and children it has.
In one round of twenty the stand-ins are programs, as the roles are; in the others they are forked, which is quicker.
"""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

from stand_ins.forked import Forked
from stand_ins.supervisor import TABLE

from supervisor import daemon, spawn
from supervisor.detach import Starter
from supervisor.settings import Settings


class OneRound(Starter):
    """Ends the supervisor as soon as it has started."""

    def __init__(self) -> None:
        super().__init__(None)
        self.code = 1

    def announce(self, line: str) -> None:
        """Nobody listens."""

    def finished(self, code: int) -> None:
        self.code = code
        os.kill(os.getpid(), signal.SIGTERM)


def children() -> int:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(file.read().split())


def main() -> int:
    instance, spd, rounds = sys.argv[1:]
    settings = Settings(instance=instance, spd_path=spd, log_level="ERROR")
    for number in range(int(rounds)):
        # Not for all who start programs: for the roles alone.
        spawn.subprocess = SimpleNamespace(Popen=Forked, DEVNULL=subprocess.DEVNULL) if number % 20 else subprocess
        starter = OneRound()
        if daemon.run(settings, starter, TABLE) or starter.code:
            return 1
        print(len(os.listdir("/proc/self/fd")), children(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
