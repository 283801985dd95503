"""Rules with fixed SPIs and keys, between two real instances: traffic without a word of IKE."""

import pytest

from ipc.roles import Role
from tests.lab.capture import Kind
from tests.lab.instance import Instance
from tests.lab.namespaces import WIRE
from tests.lab.ping import ping
from tests.lab.two import Two, two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
LEFT_SPI, RIGHT_SPI = 0x1001, 0x2002
TO_LEFT, TO_RIGHT = "1f" * 64, "2e" * 64  # AES-256 and HMAC-SHA2-256


def spd(*, left: bool, to_right: str = TO_RIGHT, more: str = "") -> str:
    """One side's SPD; `to_right` is the key of what the left side sends."""
    ends = ("10.9.0.1", "10.9.0.2") if left else ("10.9.0.2", "10.9.0.1")
    nets = ("10.1.0.0/24", "10.2.0.0/24") if left else ("10.2.0.0/24", "10.1.0.0/24")
    spis = (LEFT_SPI, RIGHT_SPI) if left else (RIGHT_SPI, LEFT_SPI)
    keys = (TO_LEFT, to_right) if left else (to_right, TO_LEFT)
    return f"""\
[setup]
interfaces = ["{WIRE}"]
unmatched = "bypass"

[peers.other]
address = "{ends[1]}"
local_address = "{ends[0]}"
auth = "manual"
algorithm = "aes256-sha256"
spi_in = {spis[0]}
spi_out = {spis[1]}
key_in = "{keys[0]}"
key_out = "{keys[1]}"

[[rules]]
name = "nets"
action = "protect"
local = ["{nets[0]}"]
remote = ["{nets[1]}"]
peer = "other"
{more}
"""


def reload(instance: Instance, text: str) -> None:
    instance.write_spd(text)
    instance.ctl("reload")


def passes(two: Two, count: int = 1) -> bool:
    """Whether all of `count` pings are answered."""
    return ping(two.wire.left, RIGHT, source=LEFT, count=count, interval_s=0.01, wait_s=2.0).lost == 0


def test_o26_fixed_keys_carry_traffic_without_ike_through_deaths_and_restarts() -> None:
    with two_instances(left_spd=spd(left=True), right_spd=spd(left=False)) as two:
        wait_until("it passes", lambda: passes(two), timeout_s=30.0)
        for role in (Role.IKE_WORKER, Role.KERNEL_AGENT):
            two.left.wait_for_successor(two.left.kill(role), timeout_s=30.0)
        wait_until("it passes with new processes", lambda: passes(two, 5), timeout_s=30.0)
        # A rule more changes nothing for the others; the worker has no say, and is not asked.
        reload(two.left, spd(left=True, more='[[rules]]\nname = "x"\naction = "bypass"\nremote = ["192.0.2.0/24"]\n'))
        assert passes(two, 5)
        # Everything begins anew, sequence numbers too, and only on one side.
        two.left.stop()
        two.left.start(spd(left=True))
        wait_until("it passes after a restart", lambda: passes(two, 5), timeout_s=30.0)
        # Another key under the same SPI: nothing passes until both have it.
        other_key = "3d" * 64
        reload(two.left, spd(left=True, to_right=other_key))
        assert not passes(two)
        reload(two.right, spd(left=False, to_right=other_key))
        wait_until("it passes with the new key", lambda: passes(two, 5), timeout_s=30.0)
        two.capture.stop()
        two.capture.assert_nothing_clear()
        assert not two.capture.of_kind(Kind.IKE)
        assert two.capture.of_kind(Kind.ESP)
        (tunnel,) = two.left.status()["tunnels"]
        assert (tunnel["peer"], tunnel["state"]) == ("other", "manual")
        assert [one["rule"] for one in tunnel["children"]] == ["nets"]
        for instance in (two.left, two.right):
            assert other_key not in instance.log()
