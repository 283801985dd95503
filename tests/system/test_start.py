"""Starts that must be refused, each with the reason named, and with nothing left behind."""

import os
from collections.abc import Iterator

import pytest

from tests.lab.instance import Instance, NetworkState, leftovers
from tests.lab.namespaces import WIRE, Namespace, gateways
from tests.lab.spd import IPV4

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.fixture
def instance() -> Iterator[Instance]:
    with gateways() as wire, Instance(wire.left) as made:
        yield made


@pytest.fixture
def at_first(instance: Instance) -> NetworkState:
    return NetworkState.of(instance.namespace)


def line_of(text: str, beginning: str) -> int:
    """The number of the first line that begins so."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(beginning))


MISTAKES = (
    ('mode = "tunnel"', 'mode = "tunel"', "mode"),
    ('action = "protect"', 'action = "protekt"', "action"),
    ('local = ["10.1.0.0/24"]', 'local = ["10.1.0.0/33"]', "local"),
    ('peer = "other"', 'peer = "another"', "peer"),
    ('auth = "psk"', 'auth = "pks"', "auth"),
    ('unmatched = "bypass"', 'unmatchd = "bypass"', "unmatchd"),
)
"""What is right, what is wrong, and the key that is named."""


def test_all_mistakes_in_the_spd_are_named_by_file_line_and_column(instance: Instance, at_first: NetworkState) -> None:
    mistaken = IPV4.left_spd()
    for right, wrong, _ in MISTAKES:
        assert right in mistaken
        mistaken = mistaken.replace(right, wrong)
    said = instance.start_refused(mistaken).splitlines()
    for _, wrong, key in MISTAKES:
        place = f"{instance.spd}:{line_of(mistaken, wrong.split('=')[0])}:"
        assert [line for line in said if place in line and key in line.partition(place)[2]]
    assert leftovers(instance, at_first) == []


def test_what_is_not_toml_is_named_by_file_line_and_column(instance: Instance, at_first: NetworkState) -> None:
    said = instance.start_refused(IPV4.left_spd().replace('auth = "psk"', 'auth = "psk'))
    assert f"{instance.spd}:{line_of(IPV4.left_spd(), 'auth')}:" in said
    assert leftovers(instance, at_first) == []


def test_an_interface_that_is_missing_is_named(instance: Instance, at_first: NetworkState) -> None:
    said = instance.start_refused(IPV4.left_spd().replace(f'"{WIRE}"', '"eth77"'))
    assert "eth77" in said
    assert WIRE in said
    assert leftovers(instance, at_first) == []


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_t43_an_spd_that_others_can_read_is_refused(instance: Instance, at_first: NetworkState, mode: int) -> None:
    said = instance.start_refused(IPV4.left_spd(), mode=mode)
    assert str(instance.spd) in said
    assert leftovers(instance, at_first) == []


def test_t43_an_spd_that_is_not_roots_is_refused(instance: Instance, at_first: NetworkState) -> None:
    os.chown(instance.write_spd(IPV4.left_spd()), 12345, 0)
    said = instance.ctl("start", "--spd", str(instance.spd), check=False)
    assert str(instance.spd) in said
    assert instance.roles() == []
    assert leftovers(instance, at_first) == []


def test_a_missing_spd_is_named(instance: Instance) -> None:
    said = instance.ctl("start", "--spd", "/nonexistent/ipsec.spd", check=False)
    assert "/nonexistent/ipsec.spd" in said
    assert instance.roles() == []


@pytest.mark.parametrize("port", [500, 4500])
def test_a_port_that_is_taken_is_named(instance: Instance, port: int) -> None:
    with instance.namespace.udp_socket("0.0.0.0", port):
        said = instance.start_refused(IPV4.left_spd())
        assert str(port) in said
        assert str(os.getpid()) in said
        assert instance.roles() == []


def test_a_second_start_changes_nothing(instance: Instance) -> None:
    instance.start(IPV4.left_spd())
    roles = instance.roles()
    assert "already" in instance.ctl("start", "--spd", str(instance.spd), check=False)
    assert instance.roles() == roles


def test_two_instances_live_side_by_side() -> None:
    with Namespace("one") as one, Namespace("other") as other, Instance(one) as first, Instance(other) as second:
        for instance in (first, second):
            instance.start(IPV4.left_spd().replace(f'"{WIRE}"', '"lo"'))
        assert first.status()["findings"] == []
        assert second.status()["findings"] == []
        second.stop()
        assert second.roles() == []
        assert first.status()["findings"] == []


def test_no_process_has_more_than_it_needs(instance: Instance) -> None:
    instance.start(IPV4.left_spd())
    status = instance.status()
    assert status["findings"] == []
    privileged = {one["role"]: one["process"]["effective_capabilities"] for one in status["roles"]}
    assert privileged.pop("kernel_agent") == 1 << 12
    assert set(privileged.values()) <= {0}
    assert all(one["process"]["uid"] != 0 and one["process"]["no_new_privs"] for one in status["roles"])
