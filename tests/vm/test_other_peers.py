"""ipsecd with libreswan and OpenIKED in a guest whose kernel has ESP, which both of them need."""

from pathlib import Path

import pytest

from tests.lab import libreswan, openiked
from tests.lab.debian import Unavailable, fetched
from tests.vm.test_kernel_esp import run_tests

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.interop, pytest.mark.timeout(1800)]
OTHER_PEERS = Path(__file__).with_name("other_peers.py")


def test_other_peers_over_kernel_esp() -> None:
    try:
        fetched("libreswan", libreswan.PACKAGES)  # the guest has no network to fetch them by
        fetched("openiked", openiked.PACKAGES)
    except Unavailable as reason:
        pytest.skip(str(reason))
    run_tests(OTHER_PEERS)
