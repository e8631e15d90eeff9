"""What WhatsApp is asked about numbers, and what it is not."""

from collections.abc import Mapping, Sequence

import pytest

from service.domain.errors import ResourceExhausted, Unavailable
from service.domain.number_checks import KEPT_S, MOST_KEPT, NumberAnswer, NumberAnswers, NumberBudget, digits_of
from service.sessions.number_checks import NumberChecker

YES = NumberAnswer(is_on_whatsapp=True, jid="1@lid")
NO = NumberAnswer(is_on_whatsapp=False)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("+4917612345678", "4917612345678"),
        ("4917612345678", "4917612345678"),
        ("+49 (176) 123-456.78", "4917612345678"),
        (" +55 11\u00a091234/5678 ", "5511912345678"),
        ("017612345678", ""),
        ("004917612345678", ""),
        ("++4917612345678", ""),
        ("123456", ""),
        ("1" * 16, ""),
        ("٤٩١٧٦١٢٣٤٥٦٧٨", ""),
        ("4917612345678\n", ""),
        ("4917612345678@s.whatsapp.net", ""),
        ("abc", ""),
        ("", ""),
    ],
)
def test_a_number_has_a_country_code_and_digits(text: str, digits: str) -> None:
    assert digits_of(text) == digits


def test_a_tenth_of_an_hour_s_budget_can_be_spent_at_once_and_comes_back_with_time() -> None:
    budget = NumberBudget(3600, now=0.0)
    assert budget.spend(360, 0.0) == 0.0
    assert budget.spend(10, 0.0) == 10.0
    assert budget.spend(10, 4.0) == 6.0
    assert budget.spend(10, 10.0) == 0.0
    assert budget.spend(361, 10_000.0) == 0.0


def test_a_call_beyond_the_budget_succeeds_when_it_is_full_and_delays_the_next_one() -> None:
    budget = NumberBudget(10, now=0.0)
    assert budget.spend(100, 0.0) == 0.0
    assert budget.spend(1, 0.0) == pytest.approx(100 * 360)
    assert budget.spend(1, 100 * 360.0) == 0.0


def test_answers_are_kept_for_an_hour() -> None:
    answers = NumberAnswers()
    answers.keep({"1": YES}, 0.0)
    answers.keep({"2": NO}, 10.0)
    assert answers.known(["1", "2", "3"], KEPT_S - 1) == {"1": YES, "2": NO}
    assert answers.known(["1", "2"], KEPT_S) == {"2": NO}


def test_the_number_of_kept_answers_is_bounded() -> None:
    answers = NumberAnswers()
    answers.keep({str(number): YES for number in range(MOST_KEPT)}, 0.0)
    answers.keep({"0": NO, "new": YES}, 1.0)
    known = answers.known([*map(str, range(MOST_KEPT)), "new"], 2.0)
    assert len(known) == MOST_KEPT
    assert "1" not in known
    assert known["0"] == NO


class WhatsApp:
    """Answers, and remembers what it was asked."""

    def __init__(self, answers: Mapping[str, NumberAnswer]) -> None:
        self.answers = answers
        self.asked: list[Sequence[str]] = []
        self.error: Exception | None = None

    async def ask(self, numbers: Sequence[str]) -> Mapping[str, NumberAnswer]:
        self.asked.append(list(numbers))
        if self.error is not None:
            raise self.error
        return {number: self.answers[number] for number in numbers if number in self.answers}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_only_what_is_not_known_is_asked_and_each_number_once() -> None:
    whatsapp, checker = WhatsApp({"1": YES, "2": NO}), NumberChecker(1000)
    assert await checker.check("a", ["1", "2", "1"], whatsapp.ask) == {"1": YES, "2": NO}
    assert await checker.check("a", ["2", "3", "1"], whatsapp.ask) == {"1": YES, "2": NO}
    assert await checker.check("a", ["1"], whatsapp.ask) == {"1": YES}
    # What WhatsApp left out is asked again.
    assert await checker.check("a", ["3"], whatsapp.ask) == {}
    assert whatsapp.asked == [["1", "2"], ["3"], ["3"]]


async def test_a_session_beyond_its_budget_asks_nothing_and_its_known_numbers_are_still_answered() -> None:
    whatsapp, clock = WhatsApp({"1": YES, "2": YES}), Clock()
    checker = NumberChecker(10, clock)
    await checker.check("a", ["1"], whatsapp.ask)
    with pytest.raises(ResourceExhausted) as error:
        await checker.check("a", ["1", "2"], whatsapp.ask)
    assert (error.value.reason, error.value.retry_after) == ("NUMBER_CHECKS_EXHAUSTED", 360.0)
    assert await checker.check("a", ["1"], whatsapp.ask) == {"1": YES}
    # Another session has a budget of its own.
    await checker.check("b", ["2"], whatsapp.ask)
    clock.now = error.value.retry_after
    assert await checker.check("a", ["1", "2"], whatsapp.ask) == {"1": YES, "2": YES}
    assert whatsapp.asked == [["1"], ["2"], ["2"]]


async def test_no_answer_is_kept_of_a_call_that_fails() -> None:
    whatsapp, checker = WhatsApp({"1": YES}), NumberChecker(1000)
    whatsapp.error = Unavailable("no")
    with pytest.raises(Unavailable):
        await checker.check("a", ["1"], whatsapp.ask)
    whatsapp.error = None
    assert await checker.check("a", ["1"], whatsapp.ask) == {"1": YES}
    assert len(whatsapp.asked) == 2


async def test_sessions_that_check_nothing_any_more_take_no_memory() -> None:
    whatsapp, clock = WhatsApp({"1": YES}), Clock()
    checker = NumberChecker(1000, clock)
    await checker.check("a", ["1"], whatsapp.ask)
    clock.now = KEPT_S - 1
    await checker.check("b", ["1"], whatsapp.ask)
    assert set(checker._sessions) == {"a", "b"}
    clock.now = KEPT_S
    await checker.check("c", ["1"], whatsapp.ask)
    assert set(checker._sessions) == {"b", "c"}
