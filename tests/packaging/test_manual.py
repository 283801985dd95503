"""The manual pages: well-formed, and true of the program where a page and the program list the same things (T53)."""

import dataclasses
import enum
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipc.roles import FALLBACK_UIDS, USER_NAMES
from ipc.types import PortRange
from ipsecctl import arguments, exit_codes
from policy_loader import model, native, proposals, reader, validate, values
from policy_loader.keys import keys_of
from supervisor import __main__ as ipsecd
from tests.lab.debian import LIBRARIES, Unavailable, fetched

ROOT = Path(__file__).resolve().parents[2]
MANUAL = ROOT / "docs/man"
PAGES = ("ipsec.7", "ipsec.spd.5", "ipsec_setup.8", "ipsecctl.8", "ipsecd.8")
ELSEWHERE = "referenced manual not found"
"""Depends on what is installed; references to our own pages are looked at below."""


def text_of(page: str) -> str:
    return (MANUAL / page).read_text()


def section(page: str, title: str) -> str:
    """The part of a page below the heading (.Sh or .Ss) that begins so."""
    found = re.search(rf"^\.S[hs] {re.escape(title)}.*\n((?:(?!\.S[hs] ).*\n)*)", text_of(page), re.MULTILINE)
    assert found is not None, f"{page} has no section {title}"
    return found[1]


def items(part: str, macro: str) -> dict[str, str]:
    """The items of lists whose head begins with `macro`: name to the rest of the head and all below it."""
    found = re.split(rf"^\.It {re.escape(macro)} (?=\S)", part, flags=re.MULTILINE)[1:]
    return {one.split()[0]: one[len(one.split()[0]) :] for one in found}


# ------------------------------------------------------------- form


def test_t53_the_pages_are_those_that_are_tested() -> None:
    assert sorted(path.name for path in MANUAL.iterdir()) == sorted(PAGES)


@pytest.fixture(scope="module")
def mandoc() -> Callable[[Path], list[str]]:
    """All that mandoc has to say of a page, at its strictest."""
    try:
        unpacked = fetched("mandoc", ("mandoc", "zlib1g"))
    except Unavailable as error:
        pytest.skip(str(error))

    def lint(page: Path) -> list[str]:
        done = subprocess.run(
            [str(unpacked / "usr/bin/mandoc"), "-T", "lint", "-W", "style", str(page)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={"LD_LIBRARY_PATH": f"{unpacked / 'lib/x86_64-linux-gnu'}:{unpacked / LIBRARIES}"},
        )
        return [line for line in done.stdout.splitlines() if ELSEWHERE not in line]

    return lint


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_nothing_wrong(mandoc: Callable[[Path], list[str]], page: str) -> None:
    assert mandoc(MANUAL / page) == []


def test_mandoc_would_find_something(mandoc: Callable[[Path], list[str]], tmp_path: Path) -> None:
    page = tmp_path / "wrong.8"
    page.write_text(text_of("ipsecd.8") + ".Xx what is this\n")
    assert any("unknown macro" in line for line in mandoc(page))


@pytest.mark.parametrize("page", PAGES)
def test_references_to_our_own_pages_lead_somewhere(page: str) -> None:
    for name, number in re.findall(r"^\.(?:It )?Xr (ipsec\S*) (\d)", text_of(page), re.MULTILINE):
        assert f"{name}.{number}" in PAGES


# ------------------------------------------------------------- ipsec.spd(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the policy file: where the page speaks of it, and what the program makes of it."""

    heading: str
    entry: type
    defaults: Mapping[str, str]
    """What the page must say of the keys that have a default of their own."""
    words: Mapping[str, Mapping[str, object]]
    """The words that a key may have."""


def word(words: Mapping[str, object], value: object) -> str:
    return next(f'"{name}"' for name, known in words.items() if known is value)


def duration(seconds: float) -> str:
    unit, size = next((unit, size) for unit, size in (("h", 3600), ("m", 60), ("s", 1)) if seconds % size == 0)
    return f"{int(seconds // size)}{unit}" if seconds >= size else f"{seconds:g}"


TABLES = (
    Table(
        heading="[setup]",
        entry=model.Setup,
        defaults={
            "data_path": word(model.DATA_PATHS, model.DEFAULT_DATA_PATH),
            "ip_forward": word(model.IP_FORWARD, model.DEFAULT_IP_FORWARD),
            "cookies_from": str(model.DEFAULT_HALF_OPEN.cookies_from),
            "puzzles_from": str(model.DEFAULT_HALF_OPEN.puzzles_from),
            "half_open_limit": str(model.DEFAULT_HALF_OPEN.most),
            "half_open_per_address": str(model.DEFAULT_HALF_OPEN.per_address),
            "ike_workers": "1",
        },
        words={"unmatched": model.UNMATCHED, "data_path": model.DATA_PATHS, "ip_forward": model.IP_FORWARD},
    ),
    Table(
        heading="[proposals.NAME]",
        entry=model.ProposalSet,
        defaults={},
        words={},
    ),
    Table(
        heading="[peers.NAME]",
        entry=model.PeerEntry,
        defaults={
            "revocation_required": "false",
            "pkcs1_signatures": "false",
            "sha1_signatures": "false",
            "proposals": f'"{model.DEFAULT_PROPOSALS}"',
            "force_encapsulation": "false",
            "fragmentation": "true",
            "childless": "false",
            "liveness": duration(model.DEFAULT_LIVENESS_S),
            "liveness_action": '"trap"',
            "ike_rekey": duration(model.DEFAULT_IKE_REKEY_S),
            "reauth": "0",
        },
        words={"auth": model.AUTH, "remote_auth": model.REMOTE_AUTH, "liveness_action": model.ENDS},
    ),
    Table(
        heading="[[rules]]",
        entry=model.RuleEntry,
        defaults={
            "protocol": '"any"',
            "local_port": '"0-65535"',
            "remote_port": '"0-65535"',
            "mode": word(model.MODES, model.DEFAULT_MODE),
            "start": word(model.STARTS, model.DEFAULT_START),
            "rekey": duration(model.DEFAULT_REKEY_S),
            "rekey_bytes": "0",
            "rekey_packets": "0",
            "close": '"trap"',
            "idle": "0",
        },
        words={"action": model.ACTIONS, "mode": model.MODES, "start": model.STARTS, "close": model.ENDS},
    ),
)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.heading)
def test_every_key_of_the_policy_file_is_described_and_no_other(table: Table) -> None:
    described = items(section("ipsec.spd.5", table.heading), "Ic")
    keys = keys_of(table.entry)
    assert set(described) == set(keys)
    defaults = {one.name: one.default for one in dataclasses.fields(table.entry)}
    for name, facts in keys.items():
        required = bool(facts.missing)
        assert ("Required." in described[name]) is required, name
        assert ("Default:" in described[name]) is not required, name
        told = name in table.defaults or not isinstance(defaults[name], bool | int | float | enum.Enum | PortRange)
        assert required or told, f"{name} has a default of its own: compare it"
    for name, default in table.defaults.items():
        assert f"\nDefault: {default}.\n" in described[name], name
    for name, words in table.words.items():
        assert set(re.findall(r"Q[oq] (\S+)", described[name].partition("\n")[0])) == set(words), name


def test_the_keys_that_may_have_a_default_of_the_operators_are_as_told() -> None:
    part = section("ipsec.spd.5", "[defaults.peers], [defaults.rules]")
    peers, rules = part.split("rules\n")[-2:]
    for told, (_, names) in ((peers, model.DEFAULTS["peers"]), (rules, model.DEFAULTS["rules"])):
        assert tuple(re.findall(r"\b[a-z0-9_]+\b", " ".join(re.findall(r"^\.Li (.*)$", told, re.MULTILINE)))) == names


def test_every_word_of_a_proposal_is_described_and_the_built_in_ones_are_as_told() -> None:
    part = section("ipsec.spd.5", "[proposals.NAME]")
    told = re.findall(r"^\.It .* Ta Li (.*)$", part, re.MULTILINE)
    assert {word for line in told for word in line.split()} == {*proposals.IKE_WORDS, *proposals.ESP_WORDS}
    described = items(part, "Ic")
    for name, expected in (("ike", model.DEFAULT_IKE), ("esp", model.DEFAULT_ESP)):
        assert tuple(re.findall(r'^"(.*)"$', described[name], re.MULTILINE)) == expected


def test_protocols_limits_and_units_of_the_policy_file_are_as_told() -> None:
    page = text_of("ipsec.spd.5")
    rules = section("ipsec.spd.5", "[[rules]]")
    assert f".Li {' '.join(values.PROTOCOLS)} ." in rules.replace("\n", " ").replace(" .Li ", "\n.Li ")
    for name in values.PROTOCOLS_WITH_PORTS:
        assert (
            next(key for key, number in values.PROTOCOLS.items() if number == name) in items(rules, "Ic")["local_port"]
        )
    assert f"1 to {values.LONGEST_NAME} printable characters" in page
    assert f"1 to {values.LONGEST_INTERFACE_NAME} bytes" in page
    assert f"At most {int(values.LONGEST_DURATION_S // 86400)} days." in page
    assert f"{model.LIFE_PER_REKEY:g} times" in items(rules, "Ic")["life"]
    units = re.findall(r"^\.Li ([a-z])$", section("ipsec.spd.5", "Values"), re.MULTILINE)
    assert [values.parse_duration(f"1{unit}") for unit in units] == [1, 60, 3600, 86400]
    with pytest.raises(ValueError, match="s, m, h or d"):
        values.parse_duration("1w")


def test_keys_of_protect_rules_alone_stand_apart() -> None:
    apart = section("ipsec.spd.5", "[[rules]]").partition("A protect rule, and only that, has these as well:")[2]
    assert tuple(items(apart, "Ic")) == model.PROTECT_ONLY


@pytest.mark.parametrize("page", ["ipsec.spd.5", "ipsec.7"])
def test_the_example_is_a_policy(page: str) -> None:
    examples = re.findall(r"^\.Bd .*\n((?:(?!\.Ed).*\n)*)", text_of(page), re.MULTILINE)
    (example,) = (text for text in examples if text.startswith("[setup]"))
    draft = reader.read(native.parse("example", example.encode()).data)
    findings = validate.check(draft)
    assert (draft.problems, findings.problems, findings.warnings) == ((), (), ())


# ------------------------------------------------------------- ipsecctl(8), ipsecd(8)


def help_of(parse: Callable[[list[str]], object], command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        parse([*command, "--help"])
    return capsys.readouterr().out


def options_in(help_text: str) -> set[str]:
    """All options of a --help, without dashes; not what its examples use."""
    listed = help_text.partition("options:")[2].partition("example")[0]
    return set(re.findall(r"(?<![\w-])--?([a-z][a-z-]*)", "\n".join(re.findall(r"^  (-.*?)(?:  |$)", listed, re.M))))


def test_every_command_is_described_with_its_options_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    described = items(section("ipsecctl.8", "Commands"), "Ic")
    verbs = {name: command for command in arguments.COMMANDS for name in (command.name, *command.aliases)}
    assert set(described) == set(verbs)
    for name in verbs:
        options = options_in(help_of(arguments.parse, [name], capsys)) - {"h", "help", "instance"}
        head = described[name].partition("\n")[0]
        assert {option.removeprefix("-") for option in re.findall(r"Fl (\S+)", head)} == options, name


def test_the_exit_codes_of_ipsecctl_are_as_told() -> None:
    told = {int(code) for code in re.findall(r"^\.It (\d+)$", section("ipsecctl.8", "EXIT STATUS"), re.MULTILINE)}
    assert told == {value for name, value in vars(exit_codes).items() if name.isupper()}


def test_the_findings_are_those_of_docs_status() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/status.md").read_text(), re.MULTILINE)
    known = {code for row in rows for code in re.findall(r"`([a-z-]+)`", row)}
    assert set(items(section("ipsecctl.8", "Findings"), "Li")) == known


def test_every_option_of_ipsecd_is_described_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    heads = re.findall(r"^\.It (Fl .*)$", section("ipsecd.8", "DESCRIPTION"), re.MULTILINE)
    told = {option.removeprefix("-") for head in heads for option in re.findall(r"Fl (\S+)", head)}
    assert told == options_in(help_of(ipsecd.parse_arguments, [], capsys))


def test_the_users_of_ipsecd_are_as_told() -> None:
    part = section("ipsecd.8", "DESCRIPTION")
    for role, user in USER_NAMES.items():
        assert re.search(rf"Ta {user} Ta", part)
        assert f"{FALLBACK_UIDS[role]} ({user.removeprefix('ipsec-')})" in part.replace("\n", " ")
