"""Real packets through two real data paths in two namespaces."""

import contextlib
import os
import random
import re
import socket
import sys
import threading
import time

import pytest

from ipc import messages as m
from ipc.types import Mode
from tests.kernel_agent.userspace import values
from tests.kernel_agent.userspace.lab import TUN, again, tunnel
from tests.lab.namespaces import WIRE
from tests.lab.ping import RunningPing, ping

pytestmark = pytest.mark.root


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("encapsulated", [False, True], ids=["esp", "udp"])
def test_pings_of_both_families_go_through(outer: int, encapsulated: bool) -> None:
    with tunnel(outer=outer, encapsulated=encapsulated) as one:
        one.start()
        for destination, source in (("10.2.0.1", "10.1.0.1"), ("fd02::1", "fd01::1")):
            for size in (56, 1200):
                result = ping(one.left.namespace, destination, source=source, count=10, interval_s=0.02, size=size)
                assert result.lost == 0
        one.left.tell(m.QuerySa(request_id=1, sas=one.left_names()))
        assert [usage.packets for usage in one.left.wait(m.SaUsage).usage] == [40, 40]


@pytest.mark.parametrize("encapsulated", [False, True], ids=["esp", "udp"])
def test_sigkill_and_restart_lose_no_ping(encapsulated: bool) -> None:
    with tunnel(encapsulated=encapsulated) as one:
        one.start()
        pings = RunningPing(one.left.namespace, "10.2.0.1", source="10.1.0.1", count=600, interval_s=0.01, wait_s=10.0)
        for victim, rules, sas in (
            (one.left, one.left_rules, one.left_sas),
            (one.right, one.right_rules, one.right_sas),
            (one.left, one.left_rules, one.left_sas),
        ):
            time.sleep(0.5)
            victim.kill()
            victim.start()
            victim.give(rules, again(sas))
        assert pings.running()
        result = pings.finish()
        assert result.lost == 0, str(result)


def test_the_first_ping_waits_for_its_sa() -> None:
    with tunnel() as one:
        for side, rules in ((one.left, one.left_rules), (one.right, one.right_rules)):
            side.start()
            side.give(rules, values.place())
        pings = RunningPing(one.left.namespace, "10.2.0.1", source="10.1.0.1", count=1, wait_s=5.0)
        acquire = one.left.wait(m.Acquire)
        assert acquire.rule_id == 1
        assert str(acquire.packet_local) == "10.1.0.1 proto 1 port 2048-2048"
        one.right.place(one.right_sas)
        one.left.place(one.left_sas)
        assert pings.finish().lost == 0


def test_nothing_leaves_in_clear() -> None:
    with tunnel() as one:
        watch = one.right.namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        with watch:
            watch.bind((WIRE, 0))
            one.left.start()
            ping(one.left.namespace, "10.2.0.1", source="10.1.0.1", count=3, interval_s=0.02, wait_s=0.2)
            one.left.give(one.left_rules, values.place())
            ping(one.left.namespace, "10.2.0.1", source="10.1.0.1", count=3, interval_s=0.02, wait_s=0.2)
            one.left.place(one.left_sas)
            ping(one.left.namespace, "10.2.0.1", source="10.1.0.1", count=3, interval_s=0.02, wait_s=0.2)
            watch.setblocking(False)
            frames = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    frames.append(watch.recv(2000))
        protocols = {frame[23] for frame in frames if frame[12:14] == b"\x08\x00"}
        assert protocols == {50}


def answered(output: str) -> int:
    """How many answers ping(8) has had: with -w it may have sent more than it waited for."""
    found = re.search(r"(\d+) received", output)
    return int(found[1]) if found is not None else 0


@pytest.mark.parametrize("encapsulated", [False, True], ids=["esp", "udp"])
def test_long_packets_are_answered_or_cut(encapsulated: bool) -> None:
    with tunnel(encapsulated=encapsulated) as one:
        one.start()
        for side in (one.left, one.right):
            side.namespace.ip("link", "set", TUN, "mtu", "1500")
        # May be fragmented: comes through, in fragments of the outer packet. (-w: until so many are answered.)
        own = ("-i", "0.02", "-I", "10.1.0.1", "10.2.0.1")
        for _ in range(2):
            output = one.left.namespace.run("ping", "-n", "-c", "3", "-w", "10", "-M", "dont", "-s", "1470", *own)
            assert answered(output) >= 3
        # May not: the sender learns what fits, and that does.
        whole = ("ping", "-n", "-c", "2", "-w", "10", "-M", "do")
        output = one.left.namespace.run(*whole, "-s", "1470", *own, check=False)
        found = re.search(r"mtu ?= ?(\d+)", output)
        assert found is not None, output
        assert answered(one.left.namespace.run(*whole, "-s", str(int(found[1]) - 28), *own)) >= 2
        assert 1380 < int(found[1]) < 1460


def test_a_peer_behind_a_new_port_is_followed() -> None:
    with tunnel(encapsulated=True) as one:
        one.start()
        assert ping(one.left.namespace, "10.2.0.1", source="10.1.0.1").lost == 0
        one.left.namespace.run(
            *("nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; };"),
            "add rule ip nat out udp dport 4500 masquerade to :7000-7100",
        )
        one.left.namespace.run("conntrack", "-F", check=False)
        one.left.kill()
        one.left.start()
        one.left.give(one.left_rules, again(one.left_sas))
        result = ping(one.left.namespace, "10.2.0.1", source="10.1.0.1", count=5, interval_s=0.02)
        assert result.lost == 0
        moved = one.right.wait(m.PeerMoved)
        assert 7000 <= moved.source_port <= 7100
        assert str(moved.source) == "10.9.0.1"


def test_tcp_runs_at_full_batches_in_both_directions() -> None:
    with tunnel(encapsulated=True) as one:
        one.start()
        data = random.Random(1).randbytes(2_000_000)
        listener = one.right.namespace.call(lambda: socket.create_server(("10.2.0.1", 7)))
        client = one.left.namespace.call(lambda: socket.create_connection(("10.2.0.1", 7), 10, ("10.1.0.1", 0)))
        server, _ = listener.accept()
        with listener, client, server:
            client.settimeout(10)
            server.settimeout(10)
            for sender, receiver in ((client, server), (server, client)):
                thread = threading.Thread(target=sender.sendall, args=(data,))
                thread.start()
                received = bytearray()
                while len(received) < len(data):
                    received += receiver.recv(1 << 20)
                thread.join()
                assert received == data
        for side in (one.left, one.right):
            # The hosts' own router solicitations are all that was dropped.
            assert re.fullmatch(r"dropped packets: (none|\d+ no protect rule)", side.stop().summary)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("encapsulated", [False, True], ids=["esp", "udp"])
def test_transport_mode_between_hosts(outer: int, encapsulated: bool) -> None:
    """The hosts' own addresses are protected: routing by mark leads their packets, but not ESP, into the device."""
    with tunnel(outer=outer, encapsulated=encapsulated, mode=Mode.TRANSPORT) as one:
        one.start()
        own, peer = one.addresses
        result = ping(one.left.namespace, peer, source=own, count=10, interval_s=0.02, size=500)
        assert result.lost == 0
        one.left.tell(m.QuerySa(request_id=1, sas=one.left_names()))
        assert [usage.packets for usage in one.left.wait(m.SaUsage).usage] == [10, 10]


def test_ike_that_udp_gro_joined_to_esp_still_reaches_ike() -> None:
    with tunnel(encapsulated=True) as one:
        one.start()
        ike = socket.socket(fileno=os.dup(one.left.descriptors["ike-v4"]))
        sender = one.right.namespace.udp_socket("10.9.0.2", 4501)
        with ike, sender:
            ike.settimeout(5)
            message = bytes(4) + b"an IKE message"
            segment = [(socket.SOL_UDP, 103, (100).to_bytes(2, sys.byteorder))]
            sender.sendmsg([b"E" * 100, b"E" * 100, message], segment, 0, ("10.9.0.1", 4500))
            assert ike.recvfrom(100) == (message, ("10.9.0.2", 4501))
