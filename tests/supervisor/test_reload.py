"""Reload, plan, confirm and roll back, between a policy file and a loader that is played by the test."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ipc import messages as m
from ipc.generations import generations
from ipc.loop import Loop, Timer
from ipc.patience import for_policy
from ipc.types import DataPathKind, IpForward, Mode
from supervisor.files import read_policy
from supervisor.generations import Generations
from supervisor.policy import PolicyKeeper
from supervisor.reload import GO_BACK_AGAIN_S, RELOAD_WITHIN_S, Reloads, Surroundings
from supervisor.start_policy import StartPolicies
from supervisor.tunnels import Tunnels

GOOD, BAD = "good", "refuse"


class FakeLoop(Loop):
    """Time on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.timers: list[Timer] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.now + delay_s, callback)
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [one for one in self.timers if one.when <= self.now]:
            self.timers.remove(timer)
            if timer.callback is not None:
                timer.callback()


class World:
    """A running instance, as far as its policy goes. `answers` off: the loader says nothing."""

    def __init__(self, directory: Path) -> None:
        self.spd = directory / "ipsec.spd"
        self.loop = FakeLoop()
        self.tunnels = Tunnels()
        self.adapted = 0
        self.why_not = ""
        self.answers = True
        self.enforced: list[str] = []
        self.changes = m.PolicyChanges()
        self.keeper = PolicyKeeper(self._hear, lambda: True)
        self.reloads = Reloads(
            self.keeper,
            Generations(str(self.spd)),
            Surroundings(loop=self.loop, tunnels=self.tunnels, why_not=lambda: self.why_not, adapt=self._adapt),
        )
        self._contents: dict[int, str] = {}
        self.keeper.loader_came()

    def _adapt(self) -> tuple[str, ...]:
        self.adapted += 1
        return ()

    def _hear(self, message: object) -> bool:
        if not self.answers:
            return True
        if isinstance(message, m.ParsePolicy):
            text = self._contents[message.generation] = message.content.reveal().decode()
            if BAD in text:
                errors = (f"{message.path}:1:1: refuse: this word is refused",)
                self.keeper.on_refused(m.PolicyRefused(generation=message.generation, errors=errors))
            else:
                self.keeper.on_parsed(self._parsed(message.generation))
        elif isinstance(message, m.EnforcePolicy):
            self.enforced.append(self._contents[message.generation])
            self.keeper.on_enforced(m.PolicyEnforced(generation=message.generation))
        return True

    def _parsed(self, generation: int) -> m.PolicyParsed:
        return m.PolicyParsed(
            generation=generation,
            sha256=bytes(32),
            rules=3,
            data_path=DataPathKind.AUTO,
            interfaces=(),
            ip_forward=IpForward.LEAVE,
            warnings=("a warning",),
            changes=self.changes,
        )

    def write(self, text: str) -> None:
        self.spd.write_text(text)
        self.spd.chmod(0o600)

    def start(self, text: str) -> None:
        self.write(text)
        self.keeper.offer(read_policy(str(self.spd)), lambda _in_force, _lines: None)
        self.reloads.started()
        self.enforced.clear()

    def reload(self, text: str = "", confirm_s: float = 0.0) -> m.CommandDone:
        if text:
            self.write(text)
        return self._end(lambda finished: self.reloads.reload(finished, confirm_s))

    def roll_back(self, number: int, confirm_s: float = 0.0) -> m.CommandDone:
        return self._end(lambda finished: self.reloads.roll_back(number, finished, confirm_s))

    def plan(self) -> m.CommandDone:
        heard: list[m.CommandDone] = []
        self.reloads.plan(heard.append)
        (done,) = heard
        return done

    def in_force(self) -> str:
        return self.keeper.in_force.file.content.reveal().decode() if self.keeper.in_force is not None else ""

    def kept(self) -> list[str]:
        return [Path(one.path).read_text() for one in generations(str(self.spd))]

    def backup(self) -> str:
        path = Path(f"{self.spd}.bak")
        return path.read_text() if path.exists() else ""

    def next_start_takes(self) -> str:
        return StartPolicies(Generations(str(self.spd)), only_backup=False).first().file.content.reveal().decode()

    @staticmethod
    def _end(ask: Callable[[Callable[[bool, tuple[str, ...]], None]], None]) -> m.CommandDone:
        heard: list[m.CommandDone] = []
        ask(lambda in_force, lines: heard.append(m.CommandDone(exit_code=0 if in_force else 1, lines=lines)))
        (done,) = heard
        return done


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.start("good one")
    return made


# ----------------------------------------------------------------- reload


def test_t36_a_reload_puts_the_file_in_force_and_keeps_what_was(world: World) -> None:
    done = world.reload("good two")
    assert (done.exit_code, done.lines[0]) == (0, "policy generation 2 is in force: 3 rules")
    assert (world.in_force(), world.backup(), world.kept()) == ("good two", "good one", ["good one", "good two"])
    assert world.adapted == 1


def test_t39_a_reload_of_an_invalid_file_changes_nothing_and_says_why(world: World) -> None:
    done = world.reload("refuse this")
    assert done.exit_code == 1
    assert done.lines[0].endswith("ipsec.spd:1:1: refuse: this word is refused")
    assert done.lines[-1] == "the new policy is not in force; what ran before goes on"
    assert (world.in_force(), world.backup(), world.kept(), world.adapted) == ("good one", "", ["good one"], 0)
    assert world.keeper.refused == (done.lines[0],)


def test_a_file_that_can_not_be_read_changes_nothing(world: World) -> None:
    world.spd.unlink()
    done = world.reload()
    assert (done.exit_code, world.in_force()) == (1, "good one")
    assert "No such file or directory" in done.lines[0]
    assert world.keeper.refused


def test_no_reload_while_the_instance_is_not_running(world: World) -> None:
    world.why_not = "the instance is stopping"
    assert world.reload("good two").lines == ("the instance is stopping",)
    assert world.roll_back(1).lines == ("the instance is stopping",)
    assert world.in_force() == "good one"


def test_a_loader_that_says_nothing_ends_the_reload(world: World) -> None:
    world.answers = False
    heard: list[bool] = []
    world.reloads.reload(lambda in_force, _lines: heard.append(in_force))
    assert heard == []
    world.loop.advance(for_policy(RELOAD_WITHIN_S, size_bytes=1000))
    assert heard == [False]


def test_a_backup_that_can_not_be_written_is_told_and_stops_nothing(world: World) -> None:
    Path(f"{world.spd}.bak").mkdir()
    done = world.reload("good two")
    assert (done.exit_code, world.in_force()) == (0, "good two")
    assert any("the backup of" in line for line in done.lines)
    assert world.reloads.generations.problem


# ----------------------------------------------------------------- plan


def tunnel(peer: str, *children: m.ChildSaStatus) -> m.IkeSaStatus:
    return m.IkeSaStatus(
        peer=peer,
        state="established",
        initiator=True,
        spi_i=peer.encode().ljust(8)[:8],
        spi_r=b"responds",
        local="192.0.2.1:500",
        remote="192.0.2.2:500",
        algorithms="",
        established_at=1.0,
        children=children,
    )


def child(rule: str, spi: int) -> m.ChildSaStatus:
    return m.ChildSaStatus(
        rule=rule,
        mode=Mode.TUNNEL,
        spi_in=spi,
        spi_out=spi + 1,
        algorithms="",
        local=(),
        remote=(),
        established_at=1.0,
    )


def test_a_plan_says_what_would_change_and_which_sas_go_and_changes_nothing(world: World) -> None:
    first = tunnel("branch", child("lan", 0x100), child("dmz", 0x200), child("old", 0x300))
    second = tunnel("depot", child("depot-lan", 0x400))
    world.tunnels.change(m.TunnelsChanged(changed=(first, second), gone=()))
    world.changes = m.PolicyChanges(
        added=("new",),
        changed=("lan",),
        removed=("old",),
        peers=("depot",),
        added_count=1,
        changed_count=1,
        removed_count=1,
        kept_count=2,
        peers_count=1,
    )
    world.write("good two")
    done = world.plan()
    assert (done.exit_code, done.lines) == (0, ("a warning",))
    assert done.plan is not None
    assert done.plan.changes == world.changes
    assert [(one.peer, one.rule, one.spi_in, one.spi_out) for one in done.plan.cut] == [
        ("branch", "lan", "00000100", "00000101"),
        ("branch", "old", "00000300", "00000301"),
        ("depot", "", b"depot   ".hex(), b"responds".hex()),
        ("depot", "depot-lan", "00000400", "00000401"),
    ]
    assert (world.in_force(), world.enforced, world.kept(), world.backup()) == ("good one", [], ["good one"], "")
    assert world.keeper.offered is None


def test_a_plan_of_an_invalid_file_says_why_and_is_no_refused_reload(world: World) -> None:
    world.write("refuse")
    done = world.plan()
    assert (done.exit_code, done.plan) == (1, None)
    assert done.lines[-1] == "a reload would be refused"
    assert world.keeper.refused == ()


def test_a_plan_does_not_disturb_a_reload(world: World) -> None:
    world.answers = False
    world.reloads.reload(lambda _in_force, _lines: None)
    assert "another policy is being loaded" in world.plan().lines[0]
    assert world.keeper.offered is not None


# ----------------------------------------------------------------- confirm


def test_a_policy_that_is_not_confirmed_goes_back_by_itself(world: World) -> None:
    done = world.reload("good two", confirm_s=60.0)
    assert (done.exit_code, done.lines[-1]) == (0, "it goes back in 60 s: `ipsecctl confirm` keeps it")
    assert (world.in_force(), world.kept(), world.backup()) == ("good two", ["good one"], "")
    assert 0 < world.reloads.confirm_within_s() <= 60
    world.loop.advance(60.0)
    assert (world.in_force(), world.enforced[-1], world.reloads.confirm_within_s()) == ("good one", "good one", 0.0)
    assert world.keeper.refused == ("it was not confirmed within 60 s",)
    assert world.adapted == 2
    assert world.spd.read_text() == "good two"
    assert world.next_start_takes() == "good one"


def test_a_policy_that_is_confirmed_stays(world: World) -> None:
    world.reload("good two", confirm_s=60.0)
    done = world.reloads.confirm()
    assert (done.exit_code, done.lines) == (0, ("the policy in force is confirmed",))
    world.loop.advance(3600.0)
    assert (world.in_force(), world.backup(), world.kept()) == ("good two", "good one", ["good one", "good two"])
    assert (world.next_start_takes(), world.reloads.confirm_within_s()) == ("good two", 0.0)


def test_a_supervisor_that_dies_while_it_waits_comes_back_with_the_policy_before(world: World) -> None:
    world.reload("good two", confirm_s=60.0)
    assert world.next_start_takes() == "good one"
    candidate = StartPolicies(Generations(str(world.spd)), only_backup=False).first()
    assert "was to be confirmed and was not" in candidate.backup_reason


def test_a_supervisor_that_dies_on_the_way_to_an_unconfirmed_policy_does_not_take_it_either(world: World) -> None:
    world.answers = False
    world.write("good two")
    world.reloads.reload(lambda _in_force, _lines: None, 60.0)
    assert world.next_start_takes() == "good one"


def test_a_policy_that_was_not_confirmed_may_be_reloaded(world: World) -> None:
    world.reload("good two", confirm_s=60.0)
    world.loop.advance(60.0)
    assert world.reload().exit_code == 0
    assert (world.in_force(), world.next_start_takes(), world.keeper.refused) == ("good two", "good two", ())


def test_a_reload_that_fails_leaves_no_mark(world: World) -> None:
    assert world.reload("refuse", confirm_s=60.0).exit_code == 1
    assert world.next_start_takes() == "refuse"
    assert world.reloads.confirm_within_s() == 0.0


def test_another_reload_is_refused_while_one_waits(world: World) -> None:
    world.reload("good two", confirm_s=60.0)
    for done in (world.reload("good three"), world.reload(confirm_s=5.0), world.roll_back(1)):
        assert done.exit_code == 1
        assert done.lines[0].startswith("a policy waits for confirmation, for another ")
    assert world.in_force() == "good two"
    world.loop.advance(60.0)
    assert world.in_force() == "good one"


def test_there_must_be_something_to_confirm(world: World) -> None:
    assert world.reloads.confirm() == m.CommandDone(exit_code=1, lines=("no policy waits for confirmation",))


def test_it_goes_back_in_the_end_even_if_the_loader_is_away(world: World) -> None:
    world.reload("good two", confirm_s=60.0)
    world.answers = False
    world.loop.advance(60.0)
    assert world.reloads.confirm().lines == ("too late: the policy before is on its way back",)
    world.keeper.loader_went()
    world.answers = True
    world.keeper.loader_came()
    assert world.in_force() == "good two"
    world.loop.advance(GO_BACK_AGAIN_S)
    assert (world.in_force(), world.reloads.confirm_within_s()) == ("good one", 0.0)


def test_what_can_not_be_gone_back_to_after_a_crash_is_not_begun(world: World) -> None:
    directory = Path(f"{world.spd}.generations")
    directory.chmod(0o755)
    done = world.reload("good two", confirm_s=60.0)
    assert done.exit_code == 1
    assert "what to go back to can't be kept" in done.lines[0]
    assert world.in_force() == "good one"


# ----------------------------------------------------------------- roll back


def test_a_rollback_puts_the_file_back_and_the_present_one_becomes_the_backup(world: World) -> None:
    world.reload("good two")
    world.reload("good three")
    assert world.roll_back(1).exit_code == 0
    assert world.keeper.in_force is not None and world.keeper.in_force.file.path == str(world.spd)
    assert (world.in_force(), world.spd.read_text(), world.backup()) == ("good one", "good one", "good three")
    assert world.kept() == ["good one", "good two", "good three", "good one"]
    assert world.spd.stat().st_mode & 0o777 == 0o600


def test_a_rollback_brings_the_templates_of_that_time(world: World) -> None:
    templates = world.spd.with_name("ipsec.templates")
    templates.write_text("shared one")
    world.reload("good two")
    templates.write_text("shared two")
    world.reload("good three")
    world.roll_back(2)
    assert (world.spd.read_text(), templates.read_text()) == ("good two", "shared one")


def test_a_rollback_to_a_time_without_templates_puts_them_away(world: World) -> None:
    templates = world.spd.with_name("ipsec.templates")
    templates.write_text("shared")
    world.reload("good two")
    assert f"{templates} did not exist then: it is kept as {templates}.replaced" in world.roll_back(1).lines
    assert not templates.exists()
    assert templates.with_name("ipsec.templates.replaced").read_text() == "shared"


def test_a_rollback_that_is_refused_changes_nothing(world: World) -> None:
    world.reload("good two")
    done = world.roll_back(7)
    assert (done.exit_code, done.lines[0].endswith("is not kept; 1 to 2 are")) == (1, True)
    Path(generations(str(world.spd))[0].path).write_text("refuse")
    assert world.roll_back(1).exit_code == 1
    assert (world.in_force(), world.spd.read_text(), world.backup()) == ("good two", "good two", "good one")
    assert world.keeper.refused == (), "the policy file is what runs"
    assert not [path for path in world.spd.parent.iterdir() if path.name.endswith(".new")]


def test_a_file_that_never_ran_survives_a_rollback(world: World) -> None:
    world.reload("good two")
    world.reload("refuse: an hour of work")
    done = world.roll_back(1)
    assert (done.exit_code, world.in_force(), world.backup()) == (0, "good one", "good two")
    assert Path(f"{world.spd}.replaced").read_text() == "refuse: an hour of work"
    assert any("is kept as" in line for line in done.lines)


def test_a_rollback_may_have_to_be_confirmed_too(world: World) -> None:
    world.reload("good two")
    world.roll_back(1, confirm_s=30.0)
    assert (world.in_force(), world.spd.read_text(), world.next_start_takes()) == ("good one", "good two", "good two")
    world.loop.advance(30.0)
    assert (world.in_force(), world.spd.read_text(), world.keeper.refused) == ("good two", "good two", ())
    world.roll_back(1, confirm_s=30.0)
    assert world.reloads.confirm().exit_code == 0
    assert (world.in_force(), world.spd.read_text(), world.backup()) == ("good one", "good one", "good two")
    assert world.next_start_takes() == "good one"


def test_a_stop_while_a_rollback_waits_leaves_no_half_written_file(world: World) -> None:
    world.reload("good two")
    world.roll_back(1, confirm_s=30.0)
    world.reloads.close()
    assert not [path for path in world.spd.parent.iterdir() if path.name.endswith(".new")]
    assert world.next_start_takes() == "good two"
