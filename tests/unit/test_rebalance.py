"""Which node hands a session to which: nodes become level, with no move too many, whoever decides when."""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.lease import Node
from service.domain.placement import Candidate
from service.domain.rebalance import CALM_S, Rebalance, is_worth_it, next_target, shares


def node(number: int) -> Node:
    return Node(UUID(int=number), f"node-{number}", f"127.0.0.1:{number}")


def candidates(*loads: int, most: int = 1000) -> list[Candidate]:
    """Nodes that own so many, the smallest incarnation first."""
    return [Candidate(node(number), load, most) for number, load in enumerate(loads)]


def loads(nodes: Sequence[Candidate]) -> list[int]:
    return [one.sessions for one in nodes]


def after(nodes: Sequence[Candidate], *moves: tuple[UUID, UUID]) -> list[Candidate]:
    """The nodes once these sessions have been handed over."""
    gained = Counter(taker for _, taker in moves)
    gained.subtract(Counter(giver for giver, _ in moves))
    return [Candidate(one.node, one.sessions + gained[one.node.incarnation], one.most_sessions) for one in nodes]


def wished(nodes: Sequence[Candidate]) -> list[tuple[UUID, UUID]]:
    """What each node does if all decide by the same numbers, one session each."""
    found = ((one.node.incarnation, next_target(nodes, one.node.incarnation)) for one in nodes)
    return [(giver, taker.incarnation) for giver, taker in found if taker is not None]


@pytest.mark.parametrize(
    ("owned", "shared"),
    [
        ((8, 0), (4, 4)),
        ((9, 0), (5, 4)),
        ((5, 4, 0), (3, 3, 3)),
        ((4, 4, 0), (3, 3, 2)),
        ((5, 4), (5, 4)),
        ((20,) * 10 + (0,), (19, 19, *(18,) * 9)),
    ],
)
def test_a_share_is_what_each_owns_when_all_are_level(owned: tuple[int, ...], shared: tuple[int, ...]) -> None:
    found = shares(candidates(*owned))
    assert sorted(found.values(), reverse=True) == sorted(shared, reverse=True)


def test_what_cannot_be_divided_stays_where_the_most_are() -> None:
    assert shares(candidates(4, 5)) == {UUID(int=0): 4, UUID(int=1): 5}
    assert shares(candidates(5, 4)) == {UUID(int=0): 5, UUID(int=1): 4}


def test_nobody_is_given_more_than_it_has_room_for() -> None:
    nodes = [Candidate(node(0), 9, 200), Candidate(node(1), 0, 1), Candidate(node(2), 0, 200)]
    assert shares(nodes) == {UUID(int=0): 4, UUID(int=1): 1, UUID(int=2): 4}
    full = [Candidate(node(0), 9, 9), Candidate(node(1), 2, 2)]
    assert next_target(full, UUID(int=0)) is None
    assert not is_worth_it(full)


def test_one_more_is_level() -> None:
    assert wished(candidates(5, 4)) == []
    assert not is_worth_it(candidates(5, 4))
    assert is_worth_it(candidates(5, 3))


def test_a_small_part_of_many_is_not_worth_a_move() -> None:
    assert not is_worth_it(candidates(104, 96))
    assert is_worth_it(candidates(105, 95))


def test_a_node_that_is_not_known_and_a_single_one_keep_what_they_have() -> None:
    assert next_target(candidates(5, 0), UUID(int=9)) is None
    assert next_target(candidates(5), UUID(int=0)) is None
    assert next_target([], UUID(int=0)) is None
    assert not is_worth_it(candidates(5))


some_nodes = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=6).map(
    lambda given: [Candidate(node(number), min(load, most), most) for number, (load, most) in enumerate(given)]
)


@given(some_nodes)
def test_nodes_that_all_decide_at_once_become_level_and_no_move_is_too_many(nodes: list[Candidate]) -> None:
    share = shares(nodes)
    needed = sum(max(0, one.sessions - share[one.node.incarnation]) for one in nodes)
    done = 0
    while moves := wished(nodes):
        done += len(moves)
        nodes = after(nodes, *moves)
        assert all(one.sessions <= one.most_sessions for one in nodes)
    assert done <= needed
    with_room = [one.sessions for one in nodes if one.room]
    assert not with_room or max(loads(nodes)) - min(with_room) <= 1


@given(some_nodes, st.randoms(use_true_random=False))
def test_nodes_that_decide_by_numbers_that_are_old_become_level_too(nodes: list[Candidate], chance: object) -> None:
    assert hasattr(chance, "sample")
    for _ in range(100):
        moves = wished(nodes)
        if not moves:
            break
        # Some of those who decided were quick; the others decide anew by what is there then.
        nodes = after(nodes, *chance.sample(moves, k=1 + len(moves) // 2))
    assert wished(nodes) == []


class Seen:
    """A node that owns eight sessions beside another one with none, for as long as is said."""

    def __init__(self) -> None:
        self.rebalance = Rebalance(UUID(int=0))

    def target(self, now: float, *owned: int) -> Node | None:
        return self.rebalance.target(candidates(*(owned or (8, 0))), now)


def test_nothing_is_moved_before_all_has_been_calm() -> None:
    seen = Seen()
    assert seen.target(100.0) is None
    assert seen.target(100.0 + CALM_S - 0.1) is None
    assert seen.target(100.0 + CALM_S) == node(1)


def test_a_node_that_comes_or_goes_ends_the_calm() -> None:
    seen = Seen()
    seen.target(100.0)
    assert seen.target(109.0, 8, 0, 0) is None
    assert seen.target(111.0, 8, 0, 0) is None
    assert seen.target(109.0 + CALM_S, 8, 0, 0) == node(1)
    # One stops: the fleet is not told, so that nobody moves.
    assert seen.rebalance.target([], 120.0) is None
    assert seen.target(121.0, 8, 0) is None
    assert seen.target(121.0 + CALM_S, 8, 0) == node(1)


def test_so_does_an_outage() -> None:
    seen = Seen()
    seen.target(100.0)
    seen.rebalance.disturb()
    assert seen.target(111.0) is None
    assert seen.target(111.0 + CALM_S) == node(1)


def test_what_was_begun_goes_on_until_nodes_are_level() -> None:
    seen = Seen()
    seen.target(100.0, 110, 90)
    at = 100.0 + CALM_S
    assert seen.target(at, 104, 96) is None, "not worth it"
    assert seen.target(at, 110, 90) == node(1)
    assert seen.target(at, 104, 96) == node(1), "but it has begun"
    assert seen.target(at, 100, 100) is None
    assert seen.target(at, 104, 96) is None, "and is over"
