"""The sessions that this node owns now, each with its runner."""

from collections.abc import Sequence
from uuid import UUID

from service.ports import StartPermit
from service.sessions.runner import Runner, RunnerPorts


class RunnerRegistry:
    """Runners by session. Kept by the reconciler, asked by the use-cases."""

    def __init__(self, incarnation: UUID, ports: RunnerPorts) -> None:
        self._incarnation = incarnation
        self._ports = ports
        self._runners: dict[str, Runner] = {}

    def __len__(self) -> int:
        return len(self._runners)

    @property
    def connected(self) -> int:
        """How many of them can be called."""
        return sum(runner.connection is not None for runner in self._runners.values())

    @property
    def waiting(self) -> int:
        """How many of them wait for their turn to be started."""
        return sum(runner.is_waiting for runner in self._runners.values())

    def all(self) -> Sequence[Runner]:
        """A copy: runners may come and go meanwhile."""
        return list(self._runners.values())

    def get(self, session_id: str) -> Runner | None:
        """The runner of a session that is owned here."""
        return self._runners.get(session_id)

    def add(self, session_id: str, turn: StartPermit | None = None) -> Runner:
        """A runner for a session just claimed on this turn. ValueError if it has one: two would be two owners."""
        if session_id in self._runners:
            raise ValueError(f"session {session_id!r} has a runner already")
        runner = self._runners[session_id] = Runner(session_id, self._incarnation, self._ports, turn)
        return runner

    def remove(self, session_id: str) -> None:
        """Its runner has released it or lost it."""
        del self._runners[session_id]
