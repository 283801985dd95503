"""Where fuzzing begins: valid input of each target, and the files in corpus/ that once broke one."""

from pathlib import Path

from ipc.codec import encode
from ipc.messages import REGISTRY
from tests.fuzz import authentication
from tests.fuzz.messages import AUTH, CBC, GCM, INIT, clear, sealed
from tests.ipc.values import sample

_FILES = Path(__file__).parent / "corpus"
_EXAMPLES = Path(__file__).parents[2] / "examples"


def inputs(target: str) -> list[bytes]:
    """All that there is for this target."""
    found = sorted((_FILES / target).glob("*"))
    return [*_SEEDS[target](), *(path.read_bytes() for path in found)]


def _ike_messages() -> list[bytes]:
    datagrams = [clear(INIT), clear(AUTH), sealed(GCM), sealed(CBC)]
    return [b"\0" + one for one in datagrams] + [b"\x60" + one for one in datagrams] + [b"\x80\x23" + clear(AUTH)[28:]]


def _policies() -> list[bytes]:
    return [path.read_bytes() for path in sorted(_EXAMPLES.glob("*/*.spd"))]


def _internal_messages() -> list[bytes]:
    return [encode(sample(cls)) for cls in REGISTRY.values()]


_SEEDS = {
    "ike_message": _ike_messages,
    "policy": _policies,
    "internal_message": _internal_messages,
    "certificate": authentication.seeds,
}
