"""What a spoofed IKE_SA_INIT costs a responder under attack.

The worker's sockets and engine in one namespace, a flood from another, cookies asked for from the first message on.
CPU time of this process alone, system calls included, so it says something on a busy machine too.
"""

import argparse
import os
import select
import socket
import sys
import time
from ipaddress import IPv4Address

from ike_worker.ikev2.engine import Engine
from ike_worker.udp import UdpSockets
from ipc.messages import HalfOpenLimits, Peer
from ipc.types import AuthMethod
from policy_loader.proposals import parse_ike
from policy_loader.values import identity_of
from tests.lab import flood
from tests.lab.first_message import first_message
from tests.lab.namespaces import End, Namespace, join
from tests.lab.spd import IPV4

EXAMPLE = "example: python -m bench.flood --rate 20000 --seconds 5"
OURS, THEIRS = "10.8.0.1", "10.8.0.2"
_IP_PKTINFO = 8
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 512 * 1024


def responder() -> Engine:
    """An engine that would speak with anybody, and asks for a cookie first."""
    identity = identity_of(IPv4Address(OURS))
    anybody = Peer(
        name="anybody",
        address=None,
        local_address=None,
        local_id=identity,
        remote_id=identity,
        auth=AuthMethod.PSK,
        ike_proposals=(parse_ike(IPV4.ike),),
        force_encapsulation=False,
        liveness_s=0.0,
        rekey_s=0.0,
    )
    engine = Engine(random_bytes=os.urandom, source_address=lambda _remote: None)
    engine.set_policy((anybody,), (), time.monotonic())
    engine.set_half_open_limits(HalfOpenLimits(cookies_from=0))
    return engine


def ike_socket() -> int:
    """UDP 500, as the supervisor opens it."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    made.bind(("", 500))
    return made.detach()


def measure(rate: int, seconds: float) -> str:
    """One run, as a sentence."""
    with Namespace("responder") as here, Namespace("attacker") as there:
        join(
            End(namespace=here, interface="wild0", addresses=(f"{OURS}/24",)),
            End(namespace=there, interface="wild0", addresses=(f"{THEIRS}/24",)),
        )
        here.ip("route", "add", "100.64.0.0/10", "via", THEIRS)
        engine = responder()
        sockets = UdpSockets({"udp500-v4": here.call(ike_socket)})
        answered = 0

        def screen(data: bytes, address: bytes) -> bytes | None:
            nonlocal answered
            answered += 1
            return engine.screen(data, address, time.monotonic())

        ((descriptor, drain),) = sockets.readers(lambda _data, _local, _remote: None, screen).items()
        arguments = (OURS, "500", str(rate), str(seconds), first_message().hex())
        sender = there.start(sys.executable, "-I", flood.__file__, *arguments)
        if sender.stdout is None or sender.stdout.readline() != "flooding\n":
            raise RuntimeError("the flood did not begin")
        started, used = time.monotonic(), time.process_time()
        while time.monotonic() < started + seconds:
            if select.select([descriptor], [], [], 0.05)[0]:
                drain()
        cpu_s = time.process_time() - used
        sent = int(sender.communicate(timeout=60.0)[0].split()[-1])
        sockets.close()
    return (
        f"{sent / seconds:,.0f} spoofed IKE_SA_INIT a second, {answered / seconds:,.0f} answered with a cookie; "
        f"{cpu_s / max(1, answered) * 1e6:.1f} µs CPU for each: {answered / max(cpu_s, 1e-9):,.0f} a second on one core"
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--rate", type=int, default=20_000, help="messages a second")
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, for network namespaces")
    print(measure(arguments.rate, arguments.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
