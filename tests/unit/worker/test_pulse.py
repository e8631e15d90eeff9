import threading

from service.worker.session.connection_monitor import ConnectionMonitor, Verdict
from service.worker.session.heartbeat import Heartbeat
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


def ignore(_: Verdict) -> None:
    pass


def test_progress_is_told_while_the_library_does_not_answer() -> None:
    heard, asked, never = Heard(), threading.Event(), threading.Event()

    def hang() -> bool:
        asked.set()
        return never.wait()

    pulse = Heartbeat(heard.offer, hang, lambda: None, ConnectionMonitor(), ignore)
    pulse.start()
    pulse.ask()
    assert asked.wait(10)
    heard.wait_for(len(heard.frames) + 2)
    never.set()


def test_patience_hears_the_answers_of_the_library() -> None:
    looked, patience = threading.Event(), ConnectionMonitor()
    patience.connected()
    Heartbeat(Heard().offer, lambda: True, looked.set, patience, ignore).ask()
    assert looked.wait(10)
    assert patience.is_up


def test_what_follows_is_acted_upon() -> None:
    verdicts: list[Verdict] = []
    acted = threading.Event()

    def act(verdict: Verdict) -> None:
        verdicts.append(verdict)
        acted.set()

    patience = ConnectionMonitor()
    patience.connected()
    pulse = Heartbeat(lambda _: True, lambda: False, lambda: None, patience, act)
    pulse.start()
    pulse.ask()
    assert acted.wait(20)
    assert verdicts == [Verdict.LOST]
