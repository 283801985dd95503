"""`ipsecctl condrestart`: a restart of what runs; what does not run is left alone."""

import argparse

from ipsecctl import exit_codes, lock_file
from ipsecctl.commands.restart import restart
from ipsecctl.record import Record


def run(options: argparse.Namespace) -> int:
    """Restarts the instance if it runs; its exit code, 0 if there is nothing to do."""
    with Record() as record:
        if lock_file.look(options.instance).held:
            return restart(options, record)
        record.say("IPsec is not running: nothing to restart")
        return exit_codes.OK
