from service.worker.process.stall_detector import StallDetector


class Parts:
    """What a process is doing, look by look."""

    def __init__(self) -> None:
        self.event = 0
        self.waited = False
        self.vitals = StallDetector(lambda: self.event, lambda: self.waited)

    def looks(self, count: int, *, obeying: bool = True) -> str:
        """So many looks; what the last one found."""
        found = ""
        for _ in range(count):
            if obeying:
                self.vitals.command_reader_alive()
            found = self.vitals.check()
        return found


def test_a_reader_that_does_not_come_round_for_some_looks_is_stuck() -> None:
    parts = Parts()
    assert not parts.looks(20)
    assert not parts.looks(3, obeying=False)
    assert "no command" in parts.looks(1, obeying=False)
    assert not parts.looks(1)


def test_an_event_in_hand_for_some_looks_is_stuck_until_it_is_done() -> None:
    parts = Parts()
    parts.event = 7
    assert not parts.looks(4)
    assert "an event" in parts.looks(1)
    parts.event = 0
    assert not parts.looks(1)


def test_events_that_follow_each_other_are_not_stuck() -> None:
    parts = Parts()
    for event in range(1, 20):
        parts.event = event
        assert not parts.looks(2)


def test_an_event_that_waits_for_the_node_is_the_node_s_affair() -> None:
    parts = Parts()
    parts.event, parts.waited = 7, True
    assert not parts.looks(20)
    # The node took it, and still the event does not come to its end.
    parts.waited = False
    assert not parts.looks(3)
    assert parts.looks(1)
