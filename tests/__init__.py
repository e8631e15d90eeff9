"""Tests. A package, because a dependency of neonize installs a top-level `tests` of its own (docs/neonize.md).

Whoever imports any of it can import neonize, on a machine without libmagic too.
"""

import sys
from types import ModuleType

# neonize imports `magic` for media, which no test sends; python-magic fails where the C library is missing.
sys.modules.setdefault("magic", ModuleType("magic"))
