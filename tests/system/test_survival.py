"""Whatever dies, the traffic goes on or stops; it never goes in clear."""

import pytest

from ipc.roles import Role
from tests.lab.capture import Kind
from tests.lab.instance import Instance, NetworkState, leftovers
from tests.lab.namespaces import gateways
from tests.lab.ping import RunningPing, ping
from tests.lab.spd import IPV4, Pair
from tests.lab.two import Two, two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
SETTLED = Pair(peer_settings='liveness = "1s"')


def up(two: Two) -> None:
    """Brings the tunnel up."""
    wait_until("the tunnel is up", lambda: ping(two.wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1)


def nothing_clear(two: Two) -> None:
    """Stops the capture: nothing was in clear."""
    two.capture.stop()
    two.capture.assert_nothing_clear()


def all_up(instance: Instance) -> bool:
    """Whether the supervisor has heard from every role."""
    return all(one["state"] == "up" for one in instance.status()["roles"])


@pytest.mark.parametrize("role", [Role.IKE_WORKER, Role.KERNEL_AGENT, Role.POLICY_LOADER, Role.DATA_PATH])
def test_a_role_may_be_killed_under_traffic(role: Role) -> None:
    with two_instances(SETTLED) as two:
        up(two)
        if two.left.role(role) is None:
            pytest.skip(f"no {role} with this kernel")
        before = [two.left.wait_for_tunnel(), two.right.wait_for_tunnel()]
        pings = RunningPing(two.wire.left, RIGHT, source=LEFT, count=500, interval_s=0.01, wait_s=3.0)
        for instance in (two.left, two.right):
            instance.wait_for_successor(instance.kill(role))
        result = pings.finish()
        assert result.lost == 0, result
        assert [two.left.wait_for_tunnel(), two.right.wait_for_tunnel()] == before
        for instance in (two.left, two.right):
            wait_until("all roles are up", lambda one=instance: all_up(one))
        nothing_clear(two)


def test_the_worker_that_takes_over_uses_the_next_message_id() -> None:
    with two_instances(SETTLED) as two:
        up(two)
        victim = two.left.kill(Role.IKE_WORKER)
        two.left.wait_for_successor(victim)
        seen = len(two.capture.frames)

        def answers() -> list[int]:
            return [
                frame.ike.message_id
                for frame in two.capture.frames[seen:]
                if frame.ike and frame.ike.response and frame.sender == "right"
            ]

        wait_until("the peer answers the new worker twice", lambda: len(set(answers())) >= 2)
        earlier = [frame.ike.message_id for frame in two.capture.frames[:seen] if frame.ike and frame.sender == "left"]
        assert min(answers()) in (max(earlier), max(earlier) + 1)
        assert sorted(set(answers())) == list(range(min(answers()), max(answers()) + 1))


def test_a_worker_killed_again_and_again_comes_back() -> None:
    with two_instances(SETTLED) as two:
        up(two)
        pings = RunningPing(two.wire.left, RIGHT, source=LEFT, count=600, interval_s=0.01, wait_s=3.0)
        for _ in range(3):
            two.left.wait_for_successor(two.left.kill(Role.IKE_WORKER))
        assert pings.finish().lost == 0
        nothing_clear(two)


def test_a_worker_killed_in_the_middle_of_a_negotiation_does_not_hinder_the_next() -> None:
    with two_instances(SETTLED) as two:
        pings = RunningPing(two.wire.left, RIGHT, source=LEFT, count=400, interval_s=0.01, wait_s=3.0)
        two.capture.wait_for(Kind.IKE)
        two.left.kill(Role.IKE_WORKER)
        pings.finish()
        up(two)
        nothing_clear(two)


def test_all_roles_killed_at_once_come_back() -> None:
    with two_instances(SETTLED) as two:
        up(two)
        victims = [one for one in two.left.roles() if one.role is not Role.SUPERVISOR]
        for victim in victims:
            two.left.kill(victim.role)
        for victim in victims:
            two.left.wait_for_successor(victim)
        up(two)
        nothing_clear(two)


def test_the_data_path_dead_under_traffic_leaks_nothing() -> None:
    with two_instances(SETTLED) as two:
        up(two)
        if two.left.role(Role.DATA_PATH) is None:
            pytest.skip("the kernel is the data path")
        pings = RunningPing(two.wire.left, RIGHT, source=LEFT, count=300, interval_s=0.01, wait_s=3.0)
        for _ in range(2):
            two.left.wait_for_successor(two.left.kill(Role.DATA_PATH))
        pings.finish()
        up(two)
        nothing_clear(two)


def test_with_the_supervisor_dead_nothing_goes_in_clear_and_a_start_mends_it() -> None:
    with two_instances(SETTLED) as two:
        up(two)
        two.left.die()
        result = ping(two.wire.left, RIGHT, source=LEFT, count=20, interval_s=0.02, wait_s=0.5)
        if two.right.role(Role.DATA_PATH) is not None:
            assert result.received == 0
        two.left.start(SETTLED.left_spd())
        up(two)
        nothing_clear(two)


def test_stop_cleans_up_after_a_supervisor_that_was_killed() -> None:
    with gateways() as wire:
        before = NetworkState.of(wire.left)
        with Instance(wire.left) as instance:
            instance.start(IPV4.left_spd())
            instance.die()
            said = instance.ctl("stop", check=False)
            assert "not running" in said
            assert leftovers(instance, before) == []


def test_stop_leaves_nothing_and_a_second_start_finds_all_as_at_first() -> None:
    with gateways() as wire:
        before = NetworkState.of(wire.left)
        with Instance(wire.left) as instance:
            instance.start(IPV4.left_spd())
            for _ in range(2):
                instance.stop()
                assert leftovers(instance, before) == []
                instance.start(IPV4.left_spd())
            assert NetworkState.of(wire.left) != before
