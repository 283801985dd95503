"""Reloads with an error at each line of a policy in turn, by a loader and an agent: nothing ever changes (T39)."""

import random
from typing import Any

import pytest

from ipc import messages as m
from ipc.algorithms import AES256GCM16
from ipc.types import DataPathKind, Direction, Secret
from kernel_agent.agent import Agent, Speech, Surroundings
from kernel_agent.memory import MemoryPath
from tests.kernel_agent.values import sa, selector
from tests.policy_loader.loader_world import World

RULES = 40
POLICY = """\
[setup]
interfaces = ["eth0"]
unmatched = "discard"

# the other site
[proposals.strong]
ike = ["aes256gcm16-prfsha384-x25519"]
esp = ["aes256gcm16-esn"]

[peers.branch]
address = "10.9.0.2"
local_address = "10.9.0.1"
local_id = "hq.example.net"
remote_id = "branch.example.net"
auth = "psk"
psk = "correct horse battery staple"
proposals = "strong"
""" + "".join(
    f"""
[[rules]]
name = "net {number}"
action = "protect"
local = ["10.1.{number}.0/24"]
remote = ["10.2.{number}.0/24"]
peer = "branch"
"""
    for number in range(RULES)
)
LINES = POLICY.splitlines()


def pair_of(rule: m.KernelRule, number: int) -> tuple[m.Sa, ...]:
    """The SAs of a rule, both ways."""
    what: Any = {
        "rule_id": rule.rule_id,
        "cipher": AES256GCM16,
        "encryption_key": Secret(bytes(36)),
        "local": (selector(f"10.1.{number}.0/24"),),
        "remote": (selector(f"10.2.{number}.0/24"),),
    }
    return sa(Direction.IN, 0x1000 + number, **what), sa(Direction.OUT, 0x2000 + number, **what)


class Host:
    """A loader and an agent that hear each other; the supervisor is the test."""

    def __init__(self) -> None:
        self.path = MemoryPath()
        self.loader = World()
        self.loader.answers_checks = False
        self.agent = Agent(
            Speech(
                supervisor=lambda _message: True,
                loader=self._tell_loader,
                worker=lambda _message: True,
            ),
            Surroundings(
                now=lambda: 0.0,
                random_bytes=random.Random(3).randbytes,
                interfaces=lambda: ("lo", "eth0"),
                make_data_path=lambda _message: self.path,
            ),
        )
        self._handlers: Any = self.agent.loader_handlers()
        self.agent.on_use_data_path(m.UseDataPath(kind=DataPathKind.KERNEL, tun_interface=""))

    def _tell_loader(self, message: object) -> bool:
        self.loader.agent.deliver(message)
        return True

    def settle(self) -> list[object]:
        """Lets the two speak until they have nothing more to say; what the supervisor hears of it."""
        while heard := self.loader.agent.take():
            for message in heard:
                self._handlers[type(message)](message, b"loader")
        return self.loader.supervisor.take()

    def reload(self, generation: int, text: str) -> object:
        """As a supervisor does it; how it ended."""
        (answer,) = [*self.loader.parse(generation, text), *self.settle()]
        if isinstance(answer, m.PolicyParsed):
            self.loader.supervisor.deliver(m.EnforcePolicy(generation=generation))
            (answer,) = self.settle()
        return answer


@pytest.fixture
def host() -> Host:
    made = Host()
    assert made.reload(1, POLICY) == m.PolicyEnforced(generation=1)
    rules = {rule.name: rule for rule in made.path.policy.rules} if made.path.policy else {}
    made.agent.on_sync_sa(m.SyncSa(sas=(), last=True))
    for number in range(RULES):
        made.agent.on_add_sa(m.AddSa(request_id=number, sas=pair_of(rules[f"net {number}"], number)))
    assert len(made.path.sas) == 2 * RULES
    made.loader.worker.take()
    return made


def test_t39_a_line_that_is_no_toml_anywhere_changes_nothing(host: Host) -> None:
    policy, sas = host.path.policy, dict(host.path.sas)
    for number in range(len(LINES) + 1):
        broken = [*LINES[:number], "?!", *LINES[number:]]
        refused = host.reload(number + 2, "\n".join(broken))
        assert isinstance(refused, m.PolicyRefused)
        assert refused.errors[0].startswith(f"/etc/ipsec.spd:{number + 1}:")
        assert host.path.policy is policy
        assert host.path.sas == sas
    assert host.loader.worker.take() == []


def test_t39_a_key_that_nobody_knows_at_any_line_changes_nothing(host: Host) -> None:
    policy, sas = host.path.policy, dict(host.path.sas)
    tried = 0
    for number, line in enumerate(LINES):
        if "=" not in line:
            continue
        tried += 1
        broken = [*LINES[:number], "x" + line, *LINES[number + 1 :]]
        refused = host.reload(number + 2, "\n".join(broken))
        assert isinstance(refused, m.PolicyRefused)
        assert any(error.startswith(f"/etc/ipsec.spd:{number + 1}:") for error in refused.errors)
        assert host.path.policy is policy
        assert host.path.sas == sas
    assert tried > 5 * RULES
    assert host.loader.worker.take() == []


def test_t28_t30_a_good_one_after_all_that_cuts_the_sas_of_the_rule_that_changed_alone(host: Host) -> None:
    before = dict(host.path.sas)
    assert isinstance(host.reload(2, POLICY + "?!"), m.PolicyRefused)
    assert host.reload(3, POLICY.replace("10.2.7.0/24", "10.2.99.0/24")) == m.PolicyEnforced(generation=3)
    gone = [sa for name, sa in before.items() if name not in host.path.sas]
    assert sorted({str(sa.remote[0].start_address) for sa in gone}) == ["10.2.7.0"]
    assert len(gone) == 2
