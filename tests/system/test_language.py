"""What only running instances show of the policy language: any peers, names not found, templates, manual keys."""

import socket
import struct

import pytest

from ipc.roles import Role
from tests.lab.capture import Kind
from tests.lab.namespaces import WIRE
from tests.lab.ping import ping
from tests.lab.spd import IPV4, LEFT_ID, PSK, RIGHT_ID
from tests.lab.two import two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"

TEMPLATES = f"""
[setup]
interfaces = ["{WIRE}"]
unmatched = "bypass"
data_path = "userspace"

[proposals.lab]
ike = ["aes256gcm16-prfsha256-x25519"]
esp = ["aes256gcm16-esn"]

[addresses]
guests = ["10.1.0.0-10.1.3.255"]

[defaults.peers]
proposals = "lab"
"""
ROAD_WARRIOR = f"""
[setup]
data_path = "auto"

[peers.road]
address = "any"
local_id = "{RIGHT_ID}"
remote_id = "{LEFT_ID}"
auth = "psk"
psk = "{PSK}"

[peers.lost]
address = "nowhere.invalid"
local_id = "{RIGHT_ID}"
auth = "psk"
psk = "{PSK}"

[[rules]]
name = "guests"
action = "protect"
local = ["10.2.0.0/16"]
remote = ["guests"]
protocol = ["icmp", "icmpv6"]
icmp_type = ["echo-request", "echo-reply"]
peer = "road"

[[rules]]
name = "lost"
action = "protect"
remote = ["10.9.0.77"]
peer = "lost"
"""


def test_t45_t46_a_peer_from_anywhere_under_shared_templates_gets_what_it_asks_for() -> None:
    with two_instances(right_spd=ROAD_WARRIOR, right_templates=TEMPLATES) as two:
        wait_until(
            "the road warrior's ping is answered",
            lambda: ping(two.wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1,
            timeout_s=60.0,
        )
        (tunnel,) = two.right.status()["tunnels"]
        (child,) = tunnel["children"]
        assert tunnel["peer"] == "road"
        kinds = ("1 port 2048-2303", "1 port 0-255", "58 port 32768-33023", "58 port 33024-33279")
        assert sorted(child["remote"]) == sorted(f"10.1.0.0-10.1.0.255 proto {kind}" for kind in kinds)
        # The name is not found, now and by a loader that is started again; its packets are dropped.
        victim = two.right.kill(Role.POLICY_LOADER)
        two.right.wait_for_successor(victim)
        assert "nowhere.invalid" in two.right.log()
        assert ping(two.wire.right, "10.9.0.77", wait_s=1.0).received == 0
        assert ping(two.wire.left, RIGHT, source=LEFT, count=5, interval_s=0.05, wait_s=10.0).lost == 0
        # It may come anew, to the loader's successor too.
        two.left.ctl("restart")
        wait_until(
            "the ping is answered again",
            lambda: ping(two.wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1,
            timeout_s=60.0,
        )
        # ICMP of another type between the same addresses is dropped, as `explain` says.
        two.wire.right.call(send_timestamp_request)
        asked = ("--src", RIGHT, "--dst", LEFT, "--proto", "icmp", "--icmp-type", "timestamp-request")
        assert "the user-space data path leads it to the rule's tunnel" in two.right.ctl("explain", *asked)
        assert ping(two.wire.left, RIGHT, source=LEFT, wait_s=10.0).lost == 0
        two.capture.stop()
        two.capture.assert_nothing_clear()


def send_timestamp_request() -> None:
    """From the right gateway's inner address, ICMP type 13."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.bind((RIGHT, 0))
        raw.sendto(struct.pack("!BBHHHIII", 13, 0, 0xF2FD, 1, 1, 0, 0, 0), (LEFT, 0))


def manual(own: str, other: str, local: str, remote: str, keys: tuple[str, str]) -> str:
    """One side's SPD with fixed keys; `keys` are (in, out), each an SPI and the key's repeated byte."""
    (spi_in, byte_in), (spi_out, byte_out) = (key.split() for key in keys)
    return f"""
[setup]
interfaces = ["{WIRE}"]
unmatched = "bypass"
[peers.other]
address = "{other}"
local_address = "{own}"
auth = "manual"
algorithm = "aes256-sha256"
spi_in = "{spi_in}"
spi_out = "{spi_out}"
key_in = "{byte_in * 64}"
key_out = "{byte_out * 64}"
[[rules]]
name = "nets"
action = "protect"
local = ["{local}"]
remote = ["{remote}"]
peer = "other"
"""


def test_o26_fixed_keys_make_a_tunnel_without_ike() -> None:
    left = manual("10.9.0.1", "10.9.0.2", "10.1.0.0/24", "10.2.0.0/24", ("0x1001 a1", "0x2002 b2"))
    right = manual("10.9.0.2", "10.9.0.1", "10.2.0.0/24", "10.1.0.0/24", ("0x2002 b2", "0x1001 a1"))
    with two_instances(IPV4, left_spd=left, right_spd=right) as two:
        wait_until(
            "a ping is answered",
            lambda: ping(two.wire.left, RIGHT, source=LEFT, wait_s=1.0).received == 1,
            timeout_s=30.0,
        )
        two.capture.stop()
        two.capture.assert_nothing_clear()
        assert two.capture.of_kind(Kind.ESP)
        assert not two.capture.of_kind(Kind.IKE)
        for one in (two.left, two.right):
            assert "b2b2b2b2" not in one.log()
