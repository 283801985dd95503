"""Coverage-guided fuzzing: `python -m tests.fuzz.guided TARGET DIRECTORY [libFuzzer's options]`.

Fills DIRECTORY with valid input and tests/fuzz/corpus/TARGET, and goes on from there until it finds something, or for
-max_total_time=SECONDS. An input that breaks the target is printed, and written to DIRECTORY-crash-*: put it into the
corpus when the cause is gone, so that it is tried for ever.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ike_worker", "ipc", "policy_loader"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.corpus import inputs


def main() -> None:
    """Runs libFuzzer on the target that the command line names."""
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.guided {{{','.join(TARGETS)}}} DIRECTORY [-max_total_time=SECONDS]")
    program, name, directory, *options = sys.argv
    Path(directory).mkdir(exist_ok=True)
    for number, data in enumerate(inputs(name)):
        Path(directory, f"{number}").write_bytes(data)
    atheris.Setup([program, f"-artifact_prefix={directory}-", *options, directory], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
