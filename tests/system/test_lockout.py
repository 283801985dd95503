"""An operator who comes by SSH is told before he is cut off, and let in again if he does not confirm."""

import contextlib
import socket
import sys
from collections.abc import Iterator

import pytest

from tests.lab.instance import Instance
from tests.lab.namespaces import Gateways, gateways
from tests.lab.operator import operate
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.root

CLOSED_SPD = """\
[setup]
interfaces = ["wire0"]
unmatched = "discard"
"""
OPEN_SPD = (
    CLOSED_SPD
    + """
[[rules]]
name = "ssh"
action = "bypass"
protocol = "tcp"
local_port = 22
"""
)
AS_SSHD = """
import ctypes, subprocess, sys
ctypes.CDLL(None).prctl(15, b"sshd")
with __import__("socket").create_connection(("10.9.0.2", 22), 10, ("10.9.0.1", 2222)):
    sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""
"""A parent that looks like an sshd and holds a connection; which end has made it does not matter."""


@contextlib.contextmanager
def connection(wire: Gateways) -> Iterator[str]:
    """A connection from right to port 22 of left; as SSH_CONNECTION says it."""

    def listen() -> socket.socket:
        return socket.create_server(("10.9.0.1", 22))

    def connect() -> socket.socket:
        return socket.create_connection(("10.9.0.1", 22), 10)

    with wire.left.call(listen) as listener, wire.right.call(connect) as client:
        accepted, _ = listener.accept()
        with accepted:
            address, port = client.getsockname()
            yield f"SSH_CONNECTION={address} {port} 10.9.0.1 22"


def test_the_operators_own_ssh_is_put_through_the_policy_and_comes_back_unless_confirmed() -> None:
    with gateways() as wire, Instance(wire.left) as left, connection(wire) as ssh:
        spd = str(left.write_spd(CLOSED_SPD))
        by_ssh = ("env", ssh)

        told = operate(left, "start", "--spd", spd, before=by_ssh)
        assert told.code == 1
        assert told.lines[0].startswith("ipsecctl: this would cut your own SSH connection from 10.9.0.2 port ")
        assert f"to 10.9.0.1 port 22: no rule of {spd} matches it, so it is dropped" in told.lines[0]
        assert "--confirm SECONDS" in told.lines[1]
        assert "--cut-me-off" in told.lines[1]
        assert left.roles() == []
        told = operate(left, "secure", before=by_ssh)
        assert told.code == 1
        assert "ipsecd does not run, so no policy lets it pass" in told.text

        with wire.right.call(lambda: socket.create_server(("10.9.0.2", 22))):
            told = operate(left, "secure", before=(sys.executable, "-c", AS_SSHD))
        assert told.code == 1
        assert "your own SSH connection from 10.9.0.2 port 22 to 10.9.0.1 port 2222" in told.text

        left.write_spd(OPEN_SPD)
        assert operate(left, "start", "--spd", spd, before=by_ssh).code == 0
        assert operate(left, "secure", before=by_ssh).code == 0
        roles = left.roles()
        told = operate(left, "stop", before=by_ssh)
        assert told.code == 1
        assert "secure mode stays on at a stop, and then the kernel drops everything" in told.text
        left.write_spd(CLOSED_SPD)
        told = operate(left, "restart", before=by_ssh)
        assert told.code == 1
        assert f"no rule of {spd} matches it" in told.text
        assert left.roles() == roles, "neither has done anything"
        told = operate(left, "reload", before=by_ssh)
        assert told.code == 1
        assert "this would cut your own SSH connection" in told.text
        assert operate(left, "reload", "--cut-me-off", before=by_ssh).code == 0
        told = operate(left, "restart", "--confirm", "600", before=by_ssh)
        assert "it is stopped again after 600 s unless" in told.text
        assert operate(left, "confirm").code == 0
        assert operate(left, "stop", "--confirm", "3", before=by_ssh).code == 0
        wait_until("it is started again", lambda: left.status()["phase"] == "running", timeout_s=60)
        left.stop()
        assert operate(left, "insecure").code == 0

        told = operate(left, "start", "--spd", spd, "--confirm", "3", before=by_ssh)
        assert told.code == 0
        assert "it is stopped again after 3 s unless" in told.text
        wait_until("it is stopped again", lambda: not left.roles(), timeout_s=60)
        wait_until("secure mode is off again", lambda: left.status()["mode"] == "none", timeout_s=60)
        assert operate(left, "secure", "--boot").lines == ["secure mode was not on: nothing to do"]

        assert operate(left, "secure", "--confirm", "600", before=by_ssh).code == 0
        assert operate(left, "secure", "--boot").lines == ["secure mode was not on: nothing to do"], "not yet"
        assert operate(left, "confirm").lines == ["confirmed: it stays"]
        assert "as before the boot" in operate(left, "secure", "--boot").text
        assert operate(left, "insecure").code == 0
