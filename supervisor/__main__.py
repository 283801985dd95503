"""`ipsecd`: starts the IPsec daemon of one instance."""

import argparse
import os
import sys

from ipc.generations import backup_of
from ipc.roles import module_command
from supervisor.daemon import run
from supervisor.detach import Starter, run_detached
from supervisor.settings import DEFAULT_INSTANCE, DEFAULT_SPD, LOG_LEVELS, Settings, instance_name
from supervisor.spawn import base_environment

EXIT_NOT_ROOT = 4
PARSER = "ipsecctl.parse_only"
"""A process of its own: this one parses no policy, and does not even load what does."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The options; exits with 2 and the usage where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="ipsecd",
        description="The IP security (IPsec) daemon.",
        epilog="example: ipsecd -d -f /etc/ipsec.spd",
    )
    parser.add_argument(
        "-b", dest="backup", action="store_true", help="start on the backup of the policy file, FILE.bak"
    )
    parser.add_argument("-d", dest="daemon", action="store_true", help="run as a daemon, detached from the terminal")
    parser.add_argument("-e", dest="reserved", action="store_true", help="reserved; does nothing")
    parser.add_argument(
        "-f", "--spd", metavar="FILE", default=DEFAULT_SPD, help="Security Policy Database (default %(default)s)"
    )
    parser.add_argument("-l", dest="log_unmatched", action="store_true", help="log packets that no rule matches")
    parser.add_argument(
        "-m",
        dest="level",
        type=int,
        choices=range(len(LOG_LEVELS)),
        default=1,
        help="message level: 0 warnings and errors, 1 a line for each negotiation (default), 2 verbose",
    )
    parser.add_argument("-o", dest="output", metavar="FILE", default="", help="write the log to FILE")
    parser.add_argument(
        "-p", dest="parse_only", action="store_true", help="parse the policy file, say what is wrong with it, and exit"
    )
    parser.add_argument(
        "--instance", metavar="DIR", default=DEFAULT_INSTANCE, help="run directory (default %(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs ipsecd; the exit code, as ipsecctl start has it."""
    options = parse_arguments(arguments)
    if os.geteuid() != 0:
        print("ipsecd: permission denied (must be superuser)", file=sys.stderr)
        return EXIT_NOT_ROOT
    if options.reserved:
        print("ipsecd: warning: the option -e is reserved and does nothing", file=sys.stderr, flush=True)
    settings = Settings(
        instance=instance_name(options.instance),
        spd_path=os.path.abspath(options.spd),
        log_level=LOG_LEVELS[options.level],
        backup=options.backup,
        log_unmatched=options.log_unmatched,
        output=os.path.abspath(options.output) if options.output else "",
    )
    if options.parse_only:
        path = backup_of(settings.spd_path) if settings.backup else settings.spd_path
        command = module_command(PARSER, path)
        os.execve(command[0], command, base_environment())
    if options.daemon:
        return run_detached(lambda starter: run(settings, starter))
    return run(settings, Starter(None))


if __name__ == "__main__":
    sys.exit(main())
