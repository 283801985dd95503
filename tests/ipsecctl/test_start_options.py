"""What `ipsecctl start` hands on to ipsecd."""

import pytest

from ipsecctl.arguments import parse
from ipsecctl.commands.start import options_of_ipsecd
from supervisor.__main__ import parse_arguments


def test_without_options_nothing_is_handed_on() -> None:
    assert options_of_ipsecd(parse(["start"])) == ()


@pytest.mark.parametrize(
    "given", [["-b", "-l", "-m", "2", "-o", "log"], ["--backup", "--log-unmatched", "--level", "2", "--output", "log"]]
)
def test_t2_t9_t12_t13_the_options_of_ipsecd_are_handed_on(
    given: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.chdir(str(tmp_path))
    handed = parse_arguments(list(options_of_ipsecd(parse(["start", *given]))))
    assert (handed.backup, handed.log_unmatched, handed.level) == (True, True, 2)
    assert handed.output == f"{tmp_path}/log"
