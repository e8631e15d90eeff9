from types import SimpleNamespace
from typing import Any

from tests import costs


def test_the_record_is_not_out_of_date() -> None:
    recorded = costs.read()
    assert len([name for name in recorded if (costs.ROOT / name).exists()]) > 0.9 * len(recorded) > 0


def test_the_longest_file_comes_first_and_tests_of_a_file_keep_their_order() -> None:
    longest, second = list(costs.read())[:2]
    names = ["tests/new.py::b", f"{second}::b", f"{second}::a", "tests/new.py::a", f"{longest}::a"]
    items: list[Any] = [SimpleNamespace(nodeid=name) for name in names]
    costs.Costs().pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == [names[4], names[1], names[2], names[0], names[3]]
