"""Positions of keys, and: any bytes at all give a document or PolicyError."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_loader import native, policy_file
from policy_loader.errors import Key, PolicyError, Problem
from policy_loader.rule_ids import RuleIds

TRICKY = (Path(__file__).parent / "corpus" / "tricky.toml").read_text()


def paths(value: Any, key: Key = ()) -> list[Key]:
    if isinstance(value, dict):
        inner = [paths(item, (*key, name)) for name, item in value.items()]
    elif isinstance(value, list):
        inner = [paths(item, (*key, index)) for index, item in enumerate(value)]
    else:
        inner = []
    return [key, *(path for group in inner for path in group)] if key else [path for group in inner for path in group]


def text_at(text: str, document: native.Document, key: Key) -> str:
    line, column = document.position(key)
    return text.split("\n")[line - 1][column - 1 :]


def test_every_key_of_a_tricky_document_has_its_place() -> None:
    document = native.parse("x", TRICKY.encode())
    found = {key: document.position(key) for key in paths(document.data)}
    assert len(found) > 40
    for key in found:
        if isinstance(key[-1], str) and not text_at(TRICKY, document, key).startswith("["):
            rest = text_at(TRICKY, document, key).lstrip("\"'")
            assert rest.startswith(key[-1].replace('"', '\\"')), key
    assert found["rules", 1, "name"] == (28, 1)
    assert found["rules", 0, "list", 1, "a"] == (26, 3)
    assert found["rules", 1, "list2", 0, "a", "b"] == (31, 5)
    assert found["table", "with space", "nested", 1, 0, "b", "c", 1] == (15, 25)
    assert found["table", "with space", "nested", 1, 1] == (15, 34)
    assert found["table", "with space", "inline", "x", "y"] == (17, 18)
    assert found["dotted", 'quoted " = key', "literal # key", 1] == (3, 52)
    assert found["dates", 2] == (4, 53)


def test_a_missing_key_is_placed_where_its_table_begins() -> None:
    document = native.parse("x", TRICKY.encode())
    assert document.position(("rules", 1, "action")) == document.position(("rules", 1)) == (27, 1)
    assert document.position(("nothing", "here")) == (1, 1)


def test_a_complaint_has_three_lines_whatever_the_key_is_called() -> None:
    document = native.parse("dir\n/x", b'\t"a\\nb" = 1')
    lines = document.complaint(Problem(key=("a\nb", 3, "c"), text="wrong")).split("\n")
    assert lines == [r"dir\n/x:1:2: a\nb.c: wrong", r'     "a\nb" = ***', "     ^"]


def test_columns_count_characters_and_not_bytes() -> None:
    document = native.parse("x", 'a = { ä = 1 }\n"é€" = { b = 1 }'.replace("ä", '"ä"').encode())
    assert document.position(("a", "ä")) == (1, 7)
    assert document.position(("é€", "b")) == (2, 10)


@pytest.mark.parametrize("content", [b"\xff", b"a = 1\n# \xe2\x82"])
def test_what_is_not_utf8_is_refused(content: bytes) -> None:
    with pytest.raises(PolicyError, match="not UTF-8"):
        native.parse("x", content)


_names = st.text(min_size=1, max_size=6)
_scalars = st.one_of(st.integers(-(2**62), 2**62), st.booleans(), st.text(max_size=12))
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_names, inner, max_size=4)),
    max_leaves=12,
)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(name)} = {as_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[ # ]\n" + ",\n".join(map(as_toml, value)) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(_names, _values, max_size=4), st.lists(st.dictionaries(_names, _values, max_size=3), max_size=3))
def test_every_key_of_any_document_is_found_at_itself(table: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    lines = ["[table]", *(f"{quoted(name)}={as_toml(item)}" for name, item in table.items())]
    for row in rows:
        lines += ["[[rows]]", *(f"{quoted(name)} = {as_toml(item)}  # x = [" for name, item in row.items())]
    text = "\n".join(lines)
    document = native.parse("x", text.encode())
    for key in paths({"table": table, "rows": rows} if rows else {"table": table}):
        last = key[-1]
        if isinstance(last, str) and len(key) > 1:
            assert text_at(text, document, key).startswith(quoted(last))
        elif isinstance(last, int):
            assert document.position(key) > document.position(key[:-1]) or key[:-1] == ("rows",)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore"))))
def test_any_bytes_give_a_policy_or_policy_error(content: bytes) -> None:
    read_all(content)


PIECES = (
    "[setup] [[rules]] [peers.a] [proposals.x] interfaces unmatched action name peer local psk psk_file address auth",
    '"discard" "protect" "psk" ["eth0"] ["10.0.0.0/8"] "198.51.100.7" = = = = , . { } [ ] # 1 1e9 -1 nan 0x10',
    '1979-05-27 true esp ike ["aes256gcm16"] rekey "1h" mode "transport" remote local_id """ \' " \'\'\'',
)
_pieces = st.sampled_from(" ".join(PIECES).split())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(_pieces, st.sampled_from([" ", "\n", ""])), max_size=60))
def test_any_order_of_a_policys_words_gives_a_policy_or_policy_error(pieces: list[tuple[str, str]]) -> None:
    read_all("".join(word + space for word, space in pieces).encode())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {
            "setup": st.one_of(_values, st.just({"interfaces": ["eth0"], "unmatched": "discard"})),
            "peers": st.dictionaries(
                _names, st.dictionaries(st.sampled_from(["address", "psk", "auth", "liveness", "local_id"]), _values)
            ),
            "rules": st.lists(
                st.dictionaries(
                    st.sampled_from(["name", "action", "local", "protocol", "local_port", "peer", "life", "mode"]),
                    st.one_of(_values, st.sampled_from(["protect", "bypass", "tcp", "::/0", 10**400])),
                ),
                max_size=3,
            ),
        }
    )
)
def test_any_values_give_a_policy_or_policy_error(data: dict[str, Any]) -> None:
    lines = [f"{name} = {as_toml(data[name])}" for name in ("setup", "peers", "rules")]
    read_all("\n".join(lines).encode())


def read_all(content: bytes) -> None:
    try:
        file = policy_file.read("x", content, 0o600, 0)
        if not file.secret_files():
            file.compile({}, RuleIds())
    except PolicyError as error:
        assert error.complaints
        assert all(one.startswith("x:") for one in error.complaints)
        assert all(line.isprintable() for one in error.complaints for line in one.split("\n"))
