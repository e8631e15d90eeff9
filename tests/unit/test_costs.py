from types import SimpleNamespace
from typing import Any

from tests import costs


def test_each_recorded_file_exists() -> None:
    recorded = costs.read()
    assert recorded
    assert not [name for name in recorded if not (costs.ROOT / name).exists()]


def test_the_longest_file_comes_first_and_tests_of_a_file_keep_their_order() -> None:
    longest, second = list(costs.read())[:2]
    names = ["tests/new.py::b", f"{second}::b", f"{second}::a", "tests/new.py::a", f"{longest}::a"]
    items: list[Any] = [SimpleNamespace(nodeid=name) for name in names]
    costs.Costs().pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == [names[4], names[1], names[2], names[0], names[3]]
