"""The dictionaries come out of the installed library, whole."""

from __future__ import annotations

from simulator.tokens import DICTIONARIES, DICTIONARY_SIZE, SINGLE_BYTE_TOKENS, installed_tokens


def test_the_installed_library_has_all_dictionaries() -> None:
    tokens = installed_tokens()
    assert len(tokens.single) == SINGLE_BYTE_TOKENS
    assert [len(words) for words in tokens.double] == [DICTIONARY_SIZE] * DICTIONARIES


def test_words_are_where_the_protocol_has_them() -> None:
    tokens = installed_tokens()
    assert tokens.single[:3] == ("", "xmlstreamstart", "xmlstreamend")
    assert {"s.whatsapp.net", "message", "receipt", "iq", "type"} <= set(tokens.single)
    assert tokens.double[0][:2] == ("read-self", "active")


def test_no_word_is_empty_or_there_twice() -> None:
    tokens = installed_tokens()
    words = [word for word in (*tokens.single[1:], *(word for words in tokens.double for word in words)) if word]
    assert len(words) == len(set(words))
    assert len(words) > 1200
    assert all(word.isascii() and word.isprintable() for word in words)
