"""Whose a place in the queue is, and that every node comes to the same answer by itself."""

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from service.domain.lease import Node
from service.domain.placement import Candidate, claim_slots, select_target

ALL = 1000


def node(number: int) -> Node:
    return Node(UUID(int=number), f"node-{number}", f"127.0.0.1:{number}")


def candidates(*loads: int, most: int = 200) -> list[Candidate]:
    """Nodes that own so many, the smallest incarnation first."""
    return [Candidate(node(number), load, most) for number, load in enumerate(loads)]


def mine(nodes: list[Candidate], number: int, most: int = ALL) -> list[int]:
    return list(claim_slots(nodes, UUID(int=number), most))


def test_equals_take_turns() -> None:
    nodes = candidates(0, 0, 0)
    assert [mine(nodes, number, 3) for number in range(3)] == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


def test_who_has_more_waits_until_the_others_have_as_many() -> None:
    nodes = candidates(3, 0)
    assert mine(nodes, 1, 5) == [1, 2, 3, 5, 7]
    assert mine(nodes, 0, 2) == [4, 6]


def test_who_is_full_leaves_it_to_the_others() -> None:
    nodes = [Candidate(node(0), 0, 1), Candidate(node(1), 4, 4), Candidate(node(2), 9, 12)]
    assert [mine(nodes, number) for number in range(3)] == [[1], [], [2, 3, 4]]


def test_a_single_node_has_every_place_that_it_has_room_for() -> None:
    assert mine(candidates(197), 0) == [1, 2, 3]
    assert mine([], 0, 3) == [1, 2, 3], "nobody has been heard of yet, this node included"


def test_a_node_that_others_do_not_know_of_has_no_place() -> None:
    assert mine(candidates(5), 1) == []


some_nodes = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5).map(
    lambda given: [Candidate(node(number), load, most) for number, (load, most) in enumerate(given)]
)


def greedily(nodes: list[Candidate], due: int) -> list[Node]:
    """Whose each place is if somebody decided for all, one session after the other."""
    promised: Counter[UUID] = Counter()
    order = []
    for _ in range(due):
        if (one := select_target(nodes, promised)) is None:
            break
        promised[one.incarnation] += 1
        order.append(one)
    return order


@given(some_nodes, st.integers(0, 40))
def test_each_place_is_its_heir_s_and_nobody_else_s(nodes: list[Candidate], due: int) -> None:
    order = greedily(nodes, due)
    for candidate in nodes:
        expected = [place for place, one in enumerate(order, 1) if one == candidate.node]
        reckoned = claim_slots(nodes, candidate.node.incarnation, due)
        assert [place for place in reckoned if place <= due] == expected


@given(some_nodes, st.integers(0, 40), st.data())
def test_the_end_is_the_same_in_whatever_order_and_portions_they_claim(
    nodes: list[Candidate], due: int, data: st.DataObject
) -> None:
    first = greedily(nodes, due)
    shares = Counter(one.incarnation for one in first)
    owned: Counter[UUID] = Counter()
    left = len(first)
    while left:
        now = [Candidate(one.node, one.sessions + owned[one.node.incarnation], one.most_sessions) for one in nodes]
        asks = data.draw(st.sampled_from([one.node.incarnation for one in nodes]))
        claimed = [place for place in claim_slots(now, asks, data.draw(st.integers(1, 5))) if place <= left]
        owned[asks] += len(claimed)
        left -= len(claimed)
        assert owned[asks] <= shares[asks]
    assert owned == shares
