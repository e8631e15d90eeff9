"""What became of everything, from the event log, the simulated WhatsApp's own books, and what callers were told."""

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simulator.views import DeviceView
from tests.chaos.watching import Look
from tests.chaos.world import World
from tests.event_log import Logged
from tests.judgement import Judgement, Undelivered
from tests.scenarios.verdict import Counts
from tests.traffic import Kind, Written

_UNAVAILABLE = {"UNAVAILABLE DATABASE_UNAVAILABLE", "DEADLINE_EXCEEDED: Deadline Exceeded"}
"""What Status may say instead of an answer while the database is away; the other is our own patience."""


MOST_DEAF, MOST_UNTOLD = 20.0, 3.0
"""Seconds for which a session may be shown CONNECTED while it hears nothing (a silent database is noticed after 15),
and until Status answers once the database does."""


@dataclass(frozen=True)
class Outage:
    """When it was, in Unix seconds; `answered` is the first moment after it at which the database answered again."""

    began: float
    ended: float
    answered: float


@dataclass
class Verdict:
    """The figures of one outage. `problems` are those that must not be, in sentences."""

    messages: Judgement
    lost: list[str]
    """What is known of each message that is lost."""
    undecryptable: int
    """Messages that were asked for again though nothing had garbled them."""
    overlaps: int
    replaced: int
    codes: int
    starts: int
    back: list[float]
    """Per session: seconds from the database's first answer until it was connected for good, and heard something."""
    deaf: float
    """Most seconds for which a session that heard nothing was shown CONNECTED."""
    told: float
    """Most seconds from the database's first answer until Status answered."""
    wrong_answers: Counter[str] = field(default_factory=Counter)

    def problems(self, *, back_within: float) -> list[str]:
        """What is wrong with it; nothing, when nothing is."""
        counts = {
            "undecryptable": self.undecryptable,
            "overlapping logins": self.overlaps,
            "replaced": self.replaced,
            "QR codes": self.codes,
        }
        found = self.messages.problems + [f"{count} {what}" for what, count in counts.items() if count]
        if max(self.back) > back_within:
            found.append(f"a session came back after {max(self.back):.1f} s, more than {back_within:g} s")
        if self.deaf > MOST_DEAF:
            found.append(f"a session was shown CONNECTED for {self.deaf:.1f} s while it heard nothing")
        if self.told > max(MOST_UNTOLD, back_within):
            found.append(f"Status answered after {self.told:.1f} s")
        return found + [f"Status said {words} ({times} times)" for words, times in self.wrong_answers.items()]


async def conclude(
    world: World,
    before: Counts,
    outage: Outage,
    messages: Judgement,
    written: Sequence[Written],
    logged: Mapping[str, Sequence[Logged]],
    looks: Mapping[str, Sequence[Look]],
) -> Verdict:
    """Compare what was written with what arrived, and what was told with what was so."""
    after = await world.counts()
    verdict = Verdict(
        messages=messages,
        lost=[await _obituary(world, one, outage) for one in messages.lost],
        undecryptable=await _undecryptable(world, written),
        overlaps=after.overlaps - before.overlaps,
        replaced=after.replaced - before.replaced,
        codes=after.codes - before.codes,
        starts=after.starts - before.starts,
        back=[
            max(back_after(outage.answered, seen, after.devices[name]), hears_after(outage.answered, logged[name]))
            for name, seen in looks.items()
        ],
        deaf=max(deaf(seen, signs_of_life(logged[name], after.devices[name]), written) for name, seen in looks.items()),
        told=max(_told(outage.answered, seen) for seen in looks.values()),
    )
    verdict.wrong_answers.update(
        look.state for seen in looks.values() for look in seen if not look.is_answer and look.state not in _UNAVAILABLE
    )
    return verdict


def back_after(answered: float, looks: Sequence[Look], device: DeviceView) -> float:
    """Seconds from a moment until a session was shown connected, and was, and remained so; 0 if it always was."""

    def is_good(look: Look) -> bool:
        return look.says_connected and any(
            interval.connected_at <= look.at <= (interval.disconnected_at or look.at) for interval in device.intervals
        )

    later = [look for look in looks if look.at >= answered]
    bad = [number for number, look in enumerate(later) if not is_good(look)]
    if not bad:
        return 0.0
    return later[bad[-1] + 1].at - answered if bad[-1] + 1 < len(later) else float("inf")


def hears_after(answered: float, logged: Sequence[Logged]) -> float:
    """Seconds from a moment until a message of a session's was in the log."""
    return min((message.at - answered for message in logged if message.at >= answered), default=float("inf"))


def signs_of_life(logged: Sequence[Logged], device: DeviceView) -> list[float]:
    """When a session heard something, or logged in; Unix seconds."""
    return [message.at for message in logged] + [interval.connected_at for interval in device.intervals]


def deaf(looks: Sequence[Look], signs: Sequence[float], written: Sequence[Written]) -> float:
    """Most seconds between a session's last sign of life, a message or a login, and a look that says it is connected.

    From the first message that was written to the last one: who is not written to hears nothing.
    """
    first, last = written[0].at, written[-1].at
    signs = sorted([first, *signs])
    moments = [look.asked_at for look in looks if look.says_connected and first <= look.asked_at <= last]
    return max((at - signs[bisect.bisect(signs, at) - 1] for at in moments), default=0.0)


def _told(answered: float, looks: Sequence[Look]) -> float:
    first = next((look for look in looks if look.is_answer and look.at >= answered), None)
    return first.at - answered if first is not None else float("inf")


async def _undecryptable(world: World, written: Sequence[Written]) -> int:
    """Return how many of these messages a device has asked for again, but for those that were garbled."""
    ids = {message.message_id for message in written if message.kind is not Kind.GARBLED}
    deliveries = [one for jid in world.there.jids.values() for one in await world.there.simulator.deliveries(jid)]
    return sum(one.acknowledged_by == "retry" and one.id in ids for one in deliveries)


async def _obituary(world: World, undelivered: Undelivered, outage: Outage) -> str:
    """When a lost message was written, and what linked devices had said about it to its writer."""
    message = undelivered.message
    sent = next(sent for sent in await world.there.simulator.sent(message.writer) if sent.id == message.message_id)
    said = [
        f"{receipt.type} at {receipt.timestamp - outage.began:+.2f} s"
        for receipt in sent.receipts
        if ":" in receipt.device
    ]
    return (
        f"{undelivered}, written {message.at - outage.began:+.2f} s after the outage began:"
        f" {', '.join(said) or 'no receipt'}"
    )
