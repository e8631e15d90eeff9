"""Where tests/e2e imports the servers of a scenario from; they are in tests/scenarios/servers.py."""

from tests.scenarios.servers import Servers

__all__ = ["Servers"]
