"""What the daemon is for, on running instances: a policy becomes rules in the kernel, and a packet becomes SAs."""

import pytest

from ipc.roles import Role
from tests.lab.capture import Kind
from tests.lab.namespaces import Namespace
from tests.lab.ping import ping
from tests.lab.spd import IPV4
from tests.lab.two import two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"


def udp_ports(namespace: Namespace) -> set[int]:
    """The UDP ports on which somebody listens, from proc(5)."""
    text = namespace.run("cat", "/proc/net/udp", "/proc/net/udp6")
    words = [line.split() for line in text.splitlines() if ":" in line]
    return {int(line[1].rpartition(":")[2], 16) for line in words if line[0] != "sl"}


def test_t1_t16_t17_t18_t19_t20_t21_t23_a_packet_that_the_policy_protects_has_sas_made_with_the_right_peer() -> None:
    wrong = IPV4.right_spd(auth='auth = "psk"\npsk = "some other key, which is none of left\'s, 1d7a"')
    with two_instances(right_spd=wrong) as two:
        left = two.left
        # T1: one system of the policy's manager, IKE and the kernel's side. T23: it listens.
        assert {Role.POLICY_LOADER, Role.IKE_WORKER, Role.KERNEL_AGENT} <= {one.role for one in left.roles()}
        assert {500, 4500} <= udp_ports(two.wire.left)
        # T16, T17: what the policy says is in the kernel, which enforces it before any SA stands.
        policies = two.wire.left.ip("xfrm", "policy")
        assert "src 10.1.0.0/24 dst 10.2.0.0/24" in policies
        assert "src 10.2.0.0/24 dst 10.1.0.0/24" in policies
        assert left.tunnels() == []
        # T18, T21: the packet makes the kernel ask, and IKE answers. T19: a peer that proves nothing gets none.
        assert ping(two.wire.left, RIGHT, source=LEFT, wait_s=2.0).received == 0
        wait_until("the peer is refused", lambda: "AUTHENTICATION_FAILED" in left.log() + two.right.log(), timeout_s=60)
        assert [one.children for one in (*left.tunnels(), *two.right.tunnels())] == []
        # T20: with the same key on both sides traffic keys are agreed, and the traffic goes by them.
        two.right.write_spd(IPV4.right_spd())
        two.right.ctl("reload")
        wait_until(
            "a ping is answered",
            lambda: ping(two.wire.left, RIGHT, source=LEFT, wait_s=2.0).received == 1,
            timeout_s=90,
        )
        assert left.wait_for_tunnel().children
        two.capture.stop()
        two.capture.assert_nothing_clear()
        assert two.capture.of_kind(Kind.IKE)
        assert two.capture.of_kind(Kind.ESP, Kind.ESP_IN_UDP)
