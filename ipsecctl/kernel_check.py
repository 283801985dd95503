"""Whether the kernel would take a policy: a program of the kernel agent tries it in a network namespace aside."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ipsecctl.errors import CommandError
from ipsecctl.modules import failure, run_to_end

if TYPE_CHECKING:
    from policy_loader.compile import Policy

MODULE = "kernel_agent.try_policy"
TRY_WITHIN_S = 60.0
_REFUSED = 1


def refusals(policy: "Policy") -> tuple[str, ...]:
    """What the kernel would refuse, in sentences; CommandError if it can't be asked."""
    if os.geteuid():
        raise CommandError("--kernel needs root: it makes a network namespace")
    done = run_to_end(MODULE, policy.data_path.name.lower(), within_s=TRY_WITHIN_S, given=b"".join(_framed(policy)))
    if done.returncode == 0:
        return ()
    if done.returncode == _REFUSED:
        return tuple(done.stdout.decode(errors="replace").splitlines())
    raise failure(MODULE, done)


def _framed(policy: "Policy") -> Iterator[bytes]:
    """The messages by which the loader tells the agent a policy, each behind its length."""
    from ipc import codec
    from ipc import messages as m

    rules, sas = policy.kernel_rules, policy.manual_sas
    told: list[object] = [m.BeginPolicy(generation=1, interfaces=policy.interfaces, unmatched=policy.unmatched)]
    for start in range(0, len(rules), m.RULES_PER_MESSAGE):
        told.append(m.AddPolicy(generation=1, rules=rules[start : start + m.RULES_PER_MESSAGE]))
    for start in range(0, len(sas), m.RULES_PER_MESSAGE):
        told.append(m.AddManualSas(generation=1, sas=sas[start : start + m.RULES_PER_MESSAGE]))
    told.append(m.CommitPolicy(generation=1, rules=len(rules)))
    for data in map(codec.encode, told):
        yield len(data).to_bytes(4, "big") + data
