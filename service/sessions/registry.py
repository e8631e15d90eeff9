"""Keeps the runners of the sessions that this node owns."""

from collections.abc import Sequence
from uuid import UUID

from service.ports.processes import StartPermit
from service.sessions.runner import Runner, RunnerPorts


class RunnerRegistry:
    """Maps session ids to runners. The reconciler adds and removes them, the use-cases look them up."""

    def __init__(self, incarnation: UUID, ports: RunnerPorts) -> None:
        self.incarnation = incarnation
        self._ports = ports
        self._runners: dict[str, Runner] = {}

    def __len__(self) -> int:
        return len(self._runners)

    @property
    def connected(self) -> int:
        """The number of sessions that can be called."""
        return sum(runner.connection is not None for runner in self._runners.values())

    @property
    def waiting(self) -> int:
        """The number of sessions that wait for a start permit."""
        return sum(runner.is_waiting for runner in self._runners.values())

    def all(self) -> Sequence[Runner]:
        """Return a copy, so that runners may be added and removed while it is used."""
        return list(self._runners.values())

    def get(self, session_id: str) -> Runner | None:
        """Return the session's runner, or None if this node does not own the session."""
        return self._runners.get(session_id)

    def add(self, session_id: str, start_permit: StartPermit | None = None) -> Runner:
        """Create the runner of a session that was just claimed. Raises ValueError if the session has a runner."""
        if session_id in self._runners:
            raise ValueError(f"session {session_id!r} has a runner already")
        runner = self._runners[session_id] = Runner(session_id, self.incarnation, self._ports, start_permit)
        return runner

    def remove(self, session_id: str) -> None:
        """Remove a runner that has released or lost its session."""
        del self._runners[session_id]
