"""`python -m policy_loader`: the role that reads the policy and holds the pre-shared keys, and can open nothing."""

import gc

from ipc.process import RoleProcess
from ipc.roles import Role
from policy_loader.loader import Loader


def main() -> None:
    """Starts with all imports made, drops privileges, works until told to stop."""
    process = RoleProcess.start(Role.POLICY_LOADER)
    # A large policy is many objects that stay, and no cycles: searching them over and over costs a third of its time.
    gc.set_threshold(100_000, 50, 100)
    Loader(process)
    process.say_hello()
    process.run()


if __name__ == "__main__":
    main()
