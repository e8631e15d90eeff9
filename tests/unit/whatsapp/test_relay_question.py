"""What may be asked twice."""

import time

import pytest

from service.whatsapp.relay.question import LONGEST, Question, has_same_outcome_twice
from tests.fakes.postgres_messages import QUERY, SYNC, as_lib_pq_asks, message


def asked(*pieces: bytes) -> Question:
    question = Question()
    for piece in pieces:
        question.add(piece)
    return question


#: Of whatsmeow, as they are sent when a message comes in.
OF_THE_LIBRARY = [
    "SELECT session FROM whatsmeow_sessions WHERE our_jid=$1 AND their_id=$2",
    """
			INSERT INTO whatsmeow_identity_keys (our_jid, their_id, identity) VALUES ($1, $2, $3)
			ON CONFLICT (our_jid, their_id) DO UPDATE SET identity=excluded.identity
		""",
    """
			INSERT INTO whatsmeow_sessions (our_jid, their_id, session) VALUES ($1, $2, $3)
			ON CONFLICT (our_jid, their_id) DO UPDATE SET session=excluded.session
		""",
    """
			INSERT INTO whatsmeow_message_secrets (our_jid, chat_jid, sender_jid, message_id, key)
			VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (our_jid, chat_jid, sender_jid, message_id) DO NOTHING
		""",
    "DELETE FROM whatsmeow_pre_keys WHERE jid=$1 AND key_id=$2",
    "UPDATE whatsmeow_pre_keys SET uploaded=true WHERE jid=$1 AND key_id<=$2",
    "INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT (a) DO UPDATE SET b=excluded.b WHERE t.b<>excluded.b;",
    """
		SELECT key, sender_jid FROM whatsmeow_message_secrets
		WHERE our_jid=$1 AND (chat_jid=$2 OR chat_jid=(
			CASE
				WHEN $2 LIKE '%@lid'
					THEN (SELECT pn || '@s.whatsapp.net' FROM whatsmeow_lid_map WHERE lid=replace($2, '@lid', ''))
			END
		)) AND message_id=$4
	""",
    "SELECT COUNT(*) FROM whatsmeow_pre_keys WHERE jid=$1 AND uploaded=true",
    "DELETE FROM t WHERE jid=$1 AND index_mac=ANY($2::bytea[])",
    "UPDATE t SET a='x;--' WHERE b IN ($1, $2)",
]

HAS_ANOTHER_OUTCOME = [
    "INSERT INTO t (a) VALUES ($1)",
    "UPDATE t SET a=a+1 WHERE b=$1",
    "UPDATE t SET a=$1, b=b||$2",
    "INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET n=t.n+1",
    "INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO NOTHING RETURNING a",
    "DELETE FROM t RETURNING a",
    "SELECT nextval('s')",
    "SELECT pg_advisory_lock(1)",
    "BEGIN",
    "COMMIT",
    "WITH d AS (DELETE FROM t RETURNING a) INSERT INTO u SELECT a FROM d ON CONFLICT DO NOTHING",
    "SELECT 1; INSERT INTO t VALUES (1)",
    "DELETE FROM t; UPDATE t SET a=$1",
    "CREATE TABLE t (a int)",
    "SELECT 1 -- nothing",
    "SELECT * INTO u FROM t",
    "SELECT whatever(1)",
    "SELECT 1 FROM t WHERE a=public.whatever  (b)",
    'SELECT "nextval"($1)',
    "DELETE FROM t WHERE a=whatever(b)",
    "INSERT INTO t (a) SELECT whatever(b) FROM u ON CONFLICT DO NOTHING",
    "INSERT INTO t VALUES ('x ON CONFLICT DO UPDATE SET a=1 WHERE b')",
    "INSERT INTO t VALUES (E'\\' ON CONFLICT DO NOTHING --')",
    "INSERT INTO t VALUES ($$ ON CONFLICT DO UPDATE SET a=1 WHERE b$$)",
    "UPDATE t SET a='x' || a",
    "",
    ";",
]


@pytest.mark.parametrize("text", OF_THE_LIBRARY)
def test_what_has_the_same_outcome_twice_may_be_asked_twice(text: str) -> None:
    for said in (as_lib_pq_asks(text), message("Q", text.encode() + b"\0")):
        question = asked(said)
        assert question.stands_alone
        assert question.may_be_repeated
        assert bytes(question) == said


@pytest.mark.parametrize("text", HAS_ANOTHER_OUTCOME)
def test_what_would_be_done_twice_may_not(text: str) -> None:
    question = asked(as_lib_pq_asks(text))
    assert question.stands_alone
    assert not question.may_be_repeated


def test_it_comes_in_pieces_of_any_size() -> None:
    said = as_lib_pq_asks(OF_THE_LIBRARY[2])
    question = Question()
    for position in range(len(said)):
        assert not question.stands_alone, position
        question.add(said[position : position + 1])
    assert question.may_be_repeated


@pytest.mark.parametrize(
    "said",
    [
        b"",
        SYNC,
        QUERY + QUERY,
        QUERY + b"Q",
        as_lib_pq_asks("SELECT 1", name="prepared"),
        as_lib_pq_asks("SELECT 1")[len(message("P", b"\0SELECT 1\0\0\0")) :],
        as_lib_pq_asks("SELECT 1")[: -len(SYNC)],
        as_lib_pq_asks("SELECT 1") + as_lib_pq_asks("SELECT 1"),
        message("p", b"password\0"),
        b"Q\0\0\0\1" + QUERY,
    ],
)
def test_what_does_not_stand_alone_is_asked_of_nobody_else(said: bytes) -> None:
    question = asked(said)
    assert not question.stands_alone
    assert not question.may_be_repeated


def test_what_is_too_long_to_be_kept_is_not_asked_again() -> None:
    long = as_lib_pq_asks(OF_THE_LIBRARY[2], value=bytes(LONGEST))
    question = asked(long[:1000], long[1000:])
    assert not question.stands_alone
    question.clear()
    question.add(QUERY)
    assert question.may_be_repeated


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1" + " " * 1_000_000 + ";x",
        "INSERT INTO t VALUES (1)" + " ON CONFLICT (" * 70_000,
        "UPDATE t SET a=1" + ", a=1" * 200_000 + "+1",
        "UPDATE t SET a=1" + " WHERE a" * 100_000 + ";;",
        "SELECT " + "a " * 500_000 + "f(1)",
        "SELECT " + "a" * 1_000_000,
    ],
)
def test_it_is_judged_in_proportion_to_its_length(text: str) -> None:
    """The relay does nothing else meanwhile."""
    began = time.monotonic()
    has_same_outcome_twice(text)
    assert time.monotonic() - began < 3
