"""The log of packets that no rule matches (T9): which of them, with what, how many, and switched while ipsecd runs."""

import re

import pytest

from ipc.roles import Role
from kernel_agent.unmatched import BURST
from tests.lab.instance import Instance
from tests.lab.namespaces import End, Namespace, gateways, join
from tests.lab.operator import operate
from tests.lab.ping import ping
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.root

SPD = """\
[setup]
interfaces = ["wire0"]
unmatched = "{unmatched}"

[[rules]]
name = "known"
action = "bypass"
protocol = "udp"
remote = ["10.9.0.0/24", "fd09::/64"]
local_port = "7000-7099"

[[rules]]
name = "known-the-other-way"
action = "bypass"
protocol = "udp"
remote_port = 7100

[[rules]]
name = "pings"
action = "bypass"
protocol = "icmp"
"""
LINE = re.compile(r"no rule matches: (.*)")


def logged(instance: Instance) -> list[str]:
    return LINE.findall(instance.log())


def send(namespace: Namespace, source: str, destination: str, *ports: int) -> None:
    sender = namespace.udp_socket(source, 1234)
    with sender:
        for port in ports:
            sender.sendto(b"x", (destination, port))


def test_t9_unmatched_packets_are_logged_with_all_that_tells_them_and_matched_ones_are_not() -> None:
    with gateways() as wire, Namespace("client") as client, Instance(wire.left) as left:
        join(
            End(namespace=wire.left, interface="lan0", addresses=("10.3.0.1/24", "fd03::1/64")),
            End(namespace=client, interface="lan0", addresses=("10.3.0.2/24", "fd03::2/64")),
        )
        client.ip("route", "add", "default", "via", "10.3.0.1")
        wire.left.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        left.ctl("start", "--log-unmatched", "--spd", str(left.write_spd(SPD.format(unmatched="bypass"))))

        def wait_for(line: str) -> None:
            wait_until(f"it is logged: {line}", lambda: line in logged(left), timeout_s=30)

        send(wire.right, "10.9.0.2", "10.9.0.1", 7000, 7050, 7099, 8888)
        wait_for("in, in by wire0, udp, 10.9.0.2 port 1234 to 10.9.0.1 port 8888")
        send(wire.right, "fd09::2", "fd09::1", 7001, 8888)
        wait_for("in, in by wire0, udp, fd09::2 port 1234 to fd09::1 port 8888")
        send(wire.left, "10.9.0.1", "10.9.0.2", 7100, 8888)
        wait_for("out, out by wire0, udp, 10.9.0.1 port 1234 to 10.9.0.2 port 8888")
        send(client, "10.3.0.2", "10.9.0.2", 7100, 8888)
        wait_for("fwd, in by lan0, udp, 10.3.0.2 port 1234 to 10.9.0.2 port 8888")
        assert ping(wire.left, "10.9.0.2").lost == 0
        assert ping(wire.left, "fd09::2").lost == 0
        wait_for("out, out by wire0, icmpv6 type 128 code 0, fd09::1 to fd09::2")
        udp = {line.rpartition(" ")[2] for line in logged(left) if "udp" in line and "port 1234 to" in line}
        assert udp == {"8888"}, "no packet that a rule matches"
        assert not [line for line in logged(left) if "icmp type" in line or "icmpv6 type 13" in line]

        before = len(logged(left))
        send(wire.right, "10.9.0.2", "10.9.0.1", *range(10_000, 13_000))
        wait_until("some are logged", lambda: len(logged(left)) >= before + BURST // 2, timeout_s=30)
        assert len(logged(left)) - before < 1500, "three thousand at once are not all logged"

        assert operate(left, "log-unmatched", "off").lines == ["packets that no rule matches are not logged"]
        wait_until("nftables looks no more", lambda: "ipsecd_log" not in wire.left.run("nft", "list", "tables"))
        send(wire.right, "10.9.0.2", "10.9.0.1", 9999)
        assert operate(left, "log-unmatched", "on").code == 0
        wait_until("nftables looks again", lambda: "ipsecd_log" in wire.left.run("nft", "list", "tables"))
        left.write_spd(SPD.format(unmatched="discard"))
        assert operate(left, "reload", "--cut-me-off").code == 0
        send(wire.right, "10.9.0.2", "10.9.0.1", 9998)
        wait_for("in, in by wire0, udp, 10.9.0.2 port 1234 to 10.9.0.1 port 9998")
        send(client, "10.3.0.2", "10.9.0.2", 9997)
        wait_for("fwd, in by lan0, udp, 10.3.0.2 port 1234 to 10.9.0.2 port 9997")
        assert not [line for line in logged(left) if line.endswith("port 9999")], "it was off then"
        left.wait_for_successor(left.kill(Role.KERNEL_AGENT), timeout_s=30)
        wait_until("nftables looks for the new agent", lambda: "ipsecd_log" in wire.left.run("nft", "list", "tables"))
        send(wire.right, "10.9.0.2", "10.9.0.1", 9996)
        wait_for("in, in by wire0, udp, 10.9.0.2 port 1234 to 10.9.0.1 port 9996")
        left.stop()
        assert "ipsecd_log" not in wire.left.run("nft", "list", "tables")
