"""Tests. A package, because a dependency of neonize installs a top-level `tests` of its own (docs/neonize.md).

Whoever imports any of it can import neonize, on a machine without libmagic too.
"""

import os
import sys
from types import ModuleType

# Tests start processes while gRPC runs: its fork handlers, which would run in the child, are not wanted there.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# neonize imports `magic` for media, which no test sends; python-magic fails where the C library is missing.
sys.modules.setdefault("magic", ModuleType("magic"))
