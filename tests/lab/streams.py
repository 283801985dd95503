"""Datagrams and byte streams between two namespaces, for traffic that is not a ping."""

import socket
import threading

from tests.lab.namespaces import Namespace

_TIMEOUT_S = 30.0


def datagram_arrives(
    source: Namespace, source_address: str, destination: Namespace, destination_address: str, port: int, wait_s: float
) -> bool:
    """Sends one UDP datagram and says whether it arrived within `wait_s`."""
    with (
        destination.udp_socket(destination_address, port) as receiver,
        source.udp_socket(source_address, 0) as sender,
    ):
        receiver.settimeout(wait_s)
        try:
            sender.sendto(b"in clear or not", (destination_address, port))
        except PermissionError:  # what XFRM says of a packet that a policy blocks
            return False
        try:
            return receiver.recv(100) == b"in clear or not"
        except TimeoutError:
            return False


def bytes_through_tcp(
    source: Namespace, source_address: str, destination: Namespace, destination_address: str, count: int
) -> int:
    """Sends `count` bytes over TCP and returns how many arrived."""

    def listen() -> socket.socket:
        family = socket.AF_INET6 if ":" in destination_address else socket.AF_INET
        return socket.create_server((destination_address, 0), family=family)

    with destination.call(listen) as listener:
        listener.settimeout(_TIMEOUT_S)
        port = int(listener.getsockname()[1])
        sender = threading.Thread(target=_send, args=(source, source_address, destination_address, port, count))
        sender.start()
        received = 0
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(_TIMEOUT_S)
            while data := connection.recv(65536):
                received += len(data)
        sender.join(_TIMEOUT_S)
    return received


def _send(source: Namespace, source_address: str, destination_address: str, port: int, count: int) -> None:
    def connect() -> socket.socket:
        return socket.create_connection((destination_address, port), _TIMEOUT_S, (source_address, 0))

    with source.call(connect) as connection:
        connection.sendall(bytes(count))
