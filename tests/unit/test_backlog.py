"""What waits for Redis is bounded by number and by memory; the newest stays, in order."""

from datetime import UTC, datetime

from service.bus.backlog import BATCH_BYTES, BATCH_EVENTS, MOST_BYTES, MOST_EVENTS, Backlog
from service.domain.events import Event, StateChanged
from service.domain.observations import InboundEvent
from service.domain.session import State

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def small(number: int) -> Event:
    return Event(number, "anna", number, NOW, StateChanged(State.CONNECTING, State.CONNECTED, ""))


def large(number: int, size: int = BATCH_BYTES) -> Event:
    return Event(number, "anna", number, NOW, InboundEvent("MESSAGE_RECEIVED", bytes(size)))


def waiting(held: Backlog) -> list[int]:
    numbers = []
    while held:
        taken = held.first()
        numbers += [event.sequence for event in taken]
        held.done(taken)
    return numbers


def test_the_oldest_go_when_there_are_too_many() -> None:
    held = Backlog()
    held.extend(small(number) for number in range(MOST_EVENTS + 3))
    assert held.dropped == 3
    assert waiting(held) == list(range(3, MOST_EVENTS + 3))


def test_the_oldest_go_when_they_are_too_large() -> None:
    held = Backlog()
    most = MOST_BYTES // BATCH_BYTES
    held.extend(large(number) for number in range(most + 2))
    assert held.dropped == 2
    held.extend([small(most + 2)])
    assert waiting(held) == list(range(2, most + 3))


def test_room_that_was_made_is_used_again() -> None:
    held = Backlog()
    for number in range(3 * MOST_BYTES // BATCH_BYTES):
        held.extend([large(number)])
        held.done(held.first())
    assert (held.dropped, bool(held)) == (0, False)


def test_few_go_at_once_and_fewer_if_they_are_large() -> None:
    held = Backlog()
    held.extend(small(number) for number in range(BATCH_EVENTS + 1))
    assert len(held.first()) == BATCH_EVENTS
    held = Backlog()
    held.extend([large(1, BATCH_BYTES // 2), large(2, BATCH_BYTES // 2), small(3), large(4, 1)])
    assert [event.sequence for event in held.first()] == [1, 2, 3]


def test_one_that_is_larger_than_a_round_trip_goes_alone() -> None:
    held = Backlog()
    held.extend([large(1, BATCH_BYTES + 1), small(2)])
    assert [event.sequence for event in held.first()] == [1]


def test_what_was_dropped_on_its_way_is_not_taken_for_another() -> None:
    held = Backlog()
    held.extend([small(0)])
    on_their_way = held.first()
    held.extend(small(number) for number in range(1, MOST_EVENTS + 1))
    held.done(on_their_way)
    assert held.first()[0].sequence == 1
    assert held.dropped == 1
