"""`ipsecd -p`: parses a policy file, says what is wrong with it, and exits."""

import sys

from ipsecctl import exit_codes
from ipsecctl.errors import BadPolicy, CommandError
from ipsecctl.policy_check import check


def main(path: str) -> int:
    """0 if the file is good; 1 with all its errors, or why it can't be read; 6 if there is none."""
    try:
        check(path)
    except BadPolicy as error:
        print("\n".join(error.complaints))
        return exit_codes.STRANGE
    except CommandError as error:
        print(f"ipsecd: {error}", file=sys.stderr)
        return error.exit_code
    return exit_codes.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
