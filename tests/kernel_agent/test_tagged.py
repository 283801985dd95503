"""What is counted as ours is what would be removed, and foreign objects are neither."""

import sys

import pytest

from ipc.roles import Role
from tests.lab.instance import Instance
from tests.lab.namespaces import gateways
from tests.lab.spd import IPV4
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.root


def test_o15_all_that_a_dead_instance_left_is_counted_and_nothing_else() -> None:
    with gateways() as wire, Instance(wire.left) as instance:

        def run(module: str) -> list[str]:
            return wire.left.run(sys.executable, "-m", module).splitlines()

        foreign = ("src", "192.0.2.0/24", "dst", "198.51.100.0/24", "dir", "out", "action", "block")
        wire.left.ip("xfrm", "policy", "add", *foreign)
        wire.left.ip("rule", "add", "from", "192.0.2.0/24", "lookup", "77")
        assert run("kernel_agent.tagged") == []
        instance.start(IPV4.left_spd())
        instance.kill(Role.SUPERVISOR)
        wait_until("its roles are gone with it", lambda: instance.roles() == [])
        counted = run("kernel_agent.tagged")
        assert len(counted) >= 3
        assert [f"removed {line}" for line in counted] == run("kernel_agent.clean")
        assert run("kernel_agent.tagged") == []
