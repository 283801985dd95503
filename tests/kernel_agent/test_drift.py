"""Policies that another program deletes, changes or adds: noticed, and put right, where they are ours."""

from collections.abc import Iterator

import pytest

from ipc import messages as m
from ipc.loop import Loop
from ipc.types import Action
from kernel_agent import clean, drift
from kernel_agent.data_path import SecurityPolicy
from kernel_agent.xfrm.xfrm_path import XfrmPath
from tests.kernel_agent.test_agent import Conversation
from tests.kernel_agent.values import policy, rule
from tests.lab.namespaces import Namespace

ENDS = ("src", "10.1.0.0/24", "dst", "10.2.0.0/24")
INSTALLED = policy(rule(1), rule(2, Action.DISCARD, remote=("10.3.0.0/24",)))


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("drift") as made:
        yield made


@pytest.fixture
def path(namespace: Namespace) -> Iterator[XfrmPath]:
    made = namespace.call(lambda: XfrmPath(Loop(), drop_leftovers=clean.Removed))
    made.install_policy(INSTALLED)
    yield made
    made.leave()


@pytest.mark.root
def test_a_deleted_policy_is_noticed_at_the_next_look_and_comes_back(namespace: Namespace, path: XfrmPath) -> None:
    assert path.drift(INSTALLED) == ()
    before = sorted(namespace.ip("-o", "xfrm", "policy").splitlines())
    namespace.ip("xfrm", "policy", "delete", *ENDS, "dir", "out")
    (said,) = path.drift(INSTALLED)
    assert said.startswith("1 missing, such as out 10.1.0.0/24 to 10.2.0.0/24")
    path.install_policy(INSTALLED)
    assert sorted(namespace.ip("-o", "xfrm", "policy").splitlines()) == before
    assert path.drift(INSTALLED) == ()


@pytest.mark.root
def test_a_policy_of_somebody_else_is_no_drift(namespace: Namespace, path: XfrmPath) -> None:
    namespace.ip("xfrm", "policy", "add", "src", "10.77.0.0/24", "dst", "10.78.0.0/24", "dir", "out", "priority", "7")
    assert path.drift(INSTALLED) == ()


@pytest.mark.root
def test_a_change_that_leaves_their_number_is_noticed_by_and_by(namespace: Namespace, path: XfrmPath) -> None:
    namespace.ip("xfrm", "policy", "update", *ENDS, "dir", "out", "priority", "1", "action", "allow")
    said = [path.drift(INSTALLED) for _ in range(drift.READ_EVERY_LOOKS)]
    assert [one for one in said[:-1] if one] == []
    (last,) = said[-1]
    assert last.startswith("1 changed, such as out 10.1.0.0/24")


@pytest.mark.root
def test_all_of_them_flushed_are_counted(namespace: Namespace, path: XfrmPath) -> None:
    count = len(namespace.ip("-o", "xfrm", "policy").splitlines())
    namespace.ip("xfrm", "policy", "flush")
    assert path.drift(INSTALLED)[0].startswith(f"{count} missing")


def differing(conversation: Conversation, *differences: str) -> None:
    conversation.path.policy = None
    conversation.path.differences = differences
    conversation.agent.look_for_drift()


def test_the_agent_installs_the_policy_again_and_says_how_it_differed() -> None:
    conversation = Conversation()
    conversation.run()
    differing(conversation)
    assert conversation.path.policy is None
    differing(conversation, "1 missing, such as a", "2 changed, such as b")
    assert isinstance(conversation.path.policy, SecurityPolicy)
    what = "1 missing, such as a; 2 changed, such as b"
    assert conversation.supervisor[-1] == m.PolicyDrift(what=what, failure="")


def test_the_agent_says_that_it_could_not_be_put_right() -> None:
    conversation = Conversation()
    conversation.run()
    conversation.path.refuse_policies = "the kernel refused the policy"
    differing(conversation, "1 missing, such as a")
    failure = "the kernel refused the policy"
    assert conversation.supervisor[-1] == m.PolicyDrift(what="1 missing, such as a", failure=failure)


def test_before_there_is_a_policy_there_is_nothing_to_look_at() -> None:
    conversation = Conversation()
    differing(conversation, "1 missing")
    assert conversation.supervisor == []
