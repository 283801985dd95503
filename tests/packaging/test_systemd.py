"""The systemd units and snippets of packaging/, as systemd's own tools see them (O1 to O3, T27).

The tools are Debian's, unpacked into the cache and told to look at a scratch folder instead of this machine.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ipc.roles import USER_NAMES
from supervisor.run_directory import DIRECTORY_MODE
from supervisor.settings import DEFAULT_INSTANCE
from tests.lab.debian import LIBRARIES, Unavailable, fetched

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
UNITS = ("ipsecd.service", "ipsecd-secure.service")
PACKAGES = (
    *("systemd", "libsystemd-shared", "libacl1", "libapparmor1", "libaudit1", "libblkid1", "libcap2", "libcap-ng0"),
    *("libcrypt1", "libgcrypt20", "libgpg-error0", "libip4tc2", "libkmod2", "liblz4-1", "liblzma5", "libmount1"),
    *("libpam0g", "libpcre2-8-0", "libseccomp2", "libselinux1", "libssl3", "libzstd1"),
)


class Systemd:
    """Systemd's tools at work on a scratch folder, `scratch`, as if it were /."""

    def __init__(self, unpacked: Path, scratch: Path) -> None:
        self.scratch = scratch
        self._unpacked = unpacked
        self.units = scratch / "usr/lib/systemd/system"
        shutil.copytree(unpacked / "lib/systemd/system", self.units, symlinks=True)
        for name in UNITS:
            shutil.copy(PACKAGING / "systemd" / name, self.units)
        (scratch / "usr/bin").mkdir()
        for name in ("ipsecd", "ipsecctl"):
            program = scratch / "usr/bin" / name
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
        (scratch / "etc").mkdir()

    def run(self, tool: str, *arguments: str) -> str:
        """All that a tool prints; AssertionError, with that, if it fails."""
        libraries = [self._unpacked / LIBRARIES / "systemd", self._unpacked / LIBRARIES]
        libraries.append(self._unpacked / LIBRARIES.removeprefix("usr/"))
        done = subprocess.run(
            [str(self._unpacked / tool), f"--root={self.scratch}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries)), "LC_ALL": "C.UTF-8"},
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def verify(self, unit: str) -> str:
        """What `systemd-analyze verify` finds wrong."""
        return self.run("usr/bin/systemd-analyze", "verify", "--man=no", unit)

    def exposure(self, unit: str) -> str:
        """The last number of `systemd-analyze security`: 0.0 is none, 10.0 all."""
        told = self.run("usr/bin/systemd-analyze", "security", "--offline=yes", "--no-pager", unit)
        found = re.search(rf"Overall exposure level for {re.escape(unit)}: (\d+\.\d)", told)
        assert found is not None, told
        return found[1]


@pytest.fixture(scope="module")
def unpacked() -> Path:
    try:
        return fetched("systemd", PACKAGES)
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def systemd(unpacked: Path, tmp_path: Path) -> Systemd:
    return Systemd(unpacked, tmp_path)


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_is_wrong_with_a_unit(systemd: Systemd, unit: str) -> None:
    assert systemd.verify(unit) == ""


@pytest.mark.parametrize(
    "spoiled", ["[Service]\nProtectHom=yes\n", "[Service]\nSystemCallFilter=@no-such-set\n", "[Unit]\nAfter=/\n"]
)
def test_what_is_wrong_with_a_unit_would_be_seen(systemd: Systemd, spoiled: str) -> None:
    with (systemd.units / "ipsecd.service").open("a") as unit:
        unit.write(spoiled)
    assert "ipsecd.service" in systemd.verify("ipsecd.service")


@pytest.mark.parametrize("unit", UNITS)
def test_the_documents_tell_the_exposure_of_a_unit(systemd: Systemd, unit: str) -> None:
    assert f"| `{unit}` | {systemd.exposure(unit)} |" in (PACKAGING / "README.md").read_text()


def test_every_group_of_directives_has_its_reason() -> None:
    """In [Service] a comment stands above each directive, or above the directives that it speaks of together."""
    lines = (PACKAGING / "systemd/ipsecd.service").read_text().partition("[Service]\n")[2].partition("[Install]")[0]
    for paragraph in lines.strip().split("\n\n"):
        assert paragraph.startswith("#"), paragraph


def test_secure_mode_comes_before_the_network() -> None:
    unit = (PACKAGING / "systemd/ipsecd-secure.service").read_text()
    assert re.search(r"^Before=.*\bnetwork-pre\.target\b", unit, re.MULTILINE)
    assert "DefaultDependencies=no\n" in unit
    assert "ExecStart=/usr/bin/ipsecctl secure --boot\n" in unit


@pytest.mark.root
def test_the_users_are_those_that_the_roles_look_for(systemd: Systemd) -> None:
    systemd.run("bin/systemd-sysusers", str(PACKAGING / "sysusers.d/ipsecd.conf"))
    users = [line.split(":") for line in (systemd.scratch / "etc/passwd").read_text().splitlines()]
    groups = [line.split(":") for line in (systemd.scratch / "etc/group").read_text().splitlines()]
    assert {user[0] for user in users} == set(USER_NAMES.values())
    assert {user[6] for user in users} == {"/usr/sbin/nologin"}
    # A role's gid is its uid.
    assert {user[0]: user[2] for user in users} == {group[0]: group[2] for group in groups}
    assert [user[2] for user in users] == [user[3] for user in users]


@pytest.mark.root
def test_the_run_directory_is_made_as_the_supervisor_would_make_it(systemd: Systemd) -> None:
    systemd.run("bin/systemd-tmpfiles", "--create", str(PACKAGING / "tmpfiles.d/ipsecd.conf"))
    facts = (systemd.scratch / DEFAULT_INSTANCE.removeprefix("/")).stat()
    assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) == (DIRECTORY_MODE, 0, 0)
    unit = (PACKAGING / "systemd/ipsecd.service").read_text()
    assert f"RuntimeDirectoryMode={DIRECTORY_MODE:04o}\n" in unit
