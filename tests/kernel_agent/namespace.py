"""Two hosts in namespaces of their own, for tests that write to a kernel."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator

from tests.lab.namespaces import End, Namespace, add_addresses, join

CLEAR_PORT = 9999


@contextlib.contextmanager
def host_and_peer() -> Iterator[tuple[Namespace, Namespace]]:
    """A host with 10.9.0.1 and 10.1.0.1, and its peer with 10.9.0.2 and 10.2.0.1, with routes both ways."""
    with Namespace("host") as host, Namespace("peer") as peer:
        join(
            End(namespace=host, interface="wire0", addresses=("10.9.0.1/24", "fd09::1/64")),
            End(namespace=peer, interface="wire0", addresses=("10.9.0.2/24", "fd09::2/64")),
        )
        add_addresses(End(namespace=host, interface="lo", addresses=("10.1.0.1/24", "fd01::1/64")))
        add_addresses(End(namespace=peer, interface="lo", addresses=("10.2.0.1/24", "fd02::1/64")))
        host.ip("route", "add", "10.2.0.0/24", "via", "10.9.0.2", "src", "10.1.0.1")
        peer.ip("route", "add", "10.1.0.0/24", "via", "10.9.0.1", "src", "10.2.0.1")
        yield host, peer


def add_tun(host: Namespace, name: str = "ipsec0") -> None:
    """A persistent TUN device, down, as the supervisor makes it."""
    host.ip("tuntap", "add", "dev", name, "mode", "tun")


def clear_packet_arrives(host: Namespace, peer: Namespace, source: str = "10.1.0.1") -> bool:
    """Whether a UDP packet in clear from the host gets to 10.2.0.1 on the peer."""
    return _arrives(host, source, peer, "10.2.0.1")


def enter_clear_packet(peer: Namespace, host: Namespace) -> bool:
    """Whether a UDP packet in clear from the peer's protected net is taken by the host."""
    return _arrives(peer, "10.2.0.1", host, "10.1.0.1")


def _arrives(here: Namespace, source: str, there: Namespace, destination: str) -> bool:
    with there.udp_socket(destination, CLEAR_PORT) as receiver, here.udp_socket(source, 0) as sender:
        receiver.settimeout(0.3)
        # The kernel says at once what a policy of our own blocks.
        with contextlib.suppress(OSError):
            sender.sendto(b"in clear", (destination, CLEAR_PORT))
        try:
            return receiver.recv(100) == b"in clear"
        except TimeoutError:
            return False


def listing(host: Namespace, *command: str) -> str:
    """What `ip` lists in the namespace."""
    return host.ip(*command)


def nft(host: Namespace) -> str:
    """The nftables ruleset; empty where nft is not there."""
    done: str = subprocess.run(
        host.command("nft", "list", "ruleset"), capture_output=True, text=True, check=False, timeout=60
    ).stdout
    return done


UDP = socket.IPPROTO_UDP
