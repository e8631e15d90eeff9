import threading
import time

from service.whatsapp.pulse import Pulse
from zap.worker.v1 import frames_pb2


class Heard:
    """What is offered, and how to wait for it."""

    def __init__(self) -> None:
        self.frames: list[frames_pb2.Frame] = []
        self._more = threading.Condition()

    def offer(self, frame: frames_pb2.Frame) -> bool:
        with self._more:
            self.frames.append(frame)
            self._more.notify_all()
        return True

    def wait_for(self, count: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: len(self.frames) >= count, 10)


def test_progress_is_told_while_the_library_does_not_answer() -> None:
    heard, asked, never = Heard(), threading.Event(), threading.Event()

    def hang() -> bool:
        asked.set()
        return never.wait()

    pulse = Pulse(heard.offer, hang, lambda: None)
    pulse.start()
    pulse.trust()
    assert asked.wait(10)
    heard.wait_for(len(heard.frames) + 2)
    never.set()


def test_an_answer_counts_for_a_while() -> None:
    now = [100.0]
    pulse = Pulse(lambda _: True, lambda: False, lambda: None, lambda: now[0])
    states = [pulse.is_up]
    pulse.trust()
    states.append(pulse.is_up)
    now[0] += 4
    states.append(pulse.is_up)
    assert states == [False, True, False]


def test_a_doubt_stays_whatever_the_library_answers_until_it_is_trusted_again() -> None:
    looked = threading.Event()
    heard = Heard()
    pulse = Pulse(heard.offer, lambda: True, looked.set, time.monotonic)
    pulse.trust()
    pulse.doubt()
    assert looked.wait(10)
    pulse.start()
    heard.wait_for(1)
    assert not heard.frames[-1].progress.connected
    pulse.trust()
    heard.wait_for(2)
    assert heard.frames[-1].progress.connected
