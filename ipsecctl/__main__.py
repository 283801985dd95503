"""`ipsecctl`: the operator's tool."""

import importlib
import os
import sys

from ipsecctl import exit_codes
from ipsecctl.arguments import parse
from ipsecctl.errors import CommandError


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; its exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.needs_root and os.geteuid() != 0:
        print("permission denied (must be superuser)", file=sys.stderr)
        return exit_codes.NOT_ROOT
    options.instance = os.path.abspath(options.instance)
    command = importlib.import_module(f"ipsecctl.commands.{options.command.replace('-', '_')}")
    try:
        code: int = command.run(options)
    except CommandError as error:
        print(f"ipsecctl: {error}", file=sys.stderr)
        return error.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
