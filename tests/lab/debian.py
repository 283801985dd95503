"""Debian packages unpacked into a cache folder: nothing is installed on the machine."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.lab.namespaces import LabError, run

CACHE_VARIABLE = "IPSECD_CACHE"
CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARIES = "usr/lib/x86_64-linux-gnu"
_FETCH_TIMEOUT_S = 180.0


class Unavailable(Exception):
    """Something that is fetched or needs a certain machine can't be had here: skip what needs it, with this reason."""


def cache_directory() -> Path:
    """Where fetched packages are kept: $IPSECD_CACHE, or .cache in the checkout."""
    path = Path(os.environ.get(CACHE_VARIABLE) or CHECKOUT / ".cache").resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def _lock(cache: Path) -> Iterator[None]:
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(name: str, fill: Callable[[Path], None]) -> Path:
    """Folder `name` of the cache, made whole by `fill` if it is not there; Unavailable where that fails."""
    cache = cache_directory()
    destination = cache / name
    if destination.is_dir():
        return destination
    with _lock(cache):
        if not destination.is_dir():
            part = cache / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                fill(part)
            except (LabError, OSError) as error:
                raise Unavailable(f"{name} could not be had: {str(error)[-500:]}") from error
            part.rename(destination)
    return destination


def unpack(packages: Sequence[str], destination: Path) -> None:
    """Downloads Debian packages and unpacks them below `destination`; LabError where they can't be fetched."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise LabError("this is not Debian")
    with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
        apt = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2"]
        try:
            run([*apt, "download", *packages], timeout_s=_FETCH_TIMEOUT_S, cwd=folder)
        except LabError:
            run([*apt, "update"], timeout_s=_FETCH_TIMEOUT_S)
            run([*apt, "download", *packages], timeout_s=_FETCH_TIMEOUT_S, cwd=folder)
        for archive in sorted(Path(folder).glob("*.deb")):
            run(["dpkg-deb", "-x", str(archive), str(destination)], timeout_s=_FETCH_TIMEOUT_S)


def fetched(name: str, packages: Sequence[str]) -> Path:
    """The unpacked `packages`, as folder `name` of the cache; Unavailable where they can't be fetched."""
    return cached(name, lambda part: unpack(packages, part))
