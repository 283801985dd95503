"""`python -m policy_loader`: the role that reads the policy and holds the pre-shared keys, and can open nothing."""

from typing import NoReturn

from ipc.process import RoleProcess
from ipc.roles import Role
from policy_loader.loader import Loader


def main() -> NoReturn:
    """Starts with all imports made, drops privileges, works until told to stop."""
    process = RoleProcess.start(Role.POLICY_LOADER)
    Loader(process)
    process.say_hello()
    process.run_and_leave()


if __name__ == "__main__":
    main()
