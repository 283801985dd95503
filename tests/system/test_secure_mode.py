"""Secure mode: what the kernel lets through with every process dead, after a stop, and when the mode has been left."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.capture import Frame, Kind
from tests.lab.instance import Instance
from tests.lab.namespaces import End, Gateways, LabError, Namespace, gateways, join
from tests.lab.operator import BYPASS_SPD, operate
from tests.lab.ping import ping
from tests.lab.spd import LEFT_ID, RIGHT_ID, Pair, Side
from tests.lab.two import Two, two_instances
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.root

BYPASS_PORT = 7777
OTHER_PORT = 8888
BYPASS_RULES = "".join(
    f"""
[[rules]]
name = "bypass-{side}"
action = "bypass"
protocol = "udp"
{side}_port = {BYPASS_PORT}
"""
    for side in ("local", "remote")
)
PAIR = Pair(
    left=Side(identity=LEFT_ID, outer="10.9.0.1", inner='10.1.0.0/24", "10.3.0.0/24", "fd01::/64", "fd03::/64'),
    right=Side(identity=RIGHT_ID, outer="10.9.0.2", inner='10.2.0.0/24", "fd02::/64'),
    unmatched="discard",
    rules_before=BYPASS_RULES,
)
LEFT = ("10.9.0.1", "10.1.0.1", "10.3.0.2", "fd09::1", "fd01::1", "fd03::2")
RIGHT = ("10.9.0.2", "10.2.0.1", "10.9.0.77", "fd09::2", "fd02::1", "fd09::77")
"""Outer and inner addresses, and some that no rule is about and nobody has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Two instances with tunnels up, and a client whose packets left forwards."""

    two: Two
    client: Namespace


@contextlib.contextmanager
def world() -> Iterator[World]:
    with two_instances(PAIR) as two, Namespace("client") as client:
        attach(client, two.wire)
        yield World(two=two, client=client)


def attach(client: Namespace, wire: Gateways) -> None:
    """Puts `client` behind left, which forwards for it."""
    left = End(namespace=wire.left, interface="lan0", addresses=("10.3.0.1/24", "fd03::1/64"))
    join(left, End(namespace=client, interface="lan0", addresses=("10.3.0.2/24", "fd03::2/64")))
    client.ip("route", "add", "default", "via", "10.3.0.1")
    client.ip("-6", "route", "add", "default", "via", "fd03::1")
    wire.right.ip("route", "add", "10.3.0.0/24", "via", "10.9.0.1", "src", "10.2.0.1")
    wire.right.ip("-6", "route", "add", "fd03::/64", "via", "fd09::1", "src", "fd02::1")
    for setting in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        wire.left.run("sh", "-c", f"echo 1 > /proc/sys/{setting}")


def probe(namespace: Namespace, destinations: tuple[str, ...]) -> None:
    """Sends a packet of every kind; what the kernel refuses to send is not sent. The ping at the end gives time."""

    def send() -> None:
        for destination in destinations:
            six = ":" in destination
            family = socket.AF_INET6 if six else socket.AF_INET
            for port in (BYPASS_PORT, OTHER_PORT):
                with socket.socket(family, socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
                    udp.sendto(b"in clear", (destination, port))
                with socket.socket(family, socket.SOCK_STREAM) as tcp, contextlib.suppress(OSError):
                    tcp.setblocking(False)
                    tcp.connect((destination, port))
            protocol, kind = (socket.IPPROTO_ICMPV6, 128) if six else (socket.IPPROTO_ICMP, 8)
            with socket.socket(family, socket.SOCK_RAW, protocol) as icmp, contextlib.suppress(OSError):
                icmp.sendto(struct.pack("!BBHHH", kind, 0, 0xFFFF - (kind << 8) - 0x4701, 0x4700, 1), (destination, 0))

    namespace.call(send)
    for destination in destinations:
        with contextlib.suppress(LabError):
            ping(namespace, destination, wait_s=0.2)


def in_clear(two: Two, since: int) -> list[Frame]:
    """The frames in clear since the capture had `since` of them."""
    return [frame for frame in two.capture.frames[since:] if frame.kind is Kind.CLEAR]


def probe_from_everywhere(world: World) -> list[str]:
    """What passed in clear of probes from left, from behind left, and from right."""
    since = len(world.two.capture.frames)
    probe(world.two.wire.left, RIGHT)
    probe(world.client, RIGHT)
    probe(world.two.wire.right, LEFT)
    return sorted({frame.description for frame in in_clear(world.two, since)})


def is_bypassed(description: str) -> bool:
    return " UDP " in description and str(BYPASS_PORT) in description


def kill_everything(instance: Instance) -> None:
    for one in instance.roles():
        # The supervisor's end is that of those it has started.
        with contextlib.suppress(LabError):
            instance.kill(one.role)
    wait_until(f"nothing runs of {instance.namespace}", lambda: not instance.roles())


def test_t24_t25_t26_t33_t34_t35_with_every_process_dead_or_stopped_only_what_policy_allows_passes_in_clear() -> None:
    with world() as world_:
        two = world_.two
        for source, destination in (
            (two.wire.left, "10.2.0.1"),
            (two.wire.left, "fd02::1"),
            (world_.client, "fd02::1"),
        ):
            wait_until(f"{destination} answers {source}", lambda: ping(source, destination, wait_s=1).lost == 0)  # noqa: B023
        assert [two.left.status()["mode"], two.right.status()["mode"]] == ["secure", "secure"]
        assert [one for one in probe_from_everywhere(world_) if not is_bypassed(one)] == []

        kill_everything(two.left)
        passed = probe_from_everywhere(world_)
        assert [one for one in passed if not is_bypassed(one)] == []
        assert any(is_bypassed(one) for one in passed), "what policy allows goes on without ipsecd"

        assert operate(two.left, "stop").code == 1
        assert "secure mode stays on" in operate(two.left, "stop").text
        status = operate(two.left, "status")
        assert (status.code, status.lines[0]) == (0, "IPsec stopped")
        assert "mode       secure: the kernel drops everything" in status.text
        since = len(two.capture.frames)
        probe(two.wire.left, RIGHT)
        probe(world_.client, RIGHT)
        assert in_clear(two, since) == []

        two.left.ctl("start", "--spd", str(two.left.spd))
        wait_until("the tunnel is back", lambda: ping(two.wire.left, "10.2.0.1", wait_s=1).lost == 0, timeout_s=30)
        assert operate(two.left, "stop").code == 0
        assert operate(two.left, "insecure").code == 0
        assert operate(two.right, "disable").code == 0
        assert "secure mode has ended" in operate(two.right, "stop").text
        assert ping(two.wire.left, "10.9.0.2").lost == 0
        assert ping(two.wire.left, "fd09::2").lost == 0
        assert (two.left.status()["mode"], two.right.status()["mode"]) == ("none", "none")
        assert not two.capture.missed


def test_t37_t38_the_mode_is_entered_and_left_without_the_daemon_and_beside_it_and_comes_back_at_boot() -> None:
    with gateways() as wire, Instance(wire.left) as left:

        def answers() -> bool:
            return ping(wire.left, "10.9.0.2", wait_s=0.5).lost == 0

        assert answers()
        assert operate(left, "secure", "--boot").lines == ["secure mode was not on: nothing to do"]
        assert operate(left, "secure").lines == ["secure mode is on: ipsecd does not run, so everything is dropped"]
        assert not answers()
        wire.left.ip(
            "xfrm", "policy", "setdefault", "in", "accept", "fwd", "accept", "out", "accept"
        )  # the machine boots
        assert answers()
        assert (operate(left, "status").code, "secure-mode-lost" in operate(left, "status").text) == (1, True)
        assert "as before the boot" in operate(left, "secure", "--boot").text
        assert not answers()

        left.start(BYPASS_SPD)
        assert answers(), "the policy allows it"
        assert left.status()["mode"] == "secure"
        assert operate(left, "insecure", "--yes").code == 0
        assert left.status()["mode"] == "normal"
        assert answers()
        assert operate(left, "secure").lines == ["secure mode is on: what the policy does not allow is dropped"]
        left.stop()
        assert not answers(), "secure mode outlives the stop, since nobody has disabled ipsecd"
        assert operate(left, "insecure").code == 0
        assert answers()
        assert operate(left, "insecure").lines == ["secure mode is not on"]
        assert operate(left, "secure", "--boot").lines == ["secure mode was not on: nothing to do"]


def test_t33_t36_a_reload_to_discard_enters_secure_mode_and_leaves_it_where_nobody_confirms() -> None:
    with gateways() as wire, Instance(wire.left) as left:
        bypass = BYPASS_SPD.replace('unmatched = "discard"', 'unmatched = "bypass"')
        discard = bypass.replace('unmatched = "bypass"', 'unmatched = "discard"')
        assert bypass != discard
        left.start(bypass)
        assert left.status()["mode"] == "normal"
        left.write_spd(discard)
        assert "secure mode is on" in operate(left, "reload", "--confirm", "5").text
        assert left.status()["mode"] == "secure"
        wait_until("it is as before", lambda: left.status()["mode"] == "normal", timeout_s=60)
        assert operate(left, "reload", "--confirm", "600").code == 0
        kill_everything(left)
        assert left.status()["mode"] == "secure", "nobody is there to leave it"
        assert "secure mode is off again" in operate(left, "start", "--spd", str(left.spd)).text
        assert left.status()["mode"] == "normal"
        assert operate(left, "reload", "--confirm", "600").code == 0
        assert operate(left, "secure", "--boot").lines == ["secure mode was not on: nothing to do"], "not yet"
        assert operate(left, "confirm").code == 0
        assert "as before the boot" in operate(left, "secure", "--boot").text
        left.write_spd(bypass)
        assert "secure mode is on: the kernel drops what no rule matches, although" in operate(left, "reload").text
        assert left.status()["mode"] == "secure", "only `ipsecctl insecure` leaves it"
        left.stop()


def test_t27_a_boot_starts_ipsecd_only_where_it_is_enabled() -> None:
    with Namespace("host") as host, Instance(host) as instance:
        spd = str(instance.write_spd(BYPASS_SPD))
        told = operate(instance, "start", "--boot", "--spd", spd)
        assert (told.code, told.lines) == (
            0,
            ["ipsecd is not enabled to come up at boot: ipsecctl enable changes that"],
        )
        assert instance.roles() == []
        assert operate(instance, "enable").lines == ["ipsecd comes up at boot"]
        assert operate(instance, "start", "--boot", "--spd", spd).code == 0
        assert operate(instance, "disable").text.startswith("ipsecd does not come up at boot")
        instance.stop()
        assert operate(instance, "start", "--boot", "--spd", spd).code == 0
        assert instance.roles() == []
