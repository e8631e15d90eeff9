"""What is told of sessions on their way back, survey by survey."""

from uuid import UUID

from service.domain.lease import Node
from service.domain.placement import Candidate
from service.domain.restore import REMIND_EVERY, SETTLED, Progress, Restore, Survey


def sentences(told: list[Progress | None]) -> list[str]:
    return [progress.sentence for progress in told if progress is not None]


def test_a_restart_of_everything_is_told_at_the_start_every_5_seconds_and_at_the_end() -> None:
    restore = Restore(10)
    told = [restore.look(Survey(wanted=100, silent=100, silent_for=3.0), 0.0)]
    for tenth in range(1, 200):
        now = tenth / 10
        connected = max(0, min(100, (tenth - 30)))
        told.append(restore.look(Survey(wanted=100, connected=connected, due=100 - connected), now))
    assert sentences(told) == [
        "Restoring sessions: 0 of 100 connected, 100 waiting, about 13 s left",
        "Restoring sessions: 20 of 100 connected, 80 waiting, about 8 s left",
        "Restoring sessions: 70 of 100 connected, 30 waiting, about 3 s left",
        "Restored sessions: 100 of 100 connected after 13.0 s",
    ]
    assert not restore.is_going_on


def test_one_session_that_comes_back_is_not_worth_a_line() -> None:
    restore = Restore(10)
    assert restore.look(Survey(wanted=100, connected=99, due=1), 0.0) is None
    assert restore.look(Survey(wanted=100, connected=99), 1.0) is None


def test_those_that_do_not_come_back_are_not_waited_for() -> None:
    restore = Restore(10)
    assert restore.look(Survey(wanted=5, due=5), 0.0) is not None
    assert restore.look(Survey(wanted=5), 0.5) is None
    assert restore.look(Survey(wanted=5, connected=3), 1.5) is None
    assert sentences([restore.look(Survey(wanted=5, connected=3), 1.5 + SETTLED - 0.1)]) == [
        "Restoring sessions: 3 of 5 connected, 0 waiting, about 0 s left"
    ]
    assert sentences([restore.look(Survey(wanted=5, connected=3), 1.5 + SETTLED)]) == [
        "Restored sessions: 3 of 5 connected after 1.5 s; Status says what keeps the other 2"
    ]


def test_a_node_that_is_full_says_so_and_does_not_repeat_it_all_the_time() -> None:
    restore = Restore(10)
    told = [restore.look(Survey(wanted=9, connected=4, due=5), float(now), is_full=True) for now in range(121)]
    assert sentences(told) == [
        "Restoring sessions: 4 of 9 connected, 5 waiting, about 0 s left; this node takes no more (ZAP_MAX_SESSIONS)"
    ] * (1 + int(120 / REMIND_EVERY))


def test_sessions_that_wait_in_their_owner_after_they_fell_together_are_told_of_too() -> None:
    restore = Restore(4)
    assert sentences([restore.look(Survey(wanted=30, connected=10, waiting=20), 7.0)]) == [
        "Restoring sessions: 10 of 30 connected, 20 waiting, about 5 s left"
    ]
    assert sentences([restore.look(Survey(wanted=30, connected=30), 12.0)]) == [
        "Restored sessions: 30 of 30 connected after 5.0 s"
    ]


def test_what_is_left_is_shared_by_all_nodes_that_have_room() -> None:
    nodes = [Candidate(Node(UUID(int=number), "node", ""), number, 2) for number in range(3)]
    assert sentences([Restore(10).look(Survey(wanted=100, due=100, candidates=nodes), 0.0)]) == [
        "Restoring sessions: 0 of 100 connected, 100 waiting, about 5 s left"
    ]
