"""Tests. A package, because a dependency of neonize installs a top-level `tests` of its own (docs/neonize.md)."""
