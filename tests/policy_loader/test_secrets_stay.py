"""No complaint ever shows a secret, however a file is broken."""

import random

import pytest

from policy_loader import policy_file
from policy_loader.errors import PolicyError
from policy_loader.rule_ids import RuleIds

SECRETS = ("Xylophone", "quixotic", "c0ffeec0ffee", "deadbeefdeadbeef", "zephyrine")
TEXT = f"""
[setup]
interfaces = ["eth0"]
unmatched = "bypass"

[peers.branch]
address = "198.51.100.7"
local_id = "hq.example.net"
auth = "psk"
psk = "{SECRETS[0]} is no colour"   # was {SECRETS[1]}
liveness = "30s"

[peers]
depot = {{ address = "198.51.100.8", auth = "psk", psk = '{SECRETS[0]}', local_id = "hq" }}
shop.psk = '''
{SECRETS[1]}
name = "{SECRETS[4]}"
[{SECRETS[4]}]
'''
shop.auth = "psk"
shop.address = "198.51.100.9"
shop.local_id = "hq.example.net"

[peers.scales]
address = "198.51.100.10"
local_address = "192.0.2.1"
auth = "manual"
algorithm = "aes256-sha256"
spi_in = 300
spi_out = 301
key_in = "{SECRETS[2] * 10}"
key_out = "{SECRETS[3] * 8}"

[[rules]]
name = "lan"
action = "protect"
remote = ["10.2.0.0/16"]
peer = "branch"
"""
PIECES = ('"', "'", "\n", "=", "[", "]", "{", "}", "#", ",", "\\", "'''", '"""', " ", "\x01", "x", ".", "\r", "1")


def broken(chance: random.Random) -> str:
    """The text with one to three things put in, taken out or cut off."""
    text = TEXT
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(text) + 1)
        kind = chance.random()
        if kind < 0.5:
            text = text[:place] + chance.choice(PIECES) + text[place:]
        elif kind < 0.9:
            text = text[:place] + text[place + chance.randint(1, 3) :]
        else:
            text = text[:place]
    return text


def said_of(text: str) -> str:
    try:
        file = policy_file.read("x", text.encode(), 0o600, 0)
        return "\n".join(file.compile({}, RuleIds()).warnings)
    except PolicyError as error:
        return "\n".join(error.complaints)
    except KeyError:  # it names a file that nobody has
        return ""


@pytest.mark.parametrize("seed", range(8))
def test_however_a_file_is_broken_no_secret_is_shown(seed: int) -> None:
    chance = random.Random(seed)
    complaints = 0
    for _ in range(250):
        text = broken(chance)
        said = said_of(text)
        complaints += bool(said)
        assert not [secret for secret in SECRETS if secret in said], f"{said}\n--- of ---\n{text}"
    assert complaints > 100
