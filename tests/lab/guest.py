"""Runs a command on a kernel that has ESP: a throw-away User-Mode Linux guest, for machines whose own kernel lacks it.

The host's `/` is the guest's, read-only under a tmpfs: what the guest writes is gone with it, but for the folders it is
given. It has no network device but loopback; tests make namespaces of their own in it. The kernel is Debian's package
user-mode-linux, or the binary (with all that is needed built in) that $IPSECD_UML names.
"""

import argparse
import contextlib
import ctypes
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipc import patience
from tests.lab.debian import CHECKOUT, LIBRARIES, Unavailable, cache_directory, cached, unpack
from tests.lab.namespaces import LabError, run

OWN_KERNEL_VARIABLE = "IPSECD_UML"
INSIDE_VARIABLE = "IPSECD_GUEST"
"""In the environment of what runs inside a guest."""
TIME_LIMIT_EXIT = 124
DIED_EXIT = 125

_SCRIPTS = CHECKOUT / "tests/vm"
# Loaded at boot; the rest (ciphers, netfilter, ...) the kernel asks for by itself.
_PRELOAD = "ipv6 xfrm_user esp4 esp6 tun veth"
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "PYTHONUNBUFFERED", "CI", "IPSECD_CACHE", patience.VARIABLE)
_PR_SET_PDEATHSIG = 1

Sink = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKernel:
    """A User-Mode Linux binary and what it needs. Empty `modules`: everything is built in."""

    binary: Path
    preloaded: str
    modprobe: str
    modules: str
    options: tuple[str, ...]


def guest_kernel() -> GuestKernel:
    """The kernel for guests; Unavailable where there is none."""
    own = os.environ.get(OWN_KERNEL_VARIABLE, "")
    if own:
        if not os.access(own, os.X_OK):
            raise Unavailable(f"${OWN_KERNEL_VARIABLE} names {own}, which can't be executed")
        return GuestKernel(
            binary=Path(own).resolve(), preloaded="", modprobe="/bin/true", modules="", options=("seccomp=auto",)
        )
    root = cached("user-mode-linux", _fill)
    return GuestKernel(
        binary=root / "usr/bin/linux.uml",
        preloaded=f"{root}/xstate.so",
        modprobe=f"{root}/modprobe",
        modules=f"{root}/modules",
        options=(),
    )


def _fill(root: Path) -> None:
    """Debian's kernel, its modules as modprobe wants them, a modprobe, and what CPUs with large registers need."""
    unpack(["user-mode-linux", "kmod", "libkmod2"], root)
    final = root.with_suffix("")  # where the cache puts it when it is whole
    modules = root / "modules/lib"
    modules.mkdir(parents=True)
    (modules / "modules").symlink_to("../../usr/lib/uml/modules")
    modprobe = root / "modprobe"
    modprobe.write_text(
        f"#!/bin/bash\nexport LD_LIBRARY_PATH={final}/{LIBRARIES}\n"
        f'exec -a modprobe {final}/bin/kmod -d {final}/modules "$@"\n'
    )
    modprobe.chmod(0o755)
    _compile(_SCRIPTS / "xstate.c", root / "xstate.so", root)


def _compile(source: Path, library: Path, scratch: Path) -> None:
    options = ["-shared", "-nostdlib", "-o", str(library), str(source)]
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler:
        run([compiler, "-O2", "-fno-builtin", "-fPIC", *options])
        return
    tcc = scratch / "tcc"  # 200 kB
    tcc.mkdir()
    unpack(["tcc"], tcc)
    run([f"{tcc}/usr/bin/tcc", f"-B{tcc}/{LIBRARIES}/tcc", *options])


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestResult:
    """How a command in a guest ended. 124: time limit; 125: the guest died, and `console` says how."""

    exit_code: int
    output: str
    errors: str
    console: str


def run_in_guest(
    command: Sequence[str],
    *,
    writable: Sequence[Path] = (),
    environment: Sequence[str] = (),
    timeout_s: float = 300.0,
    memory_mib: int = 1024,
) -> GuestResult:
    """Runs `command` in a guest, in the present directory, and returns how it ended and what it printed.

    `writable` folders are the host's own; `environment` is "NAME=VALUE" items. Unavailable without kernel or root.
    """
    output, errors = bytearray(), bytearray()
    guest = _Guest(command, writable, environment, memory_mib)
    code, console = guest.run(output.extend, errors.extend, timeout_s)
    return GuestResult(
        exit_code=code,
        output=output.decode(errors="replace"),
        errors=errors.decode(errors="replace"),
        console=console,
    )


class _Guest:
    """One guest, from boot to power off."""

    def __init__(
        self, command: Sequence[str], writable: Sequence[Path], environment: Sequence[str], memory_mib: int
    ) -> None:
        if os.geteuid():
            raise Unavailable("a guest needs root")
        self._kernel = guest_kernel()
        self._command = list(command)
        self._writable = [path.resolve() for path in writable]
        self._environment = list(environment)
        self._memory_mib = memory_mib

    def run(self, output: Sink, errors: Sink, timeout_s: float) -> "tuple[int, str]":
        """Exit code and console."""
        with tempfile.TemporaryDirectory(prefix="ipsecd-guest-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            self._prepare(folder)
            with _one_cpu() as cpu:
                late = self._boot(folder, output, errors, timeout_s, cpu)
            console = (folder / "console").read_text(errors="replace")
            if late:
                return TIME_LIMIT_EXIT, console
            try:
                return int((folder / "out/code").read_text()), console
            except (FileNotFoundError, ValueError):
                return DIED_EXIT, console

    def _prepare(self, folder: Path) -> None:
        (folder / "out").mkdir()
        settings = {
            "MODPROBE": self._kernel.modprobe,
            "MODULES": self._kernel.modules,
            "PRELOAD": _PRELOAD,
            "WRITABLE": " ".join(str(path) for path in (folder / "out", *self._writable)),
            "SECOND_STAGE": str(_SCRIPTS / "guest-run"),
        }
        (folder / "settings").write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))
        passed = [f"{name}={os.environ[name]}" for name in _ENVIRONMENT if name in os.environ]
        path = f"PATH={os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
        line = shlex.join(["env", "-i", *passed, path, f"{INSIDE_VARIABLE}=1", *self._environment, *self._command])
        (folder / "job").write_text(f"cd {shlex.quote(os.getcwd())} || exit 126\nexec {line}\n")

    def _boot(self, folder: Path, output: Sink, errors: Sink, timeout_s: float, cpu: int) -> bool:
        """Whether the time limit ended it."""
        out_reader, out_writer = os.pipe()
        err_reader, err_writer = os.pipe()
        with (folder / "console").open("wb") as console:
            child = subprocess.Popen(
                self._command_line(folder, out_writer, err_writer),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=(out_writer, err_writer),
                start_new_session=True,
                preexec_fn=lambda: _die_with_parent_on(cpu),
            )
        os.close(out_writer)
        os.close(err_writer)
        pumps = [
            threading.Thread(target=_pump, args=pair, daemon=True)
            for pair in ((out_reader, output), (err_reader, errors))
        ]
        for pump in pumps:
            pump.start()
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return True
        finally:
            _end(child)
            for pump in pumps:
                pump.join(5.0)
        return False

    def _command_line(self, folder: Path, output: int, errors: int) -> list[str]:
        kernel = self._kernel
        preload = [f"LD_PRELOAD={kernel.preloaded}"] if kernel.preloaded else []
        boot = [
            *("env", *preload, str(kernel.binary), f"mem={self._memory_mib}M"),
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
            *("con=null", "con0=null,fd:1", f"con1=null,fd:{output}", f"con2=null,fd:{errors}"),
            *(f"uml_dir={folder}", "umid=vm", "panic=1", *kernel.options),
            *(f"init={_SCRIPTS}/guest-boot", f"guest={folder}"),
        ]
        # In a pid namespace of its own: all that UML starts goes with it, even if we are killed.
        return ["unshare", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", '"$@"; exit', "sh", *boot]


def _die_with_parent_on(cpu: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.sched_setaffinity(0, {cpu})


@contextlib.contextmanager
def _one_cpu() -> Iterator[int]:
    """A CPU for a guest, another for each guest while they last.

    UML's kernel and its processes take turns: on two CPUs each turn wakes an idle one, up to 12 times slower.
    """
    cpus = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        with (cache_directory() / f"cpu{cpu}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield cpu
            return
    yield cpus[os.getpid() % len(cpus)]


def _pump(descriptor: int, sink: Sink) -> None:
    with open(descriptor, "rb", buffering=0) as source:
        while data := source.read(65536):
            sink(data)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """The guest and all that belongs to it are a process group of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def main() -> int:
    """Runs the command of the command line in a guest; its output, errors and exit code come through."""
    parser = argparse.ArgumentParser(prog="run-guest", description="Run a command on a kernel that has ESP.")
    parser.add_argument("--writable", action="append", type=Path, default=[], metavar="DIR")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        guest = _Guest(arguments.command, arguments.writable, arguments.env, arguments.memory)
        code, console = guest.run(lambda data: os.write(1, data), lambda data: os.write(2, data), arguments.timeout)
    except (Unavailable, LabError) as error:
        print(f"run-guest: {error}", file=sys.stderr)
        return DIED_EXIT
    if code in (TIME_LIMIT_EXIT, DIED_EXIT):
        print(f"{console[-4000:]}\nrun-guest: the guest ended without an exit code", file=sys.stderr)
    return code
