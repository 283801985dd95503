"""How fast, and at what cost, two instances set up tunnels with each other.

Two namespaces, a complete instance in each. The left one has as many peers as handshakes are wanted, each pair with
addresses of its own, and negotiates them all at start: IKE_SA_INIT, IKE_AUTH and the first Child SA, with every role
of both sides at work. CPU is what the kernel accounted to each process between the first and the last handshake. The
floor in the same run is the cryptography that one side can't do without. First by pre-shared key, then by ECDSA P-256
certificates that an authority has issued directly.

Both sides share the cores, so more workers (`--workers`) do not show in handshakes per second here. What does is
the CPU of each process: with a core for each, the one that has most to do is what the others wait for.

In between, where Debian's packages can be had, two strongSwans set up the same tunnels (`bench.charon`),
with the same algorithms and ESP in user space too. What ours cost is told in times of that.
"""

import argparse
import contextlib
import hmac
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench import charon
from bench.charon import CharonPeer, CharonResult, cpu_s
from tests.lab import pki
from tests.lab.debian import Unavailable
from tests.lab.instance import Instance
from tests.lab.namespaces import WIRE, Gateways, Namespace, gateways, run
from tests.lab.waiting import wait_until

EXAMPLE = "example: python -m bench.handshake --count 300 --runs 3"
AUTHENTICATIONS = ("psk", "certificate")
IKE = "aes256gcm16-prfsha256-x25519"
ESP = "aes256gcm16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU milliseconds per handshake of one role on one side."""

    side: str
    role: str
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run."""

    per_second: float
    costs: tuple[Cost, ...]

    def total_ms(self, side: str) -> float:
        """What all roles of one side cost together."""
        return sum(cost.milliseconds for cost in self.costs if cost.side == side)


def addresses(number: int) -> tuple[str, str]:
    """The two ends of handshake `number`."""
    return f"10.10.{number // 250}.{number % 250 + 1}", f"10.11.{number // 250}.{number % 250 + 1}"


class Authentication:
    """How the two sides prove who they are: each pair of them by a pre-shared key, or by certificates, of its own."""

    def __init__(self, name: str, count: int, directory: Path) -> None:
        self.name = name
        self._directory = directory
        self.authority = directory / "ca.pem"
        if name == "certificate":
            authority = pki.root()
            pki.write(self.authority, authority.pem)
            for who in (f"{side}{number}" for number in range(count) for side in ("left", "right")):
                issued = authority.issue(f"CN={who}", [f"{who}.example"])
                pki.write(directory / f"{who}.pem", issued.pem)
                pki.write(directory / f"{who}.key", pki.key_pem(issued.key))

    def lines(self, number: int, here: str) -> list[str]:
        """Lines of one peer."""
        if self.name == "psk":
            return ['auth = "psk"', f'psk = "{_psk(number)}"']
        return [
            'auth = "certificate"',
            f'certificate_file = "{self._directory}/{here}{number}.pem"',
            f'key_file = "{self._directory}/{here}{number}.key"',
            f'ca_files = ["{self.authority}"]',
        ]

    def charon_peer(self, number: int, *, left: bool) -> CharonPeer:
        """The same peer for strongSwan."""
        own, other = addresses(number) if left else reversed(addresses(number))
        own_net, other_net = networks(number) if left else reversed(networks(number))
        here, there = ("left", "right") if left else ("right", "left")
        by_psk = self.name == "psk"
        return CharonPeer(
            name=f"p{number}",
            local_address=own,
            remote_address=other,
            local_id=f"{here}{number}.example",
            remote_id=f"{there}{number}.example",
            psk=_psk(number) if by_psk else "",
            certificate=None if by_psk else self._directory / f"{here}{number}.pem",
            key=None if by_psk else self._directory / f"{here}{number}.key",
            local_net=own_net,
            remote_net=other_net,
            ike=IKE,
            esp=ESP,
        )


def _psk(number: int) -> str:
    return f"a pre-shared key for the benchmark {number}"


def networks(number: int) -> tuple[str, str]:
    """What is protected behind either end of handshake `number`."""
    return f"10.20.{number // 250}.{number % 250}/32", f"10.120.{number // 250}.{number % 250}/32"


def spd(count: int, authentication: Authentication, workers: int = 1, *, left: bool) -> str:
    """An SPD with `count` peers; the left side starts them all."""
    lines = ["[setup]", f'interfaces = ["{WIRE}"]', 'unmatched = "bypass"', f"ike_workers = {workers}"]
    lines += ["[proposals.bench]", f'ike = ["{IKE}"]', f'esp = ["{ESP}"]']
    for number in range(count):
        own, other = addresses(number) if left else reversed(addresses(number))
        own_net, other_net = networks(number) if left else reversed(networks(number))
        here, there = ("left", "right") if left else ("right", "left")
        lines += [
            f"[peers.p{number}]",
            f'address = "{other}"',
            f'local_address = "{own}"',
            f'local_id = "{here}{number}.example"',
            f'remote_id = "{there}{number}.example"',
            *authentication.lines(number, here),
            'proposals = "bench"',
            "[[rules]]",
            f'name = "r{number}"',
            'action = "protect"',
            f'local = ["{own_net}"]',
            f'remote = ["{other_net}"]',
            f'peer = "p{number}"',
            f'start = "{"at-start" if left else "respond-only"}"',
        ]
    return "\n".join(lines) + "\n"


def add_many_addresses(namespace: Namespace, count: int, side: int) -> None:
    batch = "".join(f"address add {addresses(number)[side]}/32 dev {WIRE}\n" for number in range(count))
    with tempfile.NamedTemporaryFile("w", prefix="ipsecd-bench-") as file:
        file.write(batch)
        file.flush()
        namespace.ip("-batch", file.name)


def tunnels_up(instance: Instance) -> int:
    """How many Child SAs the instance has."""
    return sum(len(tunnel["children"]) for tunnel in instance.status()["tunnels"])


@contextlib.contextmanager
def wired(count: int) -> Iterator[Gateways]:
    """Two gateways with the addresses of `count` handshakes."""
    with gateways() as nets:
        for side, namespace in enumerate((nets.left, nets.right)):
            add_many_addresses(namespace, count, side)
            # By one next hop: hundreds of neighbours would fill the kernel's table, which all namespaces share.
            namespace.ip("route", "add", f"10.{11 - side}.0.0/16", "via", f"10.9.0.{2 - side}")
        yield nets


def measure_charon(count: int, authentication: Authentication) -> CharonResult:
    """One run of `count` handshakes between strongSwans."""
    left, right = ([authentication.charon_peer(n, left=side) for n in range(count)] for side in (True, False))
    with wired(count) as nets:
        return charon.measure(nets, left, right, authentication.authority)


def processes(instance: Instance) -> dict[str, int]:
    """The pids of an instance's processes, by name: of several workers each has its own."""
    status = instance.status()
    return {"supervisor": status["pid"]} | {one["role"]: one["pid"] for one in status["roles"]}


def measure(count: int, authentication: Authentication, workers: int = 1) -> Result:
    """One run of `count` handshakes between fresh instances, with so many IKE workers each.

    The left one negotiates while it still starts. What a start without that costs, the right one has shown just before
    with a policy of the same size: so much is not counted.
    """
    with wired(count) as nets, Instance(nets.left) as left, Instance(nets.right) as right:
        right.start(spd(count, authentication, workers, left=False))
        before = {name: cpu_s(pid) for name, pid in processes(right).items()}
        started = time.monotonic()
        left.start(spd(count, authentication, workers, left=True))
        # Each look costs the supervisor a status of all tunnels, so there are few.
        wait_until("all tunnels are up", lambda: tunnels_up(left) >= count, timeout_s=60.0, every_s=1.0)
        elapsed = time.monotonic() - started
        costs = [
            Cost(
                side=side,
                role=name,
                milliseconds=(cpu_s(pid) - before[name]) * 1000 / count,
            )
            for side, instance in (("initiator", left), ("responder", right))
            for name, pid in processes(instance).items()
            if name in before
        ]
        left.stop()
        right.stop()
    return Result(per_second=count / elapsed, costs=tuple(costs))


def crypto_floor_ms(authentication: str, rounds: int = 300) -> float:
    """Milliseconds of the cryptography of one side: a key exchange, two messages opened and sealed, ~14 HMACs.

    With certificates it signs once, and looks at the signatures of the peer and of its certificate.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    algorithm = ec.ECDSA(hashes.SHA256())
    signature = key.sign(b"", algorithm)

    def handshake() -> None:
        own, other = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
        own.public_key().public_bytes_raw()
        own.exchange(other)
        aead = AESGCM(bytes(range(32)))
        for number in range(2):
            aead.encrypt(number.to_bytes(12, "big"), bytes(200), bytes(32))
        for _ in range(14):
            hmac.digest(bytes(32), bytes(64), "sha256")
        if authentication == "certificate":
            key.sign(b"", algorithm)
            for _ in range(2):
                key.public_key().verify(signature, b"", algorithm)

    return median_ms(handshake, rounds)


def median_ms(function: Callable[[], None], rounds: int) -> float:
    """Median of CPU milliseconds of a call."""
    times = []
    for _ in range(rounds):
        start = time.process_time_ns()
        function()
        times.append((time.process_time_ns() - start) / 1e6)
    return statistics.median(times)


def report(results: list[Result], floor_ms: float, count: int, authentication: str) -> None:
    """Medians over the runs, as a table."""
    how = {"psk": "PSK", "certificate": "ECDSA P-256 certificates"}[authentication]
    print(f"{count} handshakes a run, {len(results)} runs, medians; {how}, X25519, AES-256-GCM")
    per_second = statistics.median(result.per_second for result in results)
    print(f"handshakes per second, both sides on this machine, the initiator's start included: {per_second:.0f}")
    print(f"{'side':<10} {'role':<14} {'CPU ms per handshake':>20} {'times the crypto floor':>23}")
    keys = list(dict.fromkeys((cost.side, cost.role) for result in results for cost in result.costs))
    for side in ("initiator", "responder"):
        medians = {
            role: statistics.median(
                cost.milliseconds for r in results for cost in r.costs if (cost.side, cost.role) == (side, role)
            )
            for one, role in keys
            if one == side
        }
        for role, value in [*medians.items(), ("all roles", sum(medians.values()))]:
            print(f"{side:<10} {role:<14} {value:>20.3f} {value / floor_ms:>23.1f}")
        busiest = max(medians, key=lambda role: medians[role])
        most = 1000 / max(medians[busiest], 0.001)
        print(f"{side:<10} with a core for each process {busiest} is the narrowest: {most:.0f} handshakes per second")
    print(f"{'floor':<10} {'crypto alone':<14} {floor_ms:>20.3f} {1:>23.1f}")


def compare(results: list[Result], charons: list[CharonResult]) -> None:
    """Ours against strongSwan's, medians over the runs."""
    per_second = statistics.median(one.per_second for one in charons)
    print(f"strongSwan, the same tunnels with ESP in user space too, silent; handshakes per second: {per_second:.0f}")
    theirs = {
        "initiator": statistics.median(one.initiator_ms for one in charons),
        "responder": statistics.median(one.responder_ms for one in charons),
    }
    for side, value in theirs.items():
        ours = statistics.median(result.total_ms(side) for result in results)
        print(f"{side:<10} {'strongSwan':<14} {value:>20.3f}    ours / strongSwan: {ours / value:.2f}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=EXAMPLE)
    parser.add_argument("--count", type=int, default=300, help="handshakes in one run (300)")
    parser.add_argument("--runs", type=int, default=3, help="runs; medians are printed (3)")
    parser.add_argument("--auth", choices=AUTHENTICATIONS, action="append", help="only this (both)")
    parser.add_argument("--workers", type=int, default=1, help="IKE workers of each side (1)")
    parser.add_argument("--alone", action="store_true", help="without strongSwan")
    arguments = parser.parse_args()
    if os.geteuid():
        sys.exit("bench.handshake: needs root, to make network namespaces")
    run(["ip", "-V"])
    with tempfile.TemporaryDirectory(prefix="ipsecd-bench-") as directory:
        for name in arguments.auth or AUTHENTICATIONS:
            authentication = Authentication(name, arguments.count, Path(directory))
            results, charons = [], []
            for _ in range(arguments.runs):
                results.append(measure(arguments.count, authentication, arguments.workers))
                if not arguments.alone:
                    try:
                        charons.append(measure_charon(arguments.count, authentication))
                    except Unavailable as error:
                        print(f"no strongSwan to compare with: {error}", file=sys.stderr)
                        arguments.alone = True
            report(results, crypto_floor_ms(name), arguments.count, name)
            if charons:
                compare(results, charons)


if __name__ == "__main__":
    main()
