"""up, down, rekey, list, why, monitor and capture-keys against a real supervisor with a stand-in worker."""

import json
import os
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.namespaces import Namespace
from tests.lab.stage import Stage

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One supervisor for all: none of these commands changes it."""
    with Namespace("desk") as namespace, Stage(namespace) as made:
        made.start_stand_ins()
        yield made


def ctl(stage: Stage, *arguments: str) -> tuple[int, str]:
    done = stage.run("ipsecctl", "--instance", str(stage.directory), *arguments)
    return done.returncode, done.stdout


def in_json(stage: Stage, *arguments: str) -> Any:
    return json.loads(ctl(stage, *arguments, "--json")[1])


@pytest.mark.parametrize("verb", ["up", "down", "rekey"])
def test_a_wish_is_carried_out_or_says_why_not(stage: Stage, verb: str) -> None:
    assert ctl(stage, verb, "lan") == (0, f"{verb.upper()} lan\n")
    assert ctl(stage, verb, "fails") == (1, "it can't be done\nreally not\n")
    assert in_json(stage, verb, "fails") == {"done": False, "lines": ["it can't be done", "really not"]}


def test_no_worker_is_waited_for_beyond_the_timeout(stage: Stage) -> None:
    assert ctl(stage, "up", "silent", "--timeout", "0.1") == (1, "the IKE worker does not answer\n")


def test_what_can_t_be_meant_is_a_usage_error(stage: Stage) -> None:
    assert ctl(stage, "up", "lan", "--timeout", "0")[0] == 2
    assert ctl(stage, "up", "x" * 129) == (2, "ipsecctl: no name is longer than 128 characters\n")
    assert ctl(stage, "up")[0] == 2
    elsewhere = stage.run("ipsecctl", "--instance", f"{stage.base}/nowhere", "list")
    assert (elsewhere.returncode, elsewhere.stdout) == (1, "ipsecctl: IPsec is not running\n")


def test_the_list_has_all_parts_with_traffic_where_it_is_known(stage: Stage) -> None:
    code, text = ctl(stage, "list")
    assert code == 0
    for word in ("peer-1", "peer-2", "0101010101010101", "rule-1", "00001001", "00002002", " 1h ", " 2h ", "never"):
        assert word in text
    assert "7 packets, 2.0 KiB" in text and "not known" in text
    assert "10.1.0.0-10.1.0.255 proto 6" in text
    # Each on a line of its own, since they may be many.
    assert "10.1.0.0-10.1.0.255 proto 6," not in text
    one, two = in_json(stage, "list")["ike_sas"]
    assert (one["peer"], two["peer"], one["rekey_in_s"], one["reauth_in_s"]) == ("peer-1", "peer-2", 7200.0, None)
    assert one["children"][0]["inbound"] == {"packets": 7, "bytes": 2048, "idle_s": 1.0}
    assert two["children"][0]["inbound"] is None


def test_why_shows_both_lists_side_by_side(stage: Stage) -> None:
    code, text = ctl(stage, "why", "branch")
    assert (code, text.splitlines()) == (
        0,
        [
            "1m 1s ago (3 times since 2m 2s ago) with branch at 192.0.2.2:500, rule lan",
            "we answered NO_PROPOSAL_CHOSEN in IKE_SA_INIT",
            "",
            "our IKE proposals             their IKE proposals",
            "aes256gcm16-prfsha256-x25519  aes256gcm16-prfsha256-ecp256",
            "                              aes128gcm16-prfsha256-ecp256",
            "",
            "differs: key exchange: ours x25519, theirs ecp256",
            "remedy: have it otherwise",
            "",
            "before that  times  what",
            "1h 1m ago    4      the peer does not answer",
            "2h 1m ago    1      we answered NO_PROPOSAL_CHOSEN in IKE_SA_INIT; "
            "key exchange: ours x25519, theirs ecp256",
        ],
    )
    failure = in_json(stage, "why", "branch")
    assert (failure["notify"], failure["age_s"], len(failure["theirs"])) == ("NO_PROPOSAL_CHOSEN", 61.0, 2)
    assert (failure["times"], failure["since_s"], failure["earlier"][0]["age_s"]) == (3, 122.0, 3700.0)
    assert "at" not in failure and "at" not in failure["earlier"][0]


def test_the_monitor_shows_lines_or_objects(stage: Stage) -> None:
    code, text = ctl(stage, "monitor", "--json", "--count", "2")
    first, second = (json.loads(line) for line in text.splitlines())
    assert (code, first["kind"]) == (0, "monitoring")
    assert second == {
        "at": 1.0,
        "kind": "ike-sa-closed",
        "text": "it is closed",
        "peer": "branch",
        "reason": "a stand-in",
    }
    code, text = ctl(stage, "monitor", "--count", "2")
    assert (code, text.splitlines()[1].partition("ike-sa-closed")[2]) == (0, "  it is closed: a stand-in")


def test_capture_keys_are_for_root_alone_and_the_log_says_who_asked(stage: Stage) -> None:
    directory = stage.base / "keys"
    code, text = ctl(stage, "capture-keys", "--peer", "branch", str(directory))
    assert (code, text.splitlines()[0]) == (0, f"1 IKE SAs and 1 ESP SAs are in {directory}")
    ike, esp = directory / "ikev2_decryption_table", directory / "esp_sa"
    assert ike.read_text() == (
        f"{b'initiato'.hex()},{b'responde'.hex()},{'11' * 36},{'22' * 36},"
        '"AES-GCM-256 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"\n'
    )
    assert esp.read_text() == (
        '"IPv4","192.0.2.2","192.0.2.1","0x00001001","AES-CBC [RFC3602]",'
        f'"0x{"33" * 16}","HMAC-SHA-256-128 [RFC4868]","0x{"44" * 32}"\n'
    )
    assert [stat.S_IMODE(path.stat().st_mode) for path in (directory, ike, esp)] == [0o700, 0o600, 0o600]
    assert sorted(os.listdir(directory)) == ["esp_sa", "ikev2_decryption_table"]
    log = (stage.directory / "ipsecd.log").read_text()
    assert "capture keys of branch are asked for by" in log
    assert "33" * 16 not in log and "11" * 36 not in log
    assert ctl(stage, "capture-keys", str(stage.spd)) == (1, f"ipsecctl: {stage.spd}: File exists\n")
