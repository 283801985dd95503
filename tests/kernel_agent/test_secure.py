"""Secure mode in the kernel: the default policies, set and read in a namespace of our own (T24 to T26)."""

import sys
from pathlib import Path

import pytest

from kernel_agent import secure
from kernel_agent.xfrm.constants import NETLINK_XFRM
from kernel_agent.xfrm.netlink import RequestSocket
from kernel_agent.xfrm.policies import PolicyPlan, exempt
from kernel_agent.xfrm.policy_table import PolicyTable
from tests.kernel_agent.namespace import clear_packet_arrives, enter_clear_packet, host_and_peer
from tests.lab.namespaces import Namespace
from tests.lab.ping import ping
from tests.lab.waiting import wait_until


def agent(namespace: Namespace, word: str) -> str:
    """Runs the program; never in the initial namespace, which `Namespace` refuses."""
    return namespace.run("env", f"PYTHONPATH={Path(__file__).parents[2]}", sys.executable, "-m", *command(word)).strip()


def command(word: str) -> tuple[str, str]:
    return "kernel_agent.secure", word


def test_what_is_not_asked_properly_is_refused() -> None:
    assert secure.main([]) == 2
    assert secure.main(["of"]) == 2
    assert secure.main(["on", "off"]) == 2


def test_a_mixture_is_told_in_full() -> None:
    mixed = secure.Defaults(inbound=secure.BLOCK, forwarded=secure.ACCEPT, outbound=secure.ACCEPT)
    assert str(mixed) == "in block, fwd accept, out accept"


@pytest.mark.root
def test_t37_secure_mode_blocks_every_direction_and_goes_without_a_trace() -> None:
    with host_and_peer() as (host, peer):
        assert agent(host, "show") == "off"
        assert clear_packet_arrives(host, peer)
        assert enter_clear_packet(peer, host)
        assert agent(host, "on") == "on"
        assert agent(host, "on") == "on"
        assert "in: block fwd: block out: block" in " ".join(host.ip("xfrm", "policy", "getdefault").split())
        assert not clear_packet_arrives(host, peer)
        assert not enter_clear_packet(peer, host)
        assert agent(host, "off") == "off"
        assert host.ip("xfrm", "policy") == ""
        assert clear_packet_arrives(host, peer)
        assert enter_clear_packet(peer, host)


@pytest.mark.root
def test_secure_mode_spares_loopback_and_neighbour_discovery_beside_policies_of_ours_with_the_same_selectors() -> None:
    with host_and_peer() as (host, peer):

        def add_and_remove_our_own() -> None:
            requests = RequestSocket(NETLINK_XFRM)
            try:
                table = PolicyTable(requests)
                table.install(PolicyPlan(exempt=tuple(exempt()), ruled=()))
                installed.append(len(table.present()))
                table.remove_all()
            finally:
                requests.close()

        installed: list[int] = []
        agent(host, "on")
        host.call(add_and_remove_our_own)
        assert installed == [len(list(exempt()))]
        for own in ("127.0.0.1", "10.1.0.1", "::1"):
            assert ping(host, own).lost == 0
        assert ping(host, "fd01::1", wait_s=0.5).lost == 1, "the kernel can't tell it from a packet of the wire"
        assert ping(peer, "fd09::1", wait_s=0.5).lost == 1
        assert ping(peer, "10.9.0.1", wait_s=0.5).lost == 1
        wait_until("the peer knows the host", lambda: "lladdr" in peer.ip("neigh", "show", "fd09::1"))
        agent(host, "off")
        assert ping(peer, "fd09::1").lost == 0
