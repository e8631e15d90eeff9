"""A phone counts how often it asks for a message, and says what came of it."""

from __future__ import annotations

from simulator.inbox import MOST_RETRIES, Inbox, InboxMessage, unread

BOB = "4922"


def miss(inbox: Inbox, asked: int = 0) -> int | None:
    return inbox.miss(unread("A", BOB, 1, BOB), asked)


def shown(text: str, retries: int = 0) -> InboxMessage:
    return InboxMessage("A", BOB, 1, "4911", text, 0.0, retries=retries)


def test_a_message_that_is_read_at_last_says_after_how_many_retries() -> None:
    inbox = Inbox()
    assert [miss(inbox), miss(inbox, 1)] == [1, 2]
    assert [(missed.id, missed.retries, missed.is_given_up) for missed in inbox.unreadable] == [("A", 2, False)]
    assert inbox.read((BOB, "A")) == 2
    assert (inbox.unreadable, inbox.failures) == ([], 2)


def test_a_phone_gives_up() -> None:
    inbox = Inbox()
    assert [miss(inbox, asked) for asked in range(MOST_RETRIES + 1)] == [1, 2, 3, 4, 5, None]
    assert [missed.is_given_up for missed in inbox.unreadable] == [True]


def test_an_answer_says_which_retry_comes_next() -> None:
    assert miss(Inbox(), 3) == 4


def test_a_message_that_comes_twice_is_one_and_an_edit_changes_its_text() -> None:
    inbox = Inbox()
    inbox.keep(shown("first"))
    inbox.keep(shown("again"))
    inbox.edit((BOB, "A"), "edited")
    inbox.edit((BOB, "nothing"), "of a message that is not here")
    (message,) = inbox.messages
    assert (message.text, message.times, message.edits) == ("edited", 2, 1)
    assert inbox.find("A") is message
    assert inbox.find("nothing") is None
