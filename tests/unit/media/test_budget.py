import pytest

from service.domain.errors import ResourceExhausted
from service.media.budget import Budget

MIB = 1024 * 1024


def test_of_ten_uploads_those_that_fit_are_admitted() -> None:
    budget = Budget(128 * MIB, "UPLOAD_MEMORY_USED", "{amount} bytes are used")
    with budget.lend(64 * MIB), budget.lend(64 * MIB):
        for _ in range(8):
            with (
                pytest.raises(ResourceExhausted, match=f"{128 * MIB} bytes are used") as refused,
                budget.lend(64 * MIB),
            ):
                pass
            assert refused.value.reason == "UPLOAD_MEMORY_USED"
            assert refused.value.retry_after > 0
    assert budget.used == 0


def test_what_was_lent_comes_back_after_an_error() -> None:
    budget = Budget(1, "TOO_MANY", "")
    with pytest.raises(KeyError), budget.lend(1):
        raise KeyError
    with budget.lend(1):
        assert budget.used == 1
