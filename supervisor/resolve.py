"""`python -m supervisor.resolve NAME PID`: the addresses of a host name, one a line; exit code 1 if it has none.

A process of its own, since a resolver waits for the network and runs code of the C library on what the network says.
It drops root before it asks, is given no descriptor of ours, and dies with the supervisor.
"""

import socket
import sys

from ipc import privileges

NOBODY = 65534
MOST_ADDRESSES = 16


def main(arguments: list[str]) -> int:
    """Drops privileges, asks, prints; `arguments` are the name and the supervisor's pid."""
    name, parent = arguments
    # The codec of names is loaded late, and not from a directory that nobody may read.
    name.encode("idna")
    privileges.drop(uid=NOBODY, gid=NOBODY, capabilities=frozenset(), parent=int(parent))
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return 1
    addresses = dict.fromkeys(str(one[4][0]) for one in found)
    print("\n".join(list(addresses)[:MOST_ADDRESSES]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
