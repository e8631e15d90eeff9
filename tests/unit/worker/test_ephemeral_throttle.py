from service.worker.session.ephemeral_throttle import EVENTS_PER_SECOND, EphemeralThrottle
from zap.v1 import event_pb2
from zap.worker.v1 import frames_pb2

FRAMES = [
    frames_pb2.Frame(event=event_pb2.Event(type=kind))
    for kind in (event_pb2.Event.TYPE_PRESENCE, event_pb2.Event.TYPE_CHAT_PRESENCE, event_pb2.Event.TYPE_CALL)
]
FIRST, SECOND, THIRD = FRAMES


class Told:
    def __init__(self) -> None:
        self.frames: list[frames_pb2.Frame] = []
        self.fleeting = EphemeralThrottle(self._offer)

    def _offer(self, frame: frames_pb2.Frame) -> bool:
        self.frames.append(frame)
        return True


def test_the_first_is_told_at_once_and_the_last_of_a_second_at_its_end() -> None:
    told = Told()
    for frame in FRAMES:
        told.fleeting.submit("anna", frame)
    assert told.frames == [FIRST]
    told.fleeting.begin_second()
    assert told.frames == [FIRST, THIRD]


def test_what_was_told_at_the_beginning_of_a_second_counts_for_it() -> None:
    told = Told()
    told.fleeting.submit("anna", FIRST)
    told.fleeting.submit("anna", SECOND)
    told.fleeting.begin_second()
    told.fleeting.submit("anna", THIRD)
    assert told.frames == [FIRST, SECOND]
    told.fleeting.begin_second()
    assert told.frames == [FIRST, SECOND, THIRD]


def test_after_a_quiet_second_it_is_told_at_once_again() -> None:
    told = Told()
    told.fleeting.submit("anna", FIRST)
    told.fleeting.begin_second()
    told.fleeting.submit("anna", SECOND)
    assert told.frames == [FIRST, SECOND]


def test_one_thing_does_not_wait_for_another() -> None:
    told = Told()
    told.fleeting.submit("anna", FIRST)
    told.fleeting.submit("bob", SECOND)
    assert told.frames == [FIRST, SECOND]


def test_no_more_than_so_many_are_told_in_a_second() -> None:
    told = Told()
    for number in range(2 * EVENTS_PER_SECOND):
        told.fleeting.submit(number, FIRST)
    assert len(told.frames) == EVENTS_PER_SECOND
    told.fleeting.begin_second()
    told.fleeting.submit("somebody else", SECOND)
    assert told.frames[EVENTS_PER_SECOND:] == [SECOND]
