"""What was worked out last is not worked out again, and what is new is."""

from dataclasses import replace

from kernel_agent.last_result import LastOfEach, LastOfEqual, LastResult
from kernel_agent.xfrm.policies import Planner, kernel_policies, userspace_policies
from tests.kernel_agent.values import rule


def test_the_last_result_is_kept_and_no_other() -> None:
    asked: list[int] = []

    def work(number: int) -> int:
        asked.append(number)
        return number + 1

    last = LastResult(work)
    assert [last.of(1), last.of(1), last.of(2), last.of(1)] == [2, 2, 3, 2]
    assert asked == [1, 2, 1]


def test_of_each_item_that_comes_again_there_is_no_work() -> None:
    asked: list[str] = []

    def work(item: list[str], context: int) -> str:
        asked.append(item[0])
        return f"{item[0]}{context}"

    one, other, equal = ["one"], ["other"], ["one"]
    last: LastOfEach[list[str], str] = LastOfEach(work)
    assert last.of([one, other], 1) == ("one1", "other1")
    assert last.of([other, equal, one], 1) == ("other1", "one1", "one1")
    assert asked == ["one", "other", "one"]
    assert last.of([other], 2) == ("other2",)
    assert last.of([one], 2) == ("one2",)
    assert asked == ["one", "other", "one", "other", "one"]


def test_a_planner_plans_as_if_each_policy_were_its_first() -> None:
    planner = Planner()
    rules = [rule(1), replace(rule(2), interface="wire0"), rule(3, local=("fd01::/64",), remote=("fd02::/64",))]
    for some, tun, interfaces in (
        (rules, 7, {"wire0": 2}),
        (rules[::-1], 7, {"wire0": 2}),
        (rules[1:], 7, {"wire0": 3}),
        (rules, 8, {"wire0": 3}),
    ):
        assert planner.userspace_policies(some, tun, interfaces) == userspace_policies(some, tun, interfaces)
        assert planner.kernel_policies(some, interfaces) == kernel_policies(some, interfaces)


def test_of_each_equal_item_there_is_no_work_and_equal_lists_have_one_result() -> None:
    asked: list[int] = []

    def work(item: int) -> int | None:
        asked.append(item)
        return item + 1 if item % 2 else None

    last = LastOfEqual(work)
    first = last.of([1, 2])
    assert first == (2, None)
    assert last.of([1, 2]) is first
    assert last.of([2, 3, 2]) == (None, 4, None)
    assert asked == [1, 2, 3]
    assert last.of([1]) == (2,)
    assert asked == [1, 2, 3, 1]
