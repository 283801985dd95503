"""Wireshark reads what we say: with the keys of `ipsecctl capture-keys` it decrypts our exchange and finds no fault."""

import stat
from pathlib import Path

import pytest

from tests.lab.capture import Kind
from tests.lab.debian import Unavailable
from tests.lab.ping import ping
from tests.lab.tshark import Tshark
from tests.lab.two import two_instances

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(240)]
LEFT, RIGHT = "10.1.0.1", "10.2.0.1"
SEVERITY_WARNING = 0x600000
"""PI_WARN of Wireshark; errors are above."""
PAYLOADS_OF_IKE_AUTH = {"33", "35", "39", "44", "45"}
"""SA, IDi, AUTH, TSi, TSr (RFC 7296 section 1.2), by number."""


def test_tshark_decrypts_our_exchange_and_has_no_complaint(tmp_path: Path) -> None:
    """With extended sequence numbers; of all other algorithms `test_wireshark_tables` tells."""
    try:
        tshark = Tshark(tmp_path / "home")
    except Unavailable as reason:
        pytest.skip(str(reason))
    keys, wire = tmp_path / "keys", tmp_path / "wire.pcap"
    with two_instances() as two:
        two.left.ctl("up", "nets", "--timeout", "60")
        assert ping(two.wire.left, RIGHT, source=LEFT, count=3, interval_s=0.01).lost == 0
        two.left.ctl("rekey", "nets", "--timeout", "60")
        said = two.left.ctl("capture-keys", "--peer", "other", str(keys))
        assert said.startswith("1 IKE SAs and ")
        two.capture.wait_for(Kind.IKE, count=6)
        two.capture.stop()
        two.capture.write_pcap(wire)
        log = two.left.log()
    assert "capture keys of other are asked for by" in log
    for path in keys.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        secrets = [word for word in path.read_text().replace('"', "").replace("0x", "").split(",") if len(word) >= 32]
        assert not [word for word in secrets if " " not in word and word in log]
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700

    dark = tshark.read(wire, "-Y", "isakmp.exchangetype == 35", "-T", "fields", "-e", "isakmp.typepayload")
    assert not any(set(line.split(",")) >= PAYLOADS_OF_IKE_AUTH for line in dark.splitlines()), "it needs no keys"
    tshark.give_tables(keys)
    auth = tshark.read(wire, "-Y", "isakmp.exchangetype == 35", "-T", "fields", "-e", "isakmp.typepayload")
    request = auth.splitlines()[0].split(",")
    assert set(request) >= PAYLOADS_OF_IKE_AUTH, auth
    rekey = tshark.read(wire, "-Y", "isakmp.exchangetype == 36", "-T", "fields", "-e", "isakmp.typepayload")
    assert all({"33", "40"} <= set(line.split(",")) for line in rekey.splitlines()) and rekey, rekey
    pings = tshark.read(wire, "-Y", "esp && icmp", "-T", "fields", "-e", "icmp.type")
    assert sorted(pings.split()) == ["0", "0", "0", "8", "8", "8"], pings
    faults = f"_ws.malformed || _ws.expert.severity >= {SEVERITY_WARNING:#x}"
    assert tshark.read(wire, "-Y", f"(isakmp || esp) && ({faults})", "-V") == ""
