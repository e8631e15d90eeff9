import threading

from service.worker.session.connection_monitor import ConnectionMonitor, ConnectionPolling


def test_the_monitor_gets_the_answers_of_the_library() -> None:
    asked, monitor = threading.Event(), ConnectionMonitor()
    monitor.connected()
    ConnectionPolling(lambda: True, asked.set, monitor).start()
    assert asked.wait(10)
    assert monitor.is_up


def test_one_thread_polls_however_often_polling_starts() -> None:
    before = set(threading.enumerate())
    polling = ConnectionPolling(lambda: False, lambda: None, ConnectionMonitor())
    polling.start()
    polling.start()
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["polling"]
