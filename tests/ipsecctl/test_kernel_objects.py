"""What is counted as ours is what would be removed, and foreign objects are neither."""

import sys
import time

import pytest

from ipsecctl import kernel_objects
from tests.lab.instance import Instance
from tests.lab.namespaces import Namespace, gateways
from tests.lab.spd import IPV4

pytestmark = pytest.mark.root


def counted(namespace: Namespace, within_s: float = 30.0) -> kernel_objects.Counted:
    return namespace.call(lambda: kernel_objects.count(time.monotonic() + within_s))


def test_o15_all_that_a_dead_instance_left_is_counted_and_nothing_else() -> None:
    nothing = kernel_objects.Counted(lines=(), error="")
    with gateways() as wire, Instance(wire.left) as instance:
        foreign = ("src", "192.0.2.0/24", "dst", "198.51.100.0/24", "dir", "out", "action", "block")
        wire.left.ip("xfrm", "policy", "add", *foreign)
        wire.left.ip("rule", "add", "from", "192.0.2.0/24", "lookup", "77")
        assert counted(wire.left) == nothing
        instance.start(IPV4.left_spd())
        instance.die()
        left = counted(wire.left)
        assert (len(left.lines) >= 3, left.error) == (True, "")
        removed = wire.left.run(sys.executable, "-m", "kernel_agent.clean").splitlines()
        assert [f"removed {line}" for line in left.lines] == removed
        assert counted(wire.left) == nothing


def test_secure_mode_is_seen_and_a_deadline_is_kept() -> None:
    with Namespace("count") as namespace:
        assert not counted(namespace).secure
        namespace.run(sys.executable, "-m", "kernel_agent.secure", "on")
        assert counted(namespace).secure
        assert counted(namespace, within_s=-1.0).error == "it took too long"
