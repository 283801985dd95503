"""The things that `ipsecctl doctor` looks at. What the kernel can do is tried by a program of the agent's package."""

import enum
import importlib.metadata
import json
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from ipc.roles import FALLBACK_UIDS, USER_NAMES
from ipsecctl import lock_file, ports
from ipsecctl.modules import ModuleFailed, run_module

PROBER = "kernel_agent.abilities"
PROBE_WITHIN_S = 20.0
OLDEST_KERNEL = (5, 4)
"""The first long-term one with pidfd_open(2)."""


class Verdict(enum.Enum):
    """Whether a thing is as it should be."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; ipsecd works all the same."""
    MISSING = "missing"
    """ipsecd can't work without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing: what was found, and what to do if that is not enough."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What the prober says of one thing."""

    present: bool
    detail: str


def examine(instance: str, spd: str) -> tuple[Check, ...]:
    """Every check, in the order in which a reader would want to mend things."""
    missing = tuple(missing_packages())
    abilities = Abilities(by_name={}, failure="Python packages are missing") if missing else probe()
    return (
        kernel_release(os.uname().release),
        python_packages(missing),
        *kernel_checks(abilities),
        users(),
        udp_ports(instance),
        spd_permissions(spd),
    )


def kernel_release(release: str) -> Check:
    """Whether the kernel is new enough."""
    parts = release.replace("-", ".").split(".")
    version = tuple(int(part) for part in parts[:2] if part.isdigit())
    if version >= OLDEST_KERNEL:
        return Check(name="kernel", verdict=Verdict.OK, found=f"Linux {release}")
    oldest = ".".join(str(part) for part in OLDEST_KERNEL)
    return Check(name="kernel", verdict=Verdict.MISSING, found=f"Linux {release}", remedy=f"install {oldest} or newer")


def missing_packages() -> Iterator[str]:
    """The Python packages that are needed and not installed."""
    for name in ("cryptography", "msgpack", "psutil", "pyroute2", "pyzmq", "tomli"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name


def python_packages(missing: tuple[str, ...]) -> Check:
    """Whether all packages are there."""
    name = "python packages"
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        return Check(name=name, verdict=Verdict.MISSING, found=f"not installed: {', '.join(missing)}", remedy=remedy)
    return Check(name=name, verdict=Verdict.OK, found="all installed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What the prober says, by name; `failure` is why it says nothing, empty if it does."""

    by_name: dict[str, Ability]
    failure: str = ""

    def of(self, name: str) -> Ability:
        """One of them; absent if it was not tried."""
        why = f"could not be tried: {self.failure}" if self.failure else "could not be tried"
        return self.by_name.get(name, Ability(present=False, detail=why))


def try_abilities() -> dict[str, Ability]:
    """What the prober finds, by name; empty if it can't run."""
    return probe().by_name


def probe() -> Abilities:
    """Runs the prober."""
    try:
        said = json.loads(run_module(PROBER, within_s=PROBE_WITHIN_S))
        found = {one["name"]: Ability(present=one["present"], detail=one["detail"]) for one in said}
    except ModuleFailed as error:
        return Abilities(by_name={}, failure=str(error))
    except (ValueError, KeyError, TypeError) as error:
        return Abilities(by_name={}, failure=f"{PROBER} said nothing that makes sense: {error}")
    return Abilities(by_name=found)


def kernel_checks(abilities: Abilities) -> tuple[Check, ...]:
    """What the kernel can do. Either data path is enough; the user-space one needs TUN, nftables and libcrypto."""
    found = {name: abilities.of(name) for name in _REMEDIES}
    userspace = all(found[name].present for name in ("tun", "nftables", "userspace-esp"))
    enough = found["kernel-esp"].present or userspace
    needed = {
        "namespaces": False,
        "xfrm": True,
        "kernel-esp": not enough,
        "secure-mode": False,
        "unmatched-log": False,
        **dict.fromkeys(("userspace-esp", "nftables", "tun"), not enough),
    }
    checks = []
    for name, title, remedy in ((name, *words) for name, words in _REMEDIES.items()):
        ability = found[name]
        if ability.present:
            checks.append(Check(name=title, verdict=Verdict.OK, found=ability.detail))
            continue
        verdict = Verdict.MISSING if needed[name] else Verdict.NOTE
        if name == "kernel-esp" and userspace:
            remedy = "none needed, user space does ESP; CONFIG_INET_ESP and CONFIG_INET6_ESP would be faster"
        checks.append(Check(name=title, verdict=verdict, found=f"none ({ability.detail})", remedy=remedy))
    return tuple(checks)


_REMEDIES = {
    "namespaces": ("network namespaces", "CONFIG_NET_NS; without it the kernel can't be probed"),
    "xfrm": ("XFRM policies", "load xfrm_user, or a kernel with CONFIG_XFRM_USER"),
    "kernel-esp": ("kernel ESP", "load esp4 and esp6, or give the user-space data path what it lacks"),
    "userspace-esp": ("user-space ESP", "reinstall the Python package cryptography"),
    "nftables": ("nftables", "load nf_tables, or a kernel with CONFIG_NF_TABLES_INET and CONFIG_NFT_META"),
    "tun": ("TUN", "load tun, or a kernel with CONFIG_TUN"),
    "secure-mode": ("secure mode", "Linux 5.15 or newer; without it all goes on but for secure mode"),
    "unmatched-log": ("log of unmatched", "CONFIG_NFT_LOG, _NFT_LIMIT, _NFT_FIB_INET and _NETFILTER_NETLINK_LOG"),
}
"""What the prober tries: its title, and what to do where there is none."""


def users() -> Check:
    """Whether the roles have users of their own by name; numeric ones do as well."""
    taken = [uid for uid in FALLBACK_UIDS.values() if _user_name(uid) not in ("", *USER_NAMES.values())]
    lacking = [name for name in USER_NAMES.values() if not _user_exists(name)]
    if lacking and taken:
        found = f"no {', '.join(lacking)}; uid {taken[0]} is {_user_name(taken[0])}"
        return Check(name="users", verdict=Verdict.MISSING, found=found, remedy="run packaging's sysusers snippet")
    if lacking:
        numbers = sorted(FALLBACK_UIDS.values())
        found = f"no {', '.join(lacking)}; uids {numbers[0]}-{numbers[-1]} serve instead"
        return Check(name="users", verdict=Verdict.NOTE, found=found, remedy="systemd-sysusers gives them names")
    return Check(name="users", verdict=Verdict.OK, found=", ".join(USER_NAMES.values()))


def udp_ports(instance: str) -> Check:
    """Whether IKE's ports are free, or ours."""
    lock = lock_file.look(instance)
    holders = ports.foreign_holders("self", lock.pid if lock.held else 0)
    if holders:
        found = ", ".join(f"{holder.port} is held by {holder}" for holder in holders)
        return Check(name="UDP 500, 4500", verdict=Verdict.MISSING, found=found, remedy="end it, or have it elsewhere")
    return Check(name="UDP 500, 4500", verdict=Verdict.OK, found="ours" if lock.held else "free")


def spd_permissions(path: str) -> Check:
    """Whether the policy file is one that the loader will take."""
    try:
        facts = os.lstat(path)
    except OSError as error:
        found = f"{path}: {error.strerror}"
        return Check(name="policy file", verdict=Verdict.NOTE, found=found, remedy="write one, see ipsec.spd(5)")
    mode = stat.S_IMODE(facts.st_mode)
    found = f"{path}, mode {mode:04o}, uid {facts.st_uid}"
    if not stat.S_ISREG(facts.st_mode):
        return Check(name="policy file", verdict=Verdict.MISSING, found=found, remedy="it must be a regular file")
    if facts.st_uid != 0 or mode & 0o077:
        remedy = f"chown root {path}; chmod 0600 {path}"
        return Check(name="policy file", verdict=Verdict.MISSING, found=found, remedy=remedy)
    return Check(name="policy file", verdict=Verdict.OK, found=found)


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
