"""A responder under attack goes on serving those who mean it."""

import sys
from pathlib import Path

import pytest

from ipc.patience import patient
from ipc.roles import Role
from tests.lab import flood
from tests.lab.capture import Capture, Exchange, Frame, Kind
from tests.lab.first_message import first_message
from tests.lab.instance import Instance
from tests.lab.namespaces import End, Namespace, gateways, join
from tests.lab.ping import ping
from tests.lab.spd import IPV4
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
RATE = 20_000
"""Of spoofed first messages a second, as far as the machine can make so many; how many it made is printed."""
ANSWERS = 300
"""With so many given, cookies have long been asked for."""
CONNECTED_WITHIN_S = 5.0
"""Under the flood, which goes on for longer than that; on an ordinary machine, which this may not be."""
ORDINARY_S = 0.5
"""So long, or less, it takes there without a flood."""
LONGEST_S = 60.0
MOST_MEMORY_KB = 400_000
ANYBODY = """
[peers.anybody]
address = "any"
local_id = "right.example"
remote_id = "anybody.example"
auth = "psk"
psk = "another pre-shared key for tests only, 77aa01"
proposals = "lab"

[[rules]]
name = "for-anybody"
action = "protect"
local = ["10.2.0.0/24"]
remote = ["10.77.0.0/24"]
peer = "anybody"
start = "respond-only"
"""


def packets_sent(namespace: Namespace, interface: str) -> int:
    """How many packets went out there."""
    return int(namespace.run("cat", f"/sys/class/net/{interface}/statistics/tx_packets"))


def memory_kb(pid: int) -> int:
    """The resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def connect(namespace: Namespace, timeout_s: float = 30.0) -> float:
    """Has a packet bring up the tunnel; seconds that took."""
    return wait_until(
        "the honest peer has its tunnel",
        lambda: ping(namespace, "10.2.0.1", source="10.1.0.1", wait_s=1.0).received == 1,
        timeout_s=timeout_s,
    )


def asked_by_left(capture: Capture) -> list[Frame]:
    """The IKE_SA_INIT requests of the honest peer so far."""
    frames = (one for one in capture.of_kind(Kind.IKE) if one.sender == "left" and one.ike is not None)
    return [one for one in frames if one.ike is not None and one.ike.exchange == Exchange.IKE_SA_INIT]


def test_a_flood_of_spoofed_first_messages_does_not_keep_an_honest_peer_out() -> None:
    with (
        gateways() as wire,
        Namespace("attacker") as attacker,
        Instance(wire.left) as left,
        Instance(wire.right) as right,
        Capture(wire) as capture,
    ):
        join(
            End(namespace=wire.right, interface="wild0", addresses=("10.8.0.1/24",)),
            End(namespace=attacker, interface="wild0", addresses=("10.8.0.2/24",)),
        )
        attacker.ip("route", "add", "default", "via", "10.8.0.1")
        wire.right.ip("route", "add", "100.64.0.0/10", "via", "10.8.0.2")
        try:
            right.start(IPV4.right_spd().replace("[setup]", "[setup]\ncookies_from = 50") + ANYBODY)
            worker = right.role(Role.IKE_WORKER)
            assert worker is not None
            left.start(IPV4.left_spd())
            calm = connect(wire.left)
            left.ctl("down", "other", "--timeout", "60")
            within = min(LONGEST_S, CONNECTED_WITHIN_S * max(patient(1.0), calm / ORDINARY_S))
            arguments = ("10.8.0.1", "500", str(RATE), str(within + 30.0), first_message().hex())
            sender = attacker.start(sys.executable, "-I", flood.__file__, *arguments)
            assert sender.stdout is not None
            assert sender.stdout.readline() == "flooding\n"
            wait_until("the attack is felt", lambda: packets_sent(wire.right, "wild0") > ANSWERS, timeout_s=20.0)
            handshakes = len(asked_by_left(capture))
            sent_before = packets_sent(attacker, "wild0")
            elapsed = connect(wire.left, LONGEST_S)
            sent = packets_sent(attacker, "wild0") - sent_before
            assert sender.poll() is None, "the flood was over before"
            sender.terminate()
            sender.communicate(timeout=60.0)
            print(
                f"{sent / elapsed:,.0f} spoofed IKE_SA_INIT a second; connected after {elapsed:.2f} s under attack, "
                f"{calm:.2f} s before it"
            )
            assert elapsed < within
            assert sent > ANSWERS
            assert len(asked_by_left(capture)) - handshakes >= 2, "no cookie was asked for"
            assert right.role(Role.IKE_WORKER) == worker
            assert memory_kb(worker.pid) < MOST_MEMORY_KB
        except BaseException:
            print(f"--- right ---\n{right.log()[-4000:]}\n--- left ---\n{left.log()[-3000:]}")
            raise
