"""The plan of a reload, for people."""

from ipc import messages as m
from ipsecctl.commands.reload import LONGEST_LIST, plan_lines


def cut(number: int, rule: str = "lan") -> m.CutSa:
    return m.CutSa(peer="branch", rule=rule, spi_in=f"{number:08x}", spi_out=f"{number + 1:08x}")


def test_a_plan_names_rules_and_the_very_sas_that_it_cuts() -> None:
    changes = m.PolicyChanges(
        added=("new",),
        changed=("lan", "dmz"),
        added_count=1,
        changed_count=2,
        kept_count=5,
        peers=("b",),
        peers_count=1,
    )
    plan = m.ReloadPlan(changes=changes, cut=(cut(0x100), cut(0x200, rule="")), cut_count=2)
    assert plan_lines(plan) == [
        "rules",
        "added      1  new",
        "changed    2  lan, dmz",
        "removed    0",
        "unchanged  5",
        "",
        "peers that change or go: b",
        "",
        "2 SAs would be cut:",
        "peer    rule          spi in    spi out",
        "branch  lan           00000100  00000101",
        "branch  (the IKE SA)  00000200  00000201",
        "",
        "nothing was changed",
    ]


def test_a_plan_that_cuts_nothing_says_so() -> None:
    plan = m.ReloadPlan(changes=m.PolicyChanges(kept_count=3), cut=(), cut_count=0)
    assert plan_lines(plan)[-1] == "no SA would be cut; nothing was changed"


def test_long_lists_are_cut_short_and_counted() -> None:
    names = tuple(f"r{number}" for number in range(m.MAX_NAMED))
    changes = m.PolicyChanges(removed=names, removed_count=5000)
    plan = m.ReloadPlan(changes=changes, cut=tuple(cut(number) for number in range(m.MAX_NAMED)), cut_count=4000)
    lines = plan_lines(plan)
    assert f"r{LONGEST_LIST - 1}, and {5000 - LONGEST_LIST} more" in lines[3]
    assert f"and {4000 - LONGEST_LIST} more" in lines
    assert len(lines) < 40
