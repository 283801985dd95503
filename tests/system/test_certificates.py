"""Certificates on real instances: a peer from anywhere, known by a pattern, is taken, and once revoked refused."""

from pathlib import Path

import pytest

from tests.lab import pki
from tests.lab.instance import Instance
from tests.lab.ping import ping
from tests.lab.pki import Authority, Issued
from tests.lab.spd import IPV4, RIGHT_ID
from tests.lab.two import two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
OUTER = 'address = "10.9.0.1"'


def lines(directory: Path, ca: Authority, issued: Issued, *between: Issued, crl: bytes) -> str:
    """The lines of a peer that say how it authenticates, with its files written to `directory`."""
    directory.mkdir()
    pki.write(directory / "own.pem", issued.pem, *(one.pem for one in between))
    pki.write(directory / "own.key", pki.key_pem(issued.key))
    pki.write(directory / "ca.pem", ca.pem)
    pki.write(directory / "ca.crl", crl)
    return f"""\
auth = "certificate"
certificate_file = "{directory}/own.pem"
key_file = "{directory}/own.key"
ca_files = ["{directory}/ca.pem"]
crl_files = ["{directory}/ca.crl"]"""


def is_up(left: Instance) -> bool:
    return ping(left.namespace, "10.2.0.1", source="10.1.0.1", wait_s=1.0).received == 1


def test_a_peer_from_anywhere_is_known_by_its_certificate_until_that_is_revoked(tmp_path: Path) -> None:
    ca = pki.root()
    below = ca.authority("CN=People CA,O=Example")
    ann = below.issue("CN=Ann,O=Example", ["ann@example.net"])
    gateway = ca.issue("CN=gw,O=Example", [RIGHT_ID])
    crl = ca.crl() + below.crl()
    left = IPV4.left_spd(
        auth=lines(tmp_path / "left", ca, ann, below, crl=crl),
        local_id='local_id = "ann@example.net"',
        rule_settings='start = "at-start"',
    )
    right = IPV4.right_spd(
        auth=lines(tmp_path / "right", ca, gateway, crl=crl),
        remote_id='remote_id = "*@example.net"',
        rule_settings='start = "respond-only"',
    )
    assert OUTER in right
    right = right.replace(OUTER, 'address = "any"')
    with two_instances(left_spd=left, right_spd=right) as two:
        wait_until("a packet comes across", lambda: is_up(two.left), timeout_s=30.0)
        pki.write(tmp_path / "right/ca.crl", ca.crl(), below.crl(ann))
        two.right.ctl("reload")
        assert is_up(two.left), "an SA that stands is not cut"
        two.left.ctl("restart")
        wait_until(
            "the right side says why it refuses her",
            lambda: '"CN=Ann,O=Example"' in two.right.log() and "was revoked by its issuer on" in two.right.log(),
            timeout_s=30.0,
        )
        assert not is_up(two.left)
        assert "revoked" not in two.left.log()
        assert "AUTHENTICATION_FAILED" in two.left.log()
