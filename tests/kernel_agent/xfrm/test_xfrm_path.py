"""Policies in a real kernel, in a namespace of their own. No ESP is needed for any of it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import pytest

from ipc.loop import Loop
from ipc.messages import Acquire, KernelRule
from ipc.types import Action, Direction, Mode, PortRange
from kernel_agent import clean, probe
from kernel_agent.data_path import DataPathError, Listener
from kernel_agent.xfrm.constants import NETLINK_XFRM
from kernel_agent.xfrm.messages import InstalledPolicy
from kernel_agent.xfrm.netlink import RequestSocket
from kernel_agent.xfrm.policies import PRIORITIES_PER_RULE, flows_of, kernel_policies, selector_of
from kernel_agent.xfrm.policy_table import PolicyTable
from kernel_agent.xfrm.xfrm_path import XfrmPath
from tests.kernel_agent.namespace import CLEAR_PORT, clear_packet_arrives, enter_clear_packet, host_and_peer, nft
from tests.kernel_agent.values import policy, rule
from tests.lab.namespaces import LabError, Namespace

pytestmark = pytest.mark.root

FOREIGN = (
    "xfrm", "policy", "add", "src", "10.77.0.0/24", "dst", "10.78.0.0/24", "dir", "out", "priority", "7",
    "tmpl", "src", "10.9.0.1", "dst", "10.9.0.9", "proto", "esp", "reqid", "77", "mode", "tunnel",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The host under test and its peer; acquires that came stand in the list."""

    namespace: Namespace
    peer: Namespace
    loop: Loop
    path: XfrmPath
    acquires: list[Acquire]


@pytest.fixture
def host() -> Iterator[Host]:
    with host_and_peer() as (namespace, peer):
        loop = Loop()
        path = namespace.call(lambda: XfrmPath(loop, drop_leftovers=clean.Removed))
        acquires: list[Acquire] = []
        listener = Listener(on_acquire=acquires.append, on_expire=lambda _: None, on_peer_moved=lambda _: None)
        namespace.call(lambda: path.start(listener))
        yield Host(namespace=namespace, peer=peer, loop=loop, path=path, acquires=acquires)
        path.leave()


def present(host: Host) -> list[InstalledPolicy]:
    """Our policies, as the kernel lists them."""
    requests = host.namespace.call(lambda: RequestSocket(NETLINK_XFRM))
    try:
        return PolicyTable(requests).present()
    finally:
        requests.close()


def test_what_is_installed_reads_back_equal(host: Host) -> None:
    rules = (
        rule(1, Action.BYPASS, protocol=6, local_port=PortRange(first=22, last=22)),
        rule(2, Action.DISCARD, protocol=58, local=("fd01::/64",), remote=("fd02::/64",)),
        rule(3, remote_port=PortRange(first=1000, last=1999), protocol=17),
        rule(4, local=("10.1.0.0/24", "fd01::/64"), remote=("10.2.0.0/24", "10.3.0.0/16", "fd02::/64")),
    )
    host.path.install_policy(policy(*rules))
    wanted = kernel_policies(rules)
    found = sorted(present(host), key=lambda one: one.policy.priority)
    ranks = [one.policy.priority // PRIORITIES_PER_RULE for one in found]
    assert ranks == sorted(ranks)
    assert {replace(one.policy, priority=one.policy.priority % PRIORITIES_PER_RULE) for one in found} == {
        *wanted.exempt,
        *(policy for policies in wanted.ruled for policy in policies),
        *(replace(policy, priority=policy.priority % PRIORITIES_PER_RULE) for policy in wanted.behind),
    }


def test_a_second_commit_of_the_same_policy_writes_nothing(host: Host) -> None:
    rules = [rule(number, remote=(f"10.{number}.0.0/16",)) for number in range(1, 50)]
    host.path.install_policy(policy(*rules))
    written = host.path.requests.writes
    assert written >= 3 * len(rules)
    host.path.install_policy(policy(*rules, generation=2))
    assert host.path.requests.writes == written


def test_a_reload_touches_only_what_differs_and_keeps_indexes(host: Host) -> None:
    rules = [rule(number, remote=(f"10.{number}.0.0/16",)) for number in range(1, 50)]
    host.path.install_policy(policy(*rules))
    before = {one.policy.key: one.index for one in present(host)}
    written = host.path.requests.writes
    host.path.install_policy(policy(*rules[1:], generation=2))
    assert host.path.requests.writes == written + 3
    after = {one.policy.key: one.index for one in present(host)}
    assert len(after) == len(before) - 3
    assert after.items() <= before.items()


def test_a_change_among_a_thousand_rules_sends_messages_for_that_rule_only(host: Host) -> None:
    rules = [rule(n + 1, remote=(f"10.{n >> 8}.{n & 255}.0/24",)) for n in range(1000)]
    written: list[int] = []

    def enforce(changed: list[KernelRule]) -> int:
        """How many messages it takes that change something. Positions follow from the order."""
        placed = [replace(one, position=place) for place, one in enumerate(changed)]
        written.append(host.path.requests.writes)
        host.path.install_policy(policy(*placed))
        return host.path.requests.writes - written[-1]

    enforce(rules)
    assert enforce(rules) == 0
    middle = [*rules[:500], rule(2000, Action.DISCARD, protocol=17), *rules[500:]]
    assert enforce(middle) == 3  # out, in, forward: not the five hundred behind it
    changed = [*middle[:300], replace(middle[300], peer_address=middle[300].local_address), *middle[301:]]
    assert enforce(changed) == 3
    moved = [*changed[1:700], changed[0], *changed[700:]]
    assert enforce(moved) == 3
    assert enforce([*moved[:10], *moved[11:]]) == 3
    priorities = {one.policy.selector: one.policy.priority for one in present(host) if one.policy.direction == 1}
    order = [rule(1, remote=("10.0.0.0/24",)), rule(2000, protocol=17)]
    first, second = (priorities[selector_of(next(flows_of(one)), Direction.OUT)] for one in order)
    assert second < first  # the first rule was moved behind the new one


def test_foreign_policies_and_states_stay(host: Host) -> None:
    host.namespace.ip(*FOREIGN)
    foreign = host.namespace.ip("xfrm", "policy")
    host.path.install_policy(policy(rule(1)))
    host.path.install_policy(policy(rule(2, remote=("10.4.0.0/24",)), generation=2))
    assert "10.4.0.0/24" in host.namespace.ip("xfrm", "policy")
    removed = host.namespace.call(clean.remove_everything)
    assert removed.lines() == ["removed 5 policies"]
    assert host.namespace.ip("xfrm", "policy") == foreign
    assert host.namespace.call(clean.remove_everything).lines() == []


def test_a_foreign_policy_in_the_way_refuses_the_whole_policy_and_changes_nothing(host: Host) -> None:
    host.path.install_policy(policy(rule(1)))
    host.namespace.ip(*FOREIGN)
    before = host.namespace.ip("xfrm", "policy")
    in_the_way = rule(2, local=("10.77.0.0/24",), remote=("10.78.0.0/24",))
    with pytest.raises(DataPathError, match=r"not ours is in the way: out 10\.77\.0\.0/24 to 10\.78\.0\.0/24"):
        host.path.install_policy(policy(rule(3, remote=("10.5.0.0/24",)), in_the_way, generation=2))
    assert sorted(host.namespace.ip("xfrm", "policy").splitlines()) == sorted(before.splitlines())


def test_a_policy_is_tried_aside_and_only_what_is_new(host: Host) -> None:
    sockets = host.namespace.call(probe.scratch_sockets)
    scratch = sockets.xfrm
    path = host.namespace.call(lambda: XfrmPath(host.loop, drop_leftovers=clean.Removed, scratch=scratch))
    rules = [rule(number, remote=(f"10.{number}.0.0/16",)) for number in range(1, 50)]
    path.install_policy(policy(*rules))
    before = host.namespace.ip("xfrm", "policy")
    written = path.requests.writes
    path.check_policy(policy(*rules, rule(50, remote=("10.50.0.0/16",)), generation=2))
    assert scratch.writes == 2 * 3  # there and away again
    assert path.requests.writes == written
    assert host.namespace.ip("xfrm", "policy") == before
    host.namespace.ip(*FOREIGN)
    in_the_way = rule(2, local=("10.77.0.0/24",), remote=("10.78.0.0/24",))
    with pytest.raises(DataPathError, match="not ours is in the way: out"):
        path.check_policy(policy(*rules, in_the_way, generation=2))
    with pytest.raises(DataPathError, match=r"refused the policy out 10\.1\.0\.0/24"):
        path.check_policy(policy(*rules, rule(51, remote=("10.51.0.0/16",), mode=cast(Mode, 9)), generation=2))
    assert PolicyTable(scratch).present() == []
    many = [rule(n + 100, remote=(f"10.{100 + (n >> 8)}.{n & 255}.0/24",)) for n in range(400)]
    written = scratch.writes
    path.check_policy(policy(*rules, *many, generation=2))
    assert scratch.writes == written + 2 * 3  # one of each shape
    with pytest.raises(DataPathError, match="refused the policy"):
        path.check_policy(policy(*rules, *many, rule(52, mode=cast(Mode, 9)), generation=2))
    path.leave()
    for opened in (sockets.xfrm, sockets.route):
        opened.close()


def test_a_packet_for_a_protect_rule_makes_an_acquire_and_is_not_sent(host: Host) -> None:
    host.path.install_policy(policy(rule(5)))
    sender = host.namespace.udp_socket("10.1.0.1", 4321)
    assert not clear_packet_arrives(host.namespace, host.peer)
    sender.close()
    deadline = time.monotonic() + 5
    while not host.acquires and time.monotonic() < deadline:
        host.loop.run_once(0.05)
    (acquire, *_) = host.acquires
    assert acquire.rule_id == 5
    assert acquire.acquire_id > 0
    assert str(acquire.packet_local.start_address) == "10.1.0.1"
    assert str(acquire.packet_remote) == f"10.2.0.1 proto 17 port {CLEAR_PORT}-{CLEAR_PORT}"


def test_the_first_matching_rule_decides(host: Host) -> None:
    port = PortRange(first=CLEAR_PORT, last=CLEAR_PORT)
    bypass = rule(1, Action.BYPASS, protocol=17, remote_port=port)
    discard = rule(2, Action.DISCARD)
    host.path.install_policy(policy(bypass, discard))
    assert clear_packet_arrives(host.namespace, host.peer)
    swapped = (rule(2, Action.DISCARD, position=0), rule(1, Action.BYPASS, protocol=17, remote_port=port, position=1))
    host.path.install_policy(policy(*swapped, generation=2))
    assert not clear_packet_arrives(host.namespace, host.peer)


def test_many_policies_are_quick_to_install_and_to_remove(host: Host) -> None:
    rules = [rule(n + 1, remote=(f"10.{n >> 8}.{n & 255}.0/24",)) for n in range(5000)]
    started = time.monotonic()
    host.path.install_policy(policy(*rules))
    installed_s = time.monotonic() - started
    assert host.namespace.call(clean.remove_everything).policies == 15002
    # With the kernel's own hash thresholds, or one send a policy, it is minutes.
    assert installed_s < 60


def on(one: KernelRule, interface: str) -> KernelRule:
    return replace(one, interface=interface)


def test_a_rule_for_an_interface_is_about_what_comes_in_and_goes_out_there(host: Host) -> None:
    namespace, peer = host.namespace, host.peer
    namespace.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    block = rule(1, Action.DISCARD)
    assert clear_packet_arrives(namespace, peer)
    assert enter_clear_packet(peer, namespace)
    namespace.call(lambda: host.path.install_policy(policy(on(block, "wire0"))))
    assert not clear_packet_arrives(namespace, peer)
    assert not enter_clear_packet(peer, namespace)
    namespace.call(lambda: host.path.install_policy(policy(on(block, "other0"), generation=2)))
    assert clear_packet_arrives(namespace, peer)
    assert enter_clear_packet(peer, namespace)
    namespace.call(lambda: host.path.install_policy(policy(on(rule(1, Action.BYPASS), "wire0"), rule(2), generation=3)))
    assert clear_packet_arrives(namespace, peer)
    assert enter_clear_packet(peer, namespace)
    namespace.call(lambda: host.path.install_policy(policy(rule(2), generation=4)))
    assert not enter_clear_packet(peer, namespace)
    assert "ipsecd" not in nft(namespace)


def test_an_interface_that_is_missing_is_named_with_its_rule(host: Host) -> None:
    reason = "rule rule-1: interface eth7 does not exist; there are: lo, wire0"
    with pytest.raises(DataPathError, match=reason):
        host.namespace.call(lambda: host.path.install_policy(policy(on(rule(1), "eth7"))))


def test_icmp_types_are_told_apart(host: Host) -> None:
    echo = PortRange(first=8 << 8, last=8 << 8 | 255)
    arguments = ("ping", "-c", "1", "-W", "1", "-I", "10.1.0.1", "10.2.0.1")
    host.path.install_policy(policy(rule(1, Action.DISCARD, protocol=1, local_port=echo)))
    with pytest.raises(LabError):
        host.namespace.run(*arguments)
    unreachable = PortRange(first=3 << 8, last=3 << 8 | 255)
    host.path.install_policy(policy(rule(1, Action.DISCARD, protocol=1, local_port=unreachable), generation=2))
    host.namespace.run(*arguments)


def test_neighbours_are_found_where_the_hosts_themselves_are_protected(host: Host) -> None:
    host.path.install_policy(policy(rule(1, local=("fd09::1/128",), remote=("fd09::2/128",))))
    host.peer.ip("-6", "neigh", "flush", "dev", "wire0")
    host.peer.run("ping", "-c", "1", "-W", "1", "fd09::1", check=False)
    assert "lladdr" in host.peer.ip("-6", "neigh", "show", "fd09::1")
