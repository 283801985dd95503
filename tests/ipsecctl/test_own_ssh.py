"""The operator's own SSH connection: found, and told from what is not his, and put through a policy."""

import ipaddress
import os
from pathlib import Path

import pytest

from ipsecctl import own_ssh, policy_check
from ipsecctl.own_ssh import Connection, WouldCut, cut_by, own_connections, refuse

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LINE = (
    "   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 20 4 30 10 -1\n"
)
LOCAL, REMOTE = "010009C0:0016", "076433C6:C7F4"
"""192.9.0.1:22 and 198.51.100.7:51188, as the kernel of a little-endian machine writes them."""
OWN = Connection(
    local=ipaddress.ip_address("192.9.0.1"),
    local_port=22,
    remote=ipaddress.ip_address("198.51.100.7"),
    remote_port=51188,
)
POLICY = """\
[setup]
interfaces = ["lo"]
unmatched = "{unmatched}"
[peers.other]
address = "198.51.100.7"
local_address = "192.9.0.1"
auth = "psk"
psk = "a pre-shared key for tests only, 2f61c9"
{rules}
"""
SSH = '[[rules]]\nname = "ssh"\naction = "{action}"\nprotocol = "tcp"\nlocal_port = 22\n'
PROTECT = '[[rules]]\nname = "all"\naction = "protect"\npeer = "other"\n'


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(own_ssh, "_TABLES", (f"{tmp_path}/tcp", f"{tmp_path}/tcp6"))
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    return tmp_path


def test_a_connection_that_sshd_names_counts_if_the_kernel_has_it(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.7 51188 192.9.0.1 22")
    assert own_connections() == ()
    for state, expected in (("06", ()), ("01", (OWN,))):
        (tables / "tcp").write_text(HEAD + LINE.format(local=LOCAL, remote=REMOTE, state=state, inode=1))
        assert own_connections() == expected
    (tables / "tcp").unlink()
    mapped = "0000000000000000FFFF0000"
    (tables / "tcp6").write_text(HEAD + LINE.format(local=mapped + LOCAL, remote=mapped + REMOTE, state="01", inode=1))
    assert own_connections() == (OWN,)
    assert str(OWN) == "from 198.51.100.7 port 51188 to 192.9.0.1 port 22"


@pytest.mark.parametrize("said", ["", "198.51.100.7 51188 192.9.0.1", "a b c d", "198.51.100.7 x 192.9.0.1 22"])
def test_what_sshd_did_not_say_is_no_connection(tables: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("SSH_CONNECTION", said)
    (tables / "tcp").write_text(HEAD + LINE.format(local=LOCAL, remote=REMOTE, state="01", inode=1))
    assert own_connections() == ()


def test_an_ipv6_address_is_read_in_the_order_of_the_machine(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "fd09::2 1000 fd09::1 22")
    ends = ("000009FD000000000000000001000000:0016", "000009FD000000000000000002000000:03E8")
    (tables / "tcp6").write_text(HEAD + LINE.format(local=ends[0], remote=ends[1], state="01", inode=1))
    (found,) = own_connections()
    assert (str(found.local), found.remote_port) == ("fd09::1", 1000)


@pytest.mark.parametrize(
    ("rules", "unmatched", "secure", "live", "expected"),
    [
        (SSH.format(action="bypass"), "discard", True, (), ""),
        (SSH.format(action="bypass") + PROTECT, "bypass", False, (), ""),
        ("", "bypass", False, (), ""),
        ("", "bypass", True, (), "no rule of {path} matches it, so it is dropped"),
        ("", "discard", False, (), "no rule of {path} matches it, so it is dropped"),
        (SSH.format(action="discard"), "bypass", False, (), 'rule "ssh" ({path}:9) discards it'),
        (PROTECT, "bypass", False, (), 'rule "all" ({path}:9) protects it, and it is in clear now'),
        (PROTECT, "bypass", False, ("all",), ""),
        (
            '[[rules]]\nname = "there"\naction = "discard"\ninterface = "lo"\n',
            "bypass",
            False,
            (),
            "{path}:9) discards",
        ),
    ],
)
@pytest.mark.root
def test_a_policy_cuts_a_connection_or_not(
    tmp_path: Path, rules: str, unmatched: str, secure: bool, live: tuple[str, ...], expected: str
) -> None:
    path = tmp_path / "ipsec.spd"
    path.write_text(POLICY.format(rules=rules, unmatched=unmatched))
    path.chmod(0o600)
    os.chown(path, 0, 0)
    told = cut_by(policy_check.check(str(path)), str(path), (OWN,), secure=secure, live=frozenset(live))
    assert bool(told) is bool(expected)
    assert expected.format(path=path) in told
    assert told.startswith(f"this would cut your own SSH connection {OWN}: ") or not expected


def test_who_would_be_cut_off_is_told_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    refuse("", allowed=False)
    with pytest.raises(WouldCut, match=r"this would cut(.|\n)*--confirm SECONDS(.|\n)*--cut-me-off"):
        refuse("this would cut", allowed=False)
    refuse("this would cut", allowed=True)
    assert capsys.readouterr().err == "ipsecctl: warning: this would cut\n"
