"""How the flows of rules become sets of keys: one for each shape, however many rules there are."""

import random

from ipc.types import Action, PortRange
from kernel_agent import unmatched
from kernel_agent.unmatched import Shape, shapes_of
from kernel_agent.xfrm.policies import flows_of
from tests.kernel_agent.values import rule


def test_many_rules_of_one_shape_make_one_set() -> None:
    rules = [rule(n + 1, remote=(f"10.{n >> 8}.{n & 255}.0/24",), local=("10.200.0.0/16",)) for n in range(1000)]
    shapes = shapes_of(rules, {})
    assert list(shapes) == [Shape(4, 16, 24, 0, 0, 0, 0)]
    assert len(shapes[Shape(4, 16, 24, 0, 0, 0, 0)]) == 1000


def test_a_key_holds_what_is_under_the_masks_and_no_more() -> None:
    ssh = rule(
        1,
        Action.BYPASS,
        protocol=6,
        local=("0.0.0.0/0",),
        remote=("10.2.3.0/24",),
        local_port=PortRange(first=22, last=22),
    )
    assert shapes_of([ssh], {}) == {Shape(4, 0, 24, 6, 0xFFFF, 0, 0): {bytes([10, 2, 3, 0, 0, 22, 0, 0])}}
    echo = PortRange(first=128 << 8, last=128 << 8 | 255)
    ping = rule(2, Action.BYPASS, protocol=58, local=("::/0",), remote=("::/0",), local_port=echo)
    assert shapes_of([ping], {}) == {Shape(6, 0, 0, 58, 0xFF, 0, 0): {bytes([128, 0, 0, 0])}}
    anything = rule(3, Action.BYPASS, local=("0.0.0.0/0",), remote=("0.0.0.0/0",))
    assert shapes_of([anything], {}) == {Shape(4, 0, 0, 0, 0, 0, 0): {b""}}


def test_the_rule_for_what_no_other_matches_and_those_of_missing_interfaces_match_nothing() -> None:
    import dataclasses

    last = dataclasses.replace(rule(1, Action.DISCARD), unmatched=True)
    there, missing = (dataclasses.replace(rule(n), interface=name) for n, name in ((2, "eth0"), (3, "eth1")))
    assert [shape.interface for shape in shapes_of([last, there, missing], {"eth0": 7})] == [7]


def test_every_key_is_as_long_as_its_shape_says() -> None:
    chance = random.Random(20261122)
    for _ in range(200):
        first = chance.randrange(65536)
        ports = PortRange(first=first, last=chance.randrange(first, 65536))
        one = rule(
            1,
            Action.BYPASS,
            protocol=chance.choice((6, 17, 1, 58)),
            local=(f"10.0.0.0/{chance.randrange(8, 33)}" if chance.random() < 0.5 else "fd01::/64",),
            remote=("0.0.0.0/0", "fd02::/48"),
            local_port=ports,
        )
        shapes = shapes_of([one], {})
        assert sum(map(len, shapes.values())) == len(
            {unmatched._key(flow) + bytes(str(flow), "ascii") for flow in flows_of(one)}
        )
        for shape, keys in shapes.items():
            sizes = sum(len(unmatched._padded(field.mask)) for field in unmatched._fields(shape, outward=True))
            assert {len(key) for key in keys} == {sizes}
