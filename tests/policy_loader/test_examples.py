"""The examples are policies, and there is nothing to warn of in them but what only their place can have."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from ipc.types import Secret
from policy_loader import policy_file
from policy_loader.policy_file import FetchedFile, FoundHost
from policy_loader.rule_ids import RuleIds
from policy_loader.sources.file import SourceFile

EXAMPLES = Path(__file__).parents[2] / "examples"
KEYS = {"in": "a1" * 64, "out": "b2" * 64}


def fetched(path: str) -> FetchedFile:
    name = Path(path).stem.rpartition("-")[2]
    return FetchedFile(content=Secret(KEYS.get(name, "a pre-shared key, long enough").encode()), mode=0o600, uid=0)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.spd")), ids=lambda path: path.parent.name)
def test_an_example_is_a_policy(path: Path) -> None:
    beside = path.with_name("ipsec.templates")
    templates = None
    if beside.exists():
        templates = SourceFile(path=str(beside), content=Secret(beside.read_bytes()), mode=0o600, uid=0)
    file = policy_file.read(str(path), path.read_bytes(), 0o600, 0, templates)
    hosts = {name: FoundHost(addresses=(ip_address("203.0.113.5"),)) for name in file.host_names()}
    loaded = file.compile({name: fetched(name) for name in file.secret_files()}, RuleIds(), hosts)
    assert loaded.warnings == ()
    assert loaded.policy.kernel_rules
