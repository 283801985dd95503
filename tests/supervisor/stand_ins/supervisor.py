"""`ipsecd` with stand-ins for its roles.

STAND_IN_SILENCE_S is how long its watchdog bears silence, STAND_IN_READY_S how long a worker may take to be ready,
STAND_IN_BROKEN a role that dies whenever it is started.
"""

import dataclasses
import os
import sys

from ipc.roles import Role
from supervisor import __main__ as ipsecd
from supervisor import daemon, instance, watchdog
from supervisor.role_table import ROLE_TABLE

MODULES = {
    Role.KERNEL_AGENT: "stand_ins.agent",
    Role.POLICY_LOADER: "stand_ins.loader",
    Role.DATA_PATH: "stand_ins.data_path",
    Role.IKE_WORKER: "stand_ins.worker",
}
if "STAND_IN_BROKEN" in os.environ:
    MODULES[Role(os.environ["STAND_IN_BROKEN"])] = "stand_ins.broken"
TABLE = tuple(dataclasses.replace(row, module=MODULES[row.role]) for row in ROLE_TABLE)


def main() -> int:
    """The command."""
    watchdog.INTERVAL_S = instance.INTERVAL_S = 0.2
    watchdog.SILENCE_S = float(os.environ.get("STAND_IN_SILENCE_S", "10"))
    instance.READY_WITHIN_S = float(os.environ.get("STAND_IN_READY_S", "30"))
    ipsecd.run = lambda settings, starter: daemon.run(settings, starter, TABLE)
    return ipsecd.main()


if __name__ == "__main__":
    sys.exit(main())
