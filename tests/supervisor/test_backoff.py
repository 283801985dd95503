"""How long a role that died stays dead."""

from supervisor.backoff import FAILED_DEATHS, Backoff


def test_the_first_restart_is_at_once_and_later_ones_wait_longer_up_to_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.next_delay_s(0.5) for _ in range(10)] == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_minute_of_life_is_forgiven() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next_delay_s(1.0)
    assert backoff.next_delay_s(59.9) == 16
    assert backoff.next_delay_s(60.0) == 0
    assert backoff.next_delay_s(1.0) == 1


def test_a_thousand_deaths_still_wait_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.next_delay_s(0.0) for _ in range(1000)][-1] == 60


def test_five_deaths_within_a_minute_are_a_failure_and_four_are_none() -> None:
    backoff = Backoff()
    failed = []
    for _ in range(FAILED_DEATHS):
        backoff.next_delay_s(0.5)
        failed.append(backoff.failed)
    assert failed == [False, False, False, False, True]


def test_five_deaths_in_more_than_a_minute_are_no_failure() -> None:
    backoff = Backoff()
    for _ in range(FAILED_DEATHS):
        backoff.next_delay_s(14.0)
    # Four lives of 14 s, and waits of 0, 1, 2 and 4 s between them.
    assert not backoff.failed


def test_a_failed_role_is_tried_again_and_its_record_is_cleared_when_it_holds() -> None:
    backoff = Backoff()
    for _ in range(FAILED_DEATHS + 1):
        delay_s = backoff.next_delay_s(0.5)
    assert (backoff.failed, delay_s) == (True, 16)
    backoff.forgive()
    assert not backoff.failed
    assert backoff.next_delay_s(0.5) == 0
