"""What WhatsApp and the leases have counted of the sessions, and what of it must not be."""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.control import SimulatorControl
from simulator.views import DeviceView
from tests.e2e.sql import Sql
from tests.scenarios.report import Outcome

_EPOCHS = "SELECT session_id, epoch FROM zap.lease"


@dataclass(frozen=True)
class Counts:
    """Up to a moment (`at`, Unix seconds)."""

    at: float
    epochs: Mapping[str, int]
    devices: Mapping[str, DeviceView]
    codes: int
    """Clients that came to WhatsApp without an account, to be shown a QR code."""

    @property
    def starts(self) -> int:
        """Of session processes: each has an epoch."""
        return sum(self.epochs.values())

    @property
    def overlaps(self) -> int:
        """Connections of a device beside another one of the same device."""
        return sum(device.overlaps for device in self.devices.values())

    @property
    def replaced(self) -> int:
        """Connections that WhatsApp ended for another one of the same device."""
        return sum(device.replaced for device in self.devices.values())

    @property
    def logins(self) -> Mapping[str, int]:
        """Of each session."""
        return {name: device.logins for name, device in self.devices.items()}

    def judge(self, outcome: Outcome, before: "Counts") -> None:
        """Say what must not be: since the devices were paired, or, of codes, since a moment."""
        outcome.must(not self.overlaps, "a device was connected twice at once")
        outcome.must(not self.replaced, "a device was thrown out by itself")
        outcome.must(self.codes == before.codes, "somebody was shown a QR code")


async def count(sql: Sql, whatsapp: SimulatorControl, jids: Mapping[str, str]) -> Counts:
    """Count now. `jids`: the device of each session."""
    devices = {session_id: await whatsapp.device(jid) for session_id, jid in jids.items()}
    codes = (await whatsapp.state()).pairing.candidates
    epochs = {row["session_id"]: row["epoch"] for row in await sql.fetch(_EPOCHS)}
    return Counts(time.time(), epochs, devices, codes)


def absences(device: DeviceView, since: float) -> list[float]:
    """Return for how many seconds it was away, each time, by WhatsApp's clock; from a moment in Unix seconds on."""
    return [
        after.connected_at - before.disconnected_at
        for before, after in itertools.pairwise(device.intervals)
        if before.disconnected_at is not None and before.disconnected_at >= since
    ]
