"""One use of the Signal sessions at a time."""

from service.pgrelay.signal_lock import MISSING_STORE_CHECKS, SignalLock


def new_lock(said: list[str] | None = None) -> SignalLock:
    words = [] if said is None else said
    return SignalLock(lambda _, sentence: words.append(sentence))


def test_a_decryption_has_it_until_its_transaction_ends() -> None:
    lock = new_lock()
    assert lock.acquire("decryption", in_transaction=True)
    assert lock.acquire("decryption", in_transaction=True), "it loads another one"
    assert not lock.acquire("send", in_transaction=False)
    lock.release("other", has_stored=True)
    assert not lock.acquire("send", in_transaction=False)
    lock.release("decryption", has_stored=False)
    assert lock.has_next
    assert lock.acquire("send", in_transaction=False)


def test_a_send_has_it_until_any_connection_has_stored_a_session() -> None:
    lock = new_lock()
    assert lock.acquire("loads", in_transaction=False)
    lock.release("loads", has_stored=False)
    assert not lock.acquire("decryption", in_transaction=True)
    assert not lock.acquire("loads", in_transaction=False), "another send may use the same connection"
    lock.release("stores", has_stored=True)
    assert lock.acquire("decryption", in_transaction=True)


def test_those_who_wait_get_it_in_their_order() -> None:
    lock = new_lock()
    lock.acquire("first", in_transaction=True)
    for name in ("second", "third"):
        assert not lock.acquire(name, in_transaction=True)
    lock.release("first", has_stored=True)
    assert not lock.acquire("third", in_transaction=True)
    assert lock.acquire("second", in_transaction=True)
    lock.release("second", has_stored=True)
    assert lock.acquire("third", in_transaction=True)


def test_a_connection_that_is_closed_neither_decrypts_nor_waits() -> None:
    lock = new_lock()
    lock.acquire("first", in_transaction=True)
    lock.acquire("second", in_transaction=True)
    lock.forget("second")
    lock.forget("first")
    assert not lock.has_next
    assert lock.acquire("third", in_transaction=True)


def test_a_send_goes_on_without_the_connection_by_which_it_has_loaded() -> None:
    lock = new_lock()
    lock.acquire("loads", in_transaction=False)
    lock.forget("loads")
    assert not lock.acquire("decryption", in_transaction=True)
    lock.release("stores", has_stored=True)
    assert lock.acquire("decryption", in_transaction=True)


def test_a_send_that_stores_nothing_loses_it_after_a_bounded_wait() -> None:
    said: list[str] = []
    lock = new_lock(said)
    lock.acquire("send", in_transaction=False)
    for _ in range(2 * MISSING_STORE_CHECKS):
        lock.check()
    assert not lock.acquire("decryption", in_transaction=True), "nothing waited"
    for _ in range(MISSING_STORE_CHECKS - 1):
        lock.check()
    assert not lock.acquire("decryption", in_transaction=True)
    lock.check()
    assert said == ["a Signal session was loaded and not stored; the lock is released"]
    assert lock.acquire("decryption", in_transaction=True)


def test_a_decryption_never_loses_it() -> None:
    lock = new_lock()
    lock.acquire("decryption", in_transaction=True)
    lock.acquire("send", in_transaction=False)
    for _ in range(2 * MISSING_STORE_CHECKS):
        lock.check()
    assert not lock.has_next
