"""Plain text for people."""

import pytest

from ipsecctl.output import RED, capabilities, coloured, duration, size, table


def test_columns_stand_under_each_other_and_lines_have_no_blanks_at_their_ends() -> None:
    assert table(("role", "pid"), [("ike_worker", "7"), ("x", "12345")]) == [
        "role        pid",
        "ike_worker  7",
        "x           12345",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (312, "5m 12s"), (3600, "1h"), (3725, "1h 2m"), (273600, "3d 4h")],
)
def test_durations_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (27_000_000, "25.7 MiB"), (2**31, "2.0 GiB")]
)
def test_sizes_have_a_unit(count: int, text: str) -> None:
    assert size(count) == text


def test_capabilities_have_names() -> None:
    assert (capabilities(0), capabilities(1 << 12), capabilities(1 << 12 | 1)) == (
        "none",
        "net_admin",
        "cap_0,net_admin",
    )


def test_there_is_no_colour_where_there_is_no_terminal() -> None:
    assert coloured("x", RED) == "x"


def test_there_is_colour_on_a_terminal_unless_it_is_unwanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured("x", RED) == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "")
    assert coloured("x", RED) == "x"
