"""pyroute2's declarations of links, addresses and routing rules, without the rest of pyroute2.

Its `__init__` loads all that it can do, asyncio included, which is two thirds of the time in which an agent is up.
Here the package stands for itself without that, and only the modules of these declarations are loaded.
"""

import importlib.util
import sys

if "pyroute2" not in sys.modules:
    _specification = importlib.util.find_spec("pyroute2")
    if _specification is None:
        raise ImportError("pyroute2 is not installed")
    sys.modules["pyroute2"] = importlib.util.module_from_spec(_specification)

from pyroute2.netlink.rtnl.fibmsg import FR_ACT_GOTO, FR_ACT_NOP, FR_ACT_TO_TBL
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg

__all__ = ("FR_ACT_GOTO", "FR_ACT_NOP", "FR_ACT_TO_TBL", "IFF_UP", "ifaddrmsg", "ifinfmsg")
