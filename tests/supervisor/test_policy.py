"""The way of a policy: offered, parsed, enforced; and what a loader that was started again is given."""

import dataclasses

from ipc import messages as m
from ipc.types import DataPathKind, IpForward, Secret
from supervisor.files import FileContent
from supervisor.policy import BUSY, PolicyKeeper

FILE = FileContent(path="/etc/ipsec.spd", content=Secret(b"first"), mode=0o600, uid=0)
NEXT = FileContent(path="/etc/ipsec.spd", content=Secret(b"second"), mode=0o600, uid=0)


class Loader:
    """A keeper, what it sent to its loader, and what it said in the end."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.ends: list[tuple[bool, tuple[str, ...]]] = []
        self.data_path_in_use = True
        self.keeper = PolicyKeeper(self._send, lambda: self.data_path_in_use)

    def _send(self, message: object) -> bool:
        self.sent.append(message)
        return True

    def offer(self, file: FileContent) -> None:
        self.keeper.offer(file, lambda in_force, lines: self.ends.append((in_force, lines)))

    def put_in_force(self, file: FileContent, generation: int) -> None:
        self.offer(file)
        self.keeper.on_parsed(parsed(generation))
        self.keeper.on_enforced(m.PolicyEnforced(generation=generation))
        self.sent.clear()
        self.ends.clear()


def parsed(generation: int, warnings: tuple[str, ...] = ()) -> m.PolicyParsed:
    return m.PolicyParsed(
        generation=generation,
        sha256=bytes(32),
        rules=3,
        data_path=DataPathKind.AUTO,
        interfaces=(),
        ip_forward=IpForward.LEAVE,
        warnings=warnings,
    )


def parse(file: FileContent, generation: int) -> m.ParsePolicy:
    return m.ParsePolicy(generation=generation, path=file.path, content=file.content, mode=file.mode, uid=file.uid)


def test_a_policy_offered_before_the_loader_is_up_is_parsed_when_it_comes() -> None:
    loader = Loader()
    loader.offer(FILE)
    assert loader.sent == []
    loader.keeper.loader_came()
    assert loader.sent == [parse(FILE, 1)]


def test_a_good_policy_is_parsed_enforced_and_then_in_force() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.offer(FILE)
    loader.keeper.on_parsed(parsed(1, ("a warning",)))
    assert loader.sent == [parse(FILE, 1), m.EnforcePolicy(generation=1)]
    assert loader.keeper.in_force is None
    loader.keeper.on_enforced(m.PolicyEnforced(generation=1))
    assert loader.keeper.in_force is not None
    assert loader.ends == [(True, ("a warning",))]


def test_nothing_is_enforced_before_the_agent_has_a_data_path() -> None:
    loader = Loader()
    loader.data_path_in_use = False
    loader.keeper.loader_came()
    loader.offer(FILE)
    loader.keeper.enforce()
    loader.keeper.on_parsed(parsed(1))
    assert m.EnforcePolicy(generation=1) not in loader.sent
    loader.keeper.enforce()
    assert loader.sent[-1] == m.EnforcePolicy(generation=1)


def test_a_refused_file_changes_nothing_and_every_error_is_told() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.put_in_force(FILE, 1)
    loader.offer(NEXT)
    loader.keeper.on_refused(m.PolicyRefused(generation=2, errors=("one", "two")))
    assert loader.keeper.in_force is not None
    assert loader.keeper.in_force.file is FILE
    assert loader.ends == [(False, ("one", "two"))]
    assert loader.keeper.refused == ("one", "two")


def test_a_policy_that_the_kernel_does_not_take_changes_nothing() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.put_in_force(FILE, 1)
    loader.offer(NEXT)
    loader.keeper.on_parsed(parsed(2))
    loader.keeper.on_not_enforced(m.PolicyNotEnforced(generation=2, reason="no memory"))
    assert loader.keeper.in_force is not None
    assert loader.keeper.in_force.generation == 1
    assert loader.ends == [(False, ("no memory",))]


def test_a_good_file_after_a_refused_one_clears_the_refusal() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.offer(FILE)
    loader.keeper.on_refused(m.PolicyRefused(generation=1, errors=("one",)))
    loader.put_in_force(NEXT, 2)
    assert loader.keeper.refused == ()


def test_a_new_loader_gets_the_content_in_force_and_enforces_it() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.put_in_force(FILE, 1)
    loader.keeper.loader_went()
    loader.keeper.loader_came()
    assert loader.sent == [parse(FILE, 1)]
    loader.keeper.on_parsed(parsed(1))
    assert loader.sent[-1] == m.EnforcePolicy(generation=1)
    loader.keeper.on_enforced(m.PolicyEnforced(generation=1))
    assert loader.ends == []
    assert not loader.keeper.loader_lacks_policy


def test_a_new_loader_that_refuses_the_content_in_force_is_noticed() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.put_in_force(FILE, 1)
    loader.keeper.loader_went()
    loader.keeper.loader_came()
    loader.keeper.on_refused(m.PolicyRefused(generation=1, errors=("the psk file is gone",)))
    assert loader.keeper.loader_lacks_policy
    assert loader.keeper.in_force is not None


def test_a_loader_that_dies_with_an_offered_policy_ends_the_offer() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.put_in_force(FILE, 1)
    loader.offer(NEXT)
    loader.keeper.loader_went()
    assert [in_force for in_force, _ in loader.ends] == [False]
    loader.sent.clear()
    loader.keeper.loader_came()
    assert loader.sent == [parse(FILE, 1)]


def test_one_policy_at_a_time() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.offer(FILE)
    loader.offer(NEXT)
    assert loader.ends == [(False, (BUSY,))]
    assert loader.sent == [parse(FILE, 1)]


def test_an_offer_expires_once_and_only_its_own() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.offer(FILE)
    loader.keeper.expire(7)
    assert loader.ends == []
    loader.keeper.expire(1)
    loader.keeper.expire(1)
    assert loader.ends == [(False, ("the policy loader did not finish in time",))]


def test_late_answers_of_another_generation_mean_nothing() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    loader.offer(FILE)
    loader.keeper.on_enforced(m.PolicyEnforced(generation=9))
    loader.keeper.on_refused(m.PolicyRefused(generation=9, errors=("x",)))
    loader.keeper.on_not_enforced(m.PolicyNotEnforced(generation=9, reason="x"))
    assert (loader.ends, loader.keeper.in_force) == ([], None)


def test_a_file_counts_as_named_only_where_a_policy_has_it_in_quotes() -> None:
    loader = Loader()
    text = b"""psk_file = "/etc/ipsecd/branch.psk"\nother = '/etc/ipsecd/other.psk' # /etc/shadow"""
    loader.offer(FileContent(path="/etc/ipsec.spd", content=Secret(text), mode=0o600, uid=0))
    named = ("/etc/ipsecd/branch.psk", "/etc/ipsecd/other.psk")
    assert all(loader.keeper.names(path) for path in named)
    assert not any(loader.keeper.names(path) for path in ("/etc/shadow", "/etc/ipsecd/branch", "/etc/ipsecd"))


def test_a_new_loader_may_have_the_files_of_the_policy_in_force() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    file = FileContent(path="/etc/ipsec.spd", content=Secret(b'"/etc/ipsecd/branch.psk"'), mode=0o600, uid=0)
    loader.put_in_force(file, 1)
    loader.offer(NEXT)
    assert loader.keeper.names("/etc/ipsecd/branch.psk")


def test_t45_the_templates_go_to_the_loader_with_the_policy_and_may_name_files() -> None:
    loader = Loader()
    loader.keeper.loader_came()
    templates = FileContent(
        path="/etc/ipsec.templates", content=Secret(b"ca_files = ['/etc/ca.pem']"), mode=0o640, uid=7
    )
    loader.offer(dataclasses.replace(FILE, templates=templates))
    (sent,) = loader.sent
    assert isinstance(sent, m.ParsePolicy)
    assert (sent.templates_path, sent.templates, sent.templates_mode, sent.templates_uid) == (
        templates.path,
        templates.content,
        0o640,
        7,
    )
    assert loader.keeper.names("/etc/ca.pem")
