"""What a line of the log says of a packet, and how it gets to syslog."""

import socket
from pathlib import Path

import pytest

from kernel_agent.nflog import LoggedPacket, describe
from kernel_agent.syslog import AuthLog

IPV4 = bytes.fromhex("4500001c000040004011 0000 0a090002 0a090001".replace(" ", ""))
IPV6 = bytes.fromhex("6000000000083a40" + "fd09" + "00" * 13 + "02" + "fd09" + "00" * 13 + "01")
PORTS = (1234).to_bytes(2) + (80).to_bytes(2)


@pytest.mark.parametrize(
    ("prefix", "interface", "data", "line"),
    [
        ("in", "eth0", IPV4 + PORTS, "in, in by eth0, udp, 10.9.0.2 port 1234 to 10.9.0.1 port 80"),
        ("out", "eth0", IPV6 + b"\x80\x00", "out, out by eth0, icmpv6 type 128 code 0, fd09::2 to fd09::1"),
        (
            "fwd",
            "eth1",
            IPV4[:9] + b"\x06" + IPV4[10:] + PORTS,
            "fwd, in by eth1, tcp, 10.9.0.2 port 1234 to 10.9.0.1 port 80",
        ),
        ("in", "", IPV4[:9] + b"\x2f" + IPV4[10:], "in, protocol 47, 10.9.0.2 to 10.9.0.1"),
        ("in", "", IPV4, "in, protocol 17, 10.9.0.2 to 10.9.0.1"),
        ("in", "", IPV4[:19], "in, 19 bytes that are no IP packet"),
        ("in", "", b"", "in, 0 bytes that are no IP packet"),
    ],
)
def test_a_line_says_all_that_tells_a_packet(prefix: str, interface: str, data: bytes, line: str) -> None:
    assert describe(LoggedPacket(prefix=prefix, ifindex=0, data=data), interface) == line


def test_every_cut_of_a_packet_gives_a_line() -> None:
    for whole in (IPV4 + PORTS, IPV6 + PORTS, bytes(range(60)), b"\x4f" + bytes(19)):
        for length in range(len(whole)):
            assert describe(LoggedPacket(prefix="in", ifindex=0, data=whole[:length]), "")


def test_t9_a_line_goes_to_the_auth_log_and_comes_back_with_syslog(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    auth_log = AuthLog(path)
    assert not auth_log.say("nobody is there")
    for line in ("first", "syslog was started again"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(path)
            assert auth_log.say(f"{line}\n")
            assert listener.recv(1000).decode().startswith("<38>"), "facility auth, level info (RFC 3164 section 4.1.1)"
        Path(path).unlink()
    auth_log.close()


def test_who_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    auth_log = AuthLog(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        for number in range(5000):
            auth_log.say(f"line {number}")
    auth_log.close()
