"""Start and stop, again and again: not one descriptor, process, policy or file is left behind.

IPSECD_ROUNDS (200) is the number of rounds of the supervisor with stand-ins for its roles, all in one process, so that
a descriptor which it forgets is seen; IPSECD_REAL_ROUNDS (10) that of the whole system by ipsecctl. A round of the
whole system takes two seconds on two cores: two hundred of them would take longer than all other tests together.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.instance import Instance, NetworkState, leftovers
from tests.lab.namespaces import Namespace
from tests.lab.operator import BYPASS_SPD, add_foreign_objects, operate

ROUNDS = int(os.environ.get("IPSECD_ROUNDS", "200"))
REAL_ROUNDS = int(os.environ.get("IPSECD_REAL_ROUNDS", "10"))
ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.root, pytest.mark.timeout(60 + 4 * ROUNDS)]


def sockets_of_the_machine() -> int:
    """Unix sockets by their names; those of an instance are in a directory of its own."""
    return sum("ipsecd-lab-" in line for line in Path("/proc/net/unix").read_text().splitlines())


def test_o15_two_hundred_rounds_of_the_supervisor_leave_nothing() -> None:
    """With stand-ins for the roles; descriptors and children are counted after each round, all else after the last."""
    with Namespace("rounds") as namespace, Instance(namespace) as instance:
        spd = instance.write_spd("one two")
        before, sockets = NetworkState.of(namespace), sockets_of_the_machine()
        done = subprocess.run(
            namespace.command(
                *(sys.executable, "-P", "-m", "stand_ins.rounds", str(instance.directory), str(spd), str(ROUNDS))
            ),
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "supervisor")])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        rounds = done.stdout.splitlines()
        assert len(rounds) == ROUNDS
        # What an interpreter opens once, it has opened in the first round.
        assert set(rounds[1:]) == {rounds[0]}
        assert rounds[0].split()[1] == "0"
        assert leftovers(instance, before) == []
        assert namespace.pids() == []
        assert sockets_of_the_machine() == sockets


def test_o15_rounds_of_the_whole_system_leave_nothing() -> None:
    """With the real roles: ten rounds; processes are counted after each, policies, files and descriptors at the end."""
    with Namespace("rounds") as namespace, Instance(namespace) as instance:
        instance.write_spd(BYPASS_SPD)
        add_foreign_objects(namespace)
        before, sockets = NetworkState.of(namespace), sockets_of_the_machine()
        own = len(os.listdir("/proc/self/fd"))
        for number in range(REAL_ROUNDS):
            started = operate(instance, "start", "--spd", str(instance.spd))
            assert started.code == 0, f"round {number}: {started.text}"
            stopped = operate(instance, "stop")
            assert stopped.code == 0, f"round {number}: {stopped.text}"
            assert namespace.pids() == []
        assert leftovers(instance, before) == []
        assert sockets_of_the_machine() == sockets
        assert len(os.listdir("/proc/self/fd")) == own
