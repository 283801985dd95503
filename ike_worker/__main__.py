"""`python -m ike_worker`: the role that speaks IKEv2 to the network, and holds nothing that is worth stealing twice."""

from ike_worker.worker import Worker
from ipc.process import RoleProcess
from ipc.roles import Role


def main() -> None:
    """Starts with all imports made, drops privileges, works until told to stop."""
    process = RoleProcess.start(Role.IKE_WORKER)
    Worker(process)
    process.say_hello()
    process.run()


if __name__ == "__main__":
    main()
