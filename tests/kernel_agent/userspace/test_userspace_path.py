"""The agent's side of the user-space data path: kernel objects in a namespace, and what the process is told."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from ipc import messages as m
from ipc.messages import KernelRule
from ipc.types import Action, Direction, PortRange
from kernel_agent import clean
from kernel_agent.data_path import DataPathError, Listener
from kernel_agent.userspace.userspace_path import UserspacePath
from tests.kernel_agent.namespace import (
    CLEAR_PORT,
    add_tun,
    clear_packet_arrives,
    enter_clear_packet,
    host_and_peer,
    nft,
)
from tests.kernel_agent.values import name_of, policy, rule, sa
from tests.lab.namespaces import Namespace

pytestmark = pytest.mark.root


@dataclass(slots=True, kw_only=True)
class Host:
    """The host under test, its peer, and what was said to the process (while it is there) and to the agent."""

    namespace: Namespace
    peer: Namespace
    path: UserspacePath
    there: bool = True
    said: list[object] = field(default_factory=list)
    expired: list[m.Expire] = field(default_factory=list)

    def send(self, message: object) -> bool:
        if self.there:
            self.said.append(message)
        return self.there

    def answer(self, message: object) -> None:
        self.path.handlers()[type(message)](message, b"")

    def placed(self) -> list[m.PlaceSa]:
        return [message for message in self.said if isinstance(message, m.PlaceSa)]

    def writes(self) -> int:
        return self.path.xfrm.writes + self.path.route.writes + self.path.netfilter.writes


@pytest.fixture
def host() -> Iterator[Host]:
    with host_and_peer() as (namespace, peer):
        add_tun(namespace)
        hosts: list[Host] = []
        path = namespace.call(lambda: UserspacePath("ipsec0", lambda message: hosts[0].send(message)))
        hosts.append(Host(namespace=namespace, peer=peer, path=path))
        path.start(Listener(on_acquire=lambda _: None, on_expire=hosts[0].expired.append, on_peer_moved=lambda _: None))
        yield hosts[0]
        path.leave()


def test_kernel_objects_appear_and_vanish(host: Host) -> None:
    host.path.install_policy(policy(rule(1)))
    rules = host.namespace.ip("rule")
    assert "4500:\tfrom all fwmark 0x20000000/0x20000000 goto 5499 proto 73" in rules
    assert "4501:\tfrom 10.1.0.0/24 to 10.2.0.0/24 lookup 4500 proto 73" in rules
    assert "4501:\tfrom 0.0.0.0 to 10.2.0.0/24 lookup 4500 proto 73" in rules
    assert "5499:\tfrom all nop proto 73" in rules
    assert "10.2.0.0/24 dev ipsec0 proto 73 scope link src 10.1.0.1" in host.namespace.ip(
        "route", "show", "table", "4500"
    )
    # A socket without a source address gets one that is protected.
    assert "dev ipsec0 table 4500 src 10.1.0.1" in host.namespace.ip("route", "get", "10.2.0.7")
    assert "dev wire0" in host.namespace.ip("route", "get", "10.2.0.7", "mark", "0x20000000")
    assert "mtu 1400" in host.namespace.ip("link", "show", "ipsec0")
    assert 'iif "ipsec0" meta mark set meta mark | 0x10000000' in nft(host.namespace)
    assert 'iif != "ipsec0" meta mark set meta mark & 0xefffffff' in nft(host.namespace)
    lines = host.namespace.call(clean.remove_everything).lines()
    assert lines == ["removed 8 policies", "removed 4 routing rules", "removed 2 routes", "removed 1 nftables tables"]
    assert "proto 73" not in host.namespace.ip("rule")
    assert nft(host.namespace) == ""
    assert host.namespace.ip("xfrm", "policy") == ""


def test_a_second_commit_writes_nothing(host: Host) -> None:
    rules = (rule(1), rule(2, Action.BYPASS, protocol=6), rule(3, local=("fd01::/64",), remote=("fd02::/64",)))
    host.path.install_policy(policy(*rules))
    written = host.writes()
    host.path.install_policy(policy(*rules, generation=2))
    assert host.writes() == written


def test_foreign_rules_and_tables_stay(host: Host) -> None:
    host.namespace.ip("rule", "add", "from", "10.66.0.0/16", "lookup", "66", "priority", "4550")
    host.namespace.run("nft", "add", "table", "inet", "other")
    host.path.install_policy(policy(rule(1)))
    host.namespace.call(clean.remove_everything)
    assert "4550:\tfrom 10.66.0.0/16 lookup 66" in host.namespace.ip("rule")
    assert nft(host.namespace).strip() == "table inet other {\n}"


def test_protected_traffic_never_leaves_or_enters_in_clear(host: Host) -> None:
    assert clear_packet_arrives(host.namespace, host.peer)
    assert enter_clear_packet(host.peer, host.namespace)
    host.path.install_policy(policy(rule(1)))
    assert not clear_packet_arrives(host.namespace, host.peer)
    assert not enter_clear_packet(host.peer, host.namespace)
    host.namespace.ip("link", "del", "ipsec0")
    assert not clear_packet_arrives(host.namespace, host.peer)
    assert not enter_clear_packet(host.peer, host.namespace)
    host.namespace.run("nft", "delete", "table", "inet", "ipsecd")
    assert not enter_clear_packet(host.peer, host.namespace)


def test_a_bypass_before_a_protect_rule_goes_past_the_tun(host: Host) -> None:
    port = PortRange(first=CLEAR_PORT, last=CLEAR_PORT)
    host.path.install_policy(policy(rule(1, Action.BYPASS, protocol=17, remote_port=port), rule(2)))
    assert clear_packet_arrives(host.namespace, host.peer)
    later = rule(3, Action.BYPASS, protocol=17, remote_port=port)
    host.path.install_policy(policy(rule(2), later, generation=2))
    assert not clear_packet_arrives(host.namespace, host.peer)


def test_a_protect_rule_for_an_interface_leaves_what_comes_in_elsewhere_alone(host: Host) -> None:
    host.namespace.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    host.namespace.call(lambda: host.path.install_policy(policy(replace(rule(1), interface="wire0"))))
    assert not clear_packet_arrives(host.namespace, host.peer)
    assert not enter_clear_packet(host.peer, host.namespace)
    host.namespace.call(lambda: host.path.install_policy(policy(replace(rule(1), interface="other0"), generation=2)))
    assert enter_clear_packet(host.peer, host.namespace)
    assert not clear_packet_arrives(host.namespace, host.peer)  # led to the TUN before it could be known
    with pytest.raises(DataPathError, match="rule rule-1: interface eth7 does not exist"):
        host.namespace.call(lambda: host.path.install_policy(policy(replace(rule(1), interface="eth7"), generation=3)))


@pytest.mark.timeout(300)
def test_of_ten_thousand_rules_a_reload_touches_those_that_change(host: Host) -> None:
    rules = [rule(n + 1, local=("20.0.0.0/8",), remote=(f"40.{n >> 8}.{n & 255}.0/24",)) for n in range(10_000)]

    def enforce(changed: list[KernelRule]) -> tuple[int, int]:
        """How many messages it takes that change something: to policies, to rules and routes."""
        before = host.path.xfrm.writes, host.path.route.writes
        host.path.install_policy(policy(*changed))
        return host.path.xfrm.writes - before[0], host.path.route.writes - before[1]

    enforce(rules)
    host.namespace.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    assert "dev ipsec0 table" in host.namespace.ip("route", "get", "40.3.7.9", "from", "20.3.7.1", "iif", "wire0")
    assert enforce(rules) == (0, 0)
    changed = [*rules[:5000], rule(5001, local=("20.0.0.0/8",), remote=("198.51.100.0/24",)), *rules[5001:]]
    assert enforce(changed) == (2 * 6, 2 * 2)  # as many new ones as old ones
    inserted = [*changed[:70], rule(20_000, Action.DISCARD, remote=("203.0.113.0/24",)), *changed[70:]]
    assert enforce([replace(one, position=place) for place, one in enumerate(inserted)]) == (3, 0)
    lines = host.namespace.call(clean.remove_everything).lines()
    assert lines[1:] == ["removed 3 routing rules", "removed 20000 routes", "removed 1 nftables tables"]
    assert host.namespace.ip("rule").count("proto 73") == 0


def test_a_missing_tun_device_is_named(host: Host) -> None:
    host.namespace.ip("link", "del", "ipsec0")
    with pytest.raises(DataPathError, match="the TUN device ipsec0 does not exist"):
        host.path.install_policy(policy(rule(1)))


def test_a_refused_route_puts_the_policies_back(host: Host) -> None:
    host.path.install_policy(policy(rule(1)))
    before = (host.namespace.ip("xfrm", "policy"), host.namespace.ip("rule"))
    # Somebody else's route in our table: the kernel refuses ours.
    host.namespace.ip("route", "add", "10.3.0.0/24", "dev", "wire0", "table", "4500", "proto", "99")
    with pytest.raises(DataPathError, match="File exists"):
        host.path.install_policy(policy(rule(2, remote=("10.3.0.0/24",)), generation=2))
    after = (host.namespace.ip("xfrm", "policy"), host.namespace.ip("rule"))
    assert [sorted(text.splitlines()) for text in after] == [sorted(text.splitlines()) for text in before]


def test_the_process_is_told_everything_again_when_it_connects(host: Host) -> None:
    done: list[str] = []
    host.path.install_policy(policy(rule(1)))
    host.path.add_sas((sa(Direction.IN, 0x1000), sa(Direction.OUT, 0x2000)), done.append)
    (first,) = host.placed()
    assert [placed.fresh for placed in first.sas] == [True, True]
    assert done == []
    host.answer(m.SaAdded(request_id=first.request_id))
    assert done == [""]
    host.said.clear()
    host.path.on_connected(b"data_path")
    assert [type(message) for message in host.said] == [
        m.BeginPolicy,
        m.AddPolicy,
        m.CommitPolicy,
        m.PlaceSa,
        m.PlaceSa,
    ]
    again = [placed for message in host.placed() for placed in message.sas]
    assert [(placed.sa, placed.slot) for placed in again] == [(placed.sa, placed.slot) for placed in first.sas]
    assert not any(placed.fresh for placed in again)


def test_sas_for_a_process_that_is_away_wait_for_it(host: Host) -> None:
    done: list[str] = []
    host.there = False
    host.path.add_sas((sa(),), done.append)
    assert done == []
    host.there = True
    host.path.on_connected(b"data_path")
    (placing,) = host.placed()
    assert placing.sas[0].fresh
    host.answer(m.SaAdded(request_id=placing.request_id))
    assert done == [""]


def test_a_refused_sa_is_forgotten(host: Host) -> None:
    done: list[str] = []
    host.path.add_sas((sa(),), done.append)
    host.answer(m.SaRefused(request_id=host.placed()[0].request_id, reason="no"))
    assert done == ["no"]
    assert host.path.installed_sas() == ()


def test_a_new_agent_finds_the_slot_of_a_live_sa_again(host: Host) -> None:
    host.path.add_sas((sa(),), lambda _: None)
    slot = host.placed()[0].sas[0].slot
    restarted = host.namespace.call(lambda: UserspacePath("ipsec0", host.send))
    host.said.clear()
    restarted.restore_sas((sa(),), lambda _name, _reason: None)
    restarted.leave()
    (placing,) = host.placed()
    assert (placing.sas[0].slot, placing.sas[0].fresh) == (slot, False)
    # Had the slot been taken when the SA was new, it is in one of the next.
    restarted.handlers()[m.SaRefused](m.SaRefused(request_id=placing.request_id, reason="other keys"), b"")
    assert host.placed()[1].sas[0].slot == (slot + 1) % 65536


def test_an_sa_whose_counters_are_lost_is_told(host: Host) -> None:
    lost: list[m.SaName] = []
    host.path.restore_sas((sa(),), lambda name, _reason: lost.append(name))
    answered = 0
    while len(host.placed()) > answered:
        answered += 1
        host.answer(m.SaRefused(request_id=host.placed()[-1].request_id, reason="other keys"))
    assert lost == [name_of(sa())]
    assert host.path.installed_sas() == ()


def test_a_process_that_can_not_go_on_with_an_sa_expires_it(host: Host) -> None:
    host.path.add_sas((sa(),), lambda _: None)
    host.answer(m.SaAdded(request_id=host.placed()[0].request_id))
    host.path.on_connected(b"data_path")
    while not host.expired:
        host.answer(m.SaRefused(request_id=host.placed()[-1].request_id, reason="other keys"))
    assert host.expired == [m.Expire(sa=name_of(sa()), hard=True)]


def test_a_hard_expiry_frees_the_slot(host: Host) -> None:
    host.path.add_sas((sa(),), lambda _: None)
    host.answer(m.Expire(sa=name_of(sa()), hard=True))
    assert host.expired == [m.Expire(sa=name_of(sa()), hard=True)]
    assert host.path.installed_sas() == ()
