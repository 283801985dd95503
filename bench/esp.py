"""How fast the user-space data path carries TCP.

Two namespaces joined by a veth pair, a data path in each as a real process with static SAs, iperf3 between them:
through the tunnel, and over the same veth pair without ESP in the same run. All of it shares this machine's cores.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from ipc import messages as m
from ipc.algorithms import CIPHER_NAMES, INTEGRITY_NAMES, IntegrityId, cipher_sizes
from tests.kernel_agent.userspace.lab import Tunnel, tunnel
from tests.lab.namespaces import Namespace

EXAMPLE = "example: python -m bench.esp --transport udp --cipher aes256gcm16 --runs 3 --seconds 5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run, in Mbit/s of TCP payload as the receiver counts it."""

    through_esp: float
    plain: float
    sender_us: float
    """CPU time of the sender's data path per packet in either direction: says more than Mbit/s on a busy machine."""
    receiver_us: float


def main() -> int:
    """Runs and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.esp", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--transport", choices=("udp", "esp", "both"), default="both", help="ESP in UDP 4500, or raw")
    parser.add_argument("--cipher", choices=sorted(CIPHER_NAMES), default="aes256gcm16")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, for network namespaces")
    for transport in ("udp", "esp") if arguments.transport == "both" else (arguments.transport,):
        runs = measure(transport == "udp", arguments.cipher, arguments.runs, arguments.seconds)
        through, plain, sender_us, receiver_us = (
            statistics.median(getattr(run, name) for run in runs)
            for name in ("through_esp", "plain", "sender_us", "receiver_us")
        )
        each = ", ".join(f"{run.through_esp:.0f}" for run in runs)
        print(
            f"{arguments.cipher} over {transport}: {through:.0f} Mbit/s (median of {each}); "
            f"the same veth without ESP {plain:.0f} Mbit/s; ratio {through / plain:.3f}; "
            f"CPU per packet {sender_us:.1f} µs sending, {receiver_us:.1f} µs receiving"
        )
    return 0


def measure(encapsulated: bool, cipher_name: str, runs: int, seconds: float) -> list[Run]:
    """All runs over one tunnel."""
    cipher = CIPHER_NAMES[cipher_name]
    integrity = IntegrityId.NONE if cipher_sizes(cipher).aead else INTEGRITY_NAMES["sha256"]
    with tunnel(encapsulated=encapsulated, cipher=cipher, integrity=integrity) as one:
        one.start()
        with server(one.right.namespace):
            return [run(one, seconds) for _ in range(runs)]


def run(one: Tunnel, seconds: float) -> Run:
    """Once through the tunnel and once beside it."""
    before, packets = cpu_seconds(one), packet_count(one)
    through_esp = tcp(one.left.namespace, "10.2.0.1", seconds)
    after, packets = cpu_seconds(one), packet_count(one) - packets
    sender_us, receiver_us = ((late - early) / packets * 1e6 for early, late in zip(before, after, strict=True))
    return Run(
        through_esp=through_esp,
        plain=tcp(one.left.namespace, "10.9.0.2", seconds),
        sender_us=sender_us,
        receiver_us=receiver_us,
    )


def cpu_seconds(one: Tunnel) -> tuple[float, float]:
    """User and system time so far, of the left and the right data path."""
    left, right = (
        sum(psutil.Process(side.process.pid).cpu_times()[:2]) if side.process else 0.0 for side in (one.left, one.right)
    )
    return left, right


def packet_count(one: Tunnel) -> int:
    """Packets of the left data path so far."""
    one.left.tell(m.QuerySa(request_id=1, sas=one.left_names()))
    return sum(usage.packets for usage in one.left.wait(m.SaUsage).usage)


@contextlib.contextmanager
def server(namespace: Namespace) -> Iterator[None]:
    """iperf3's server."""
    process = subprocess.Popen(
        namespace.command("iperf3", "-s", "--forceflush"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        while b"listening" not in process.stdout.readline():
            if process.poll() is not None:
                raise RuntimeError("iperf3 -s ended at once")
        yield
    finally:
        process.kill()
        process.communicate()


def tcp(namespace: Namespace, destination: str, seconds: float) -> float:
    """Mbit/s of one TCP stream that sends."""
    output = namespace.run("iperf3", "-c", destination, "-t", f"{seconds:g}", "-J", timeout_s=seconds + 20)
    return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 1e6


if __name__ == "__main__":
    sys.exit(main())
