"""neonize without its Go library, and without the thread and the log handler that come with it uninvited."""

import importlib
import logging
import os

from service.worker.library import loader


def _import_without_library() -> None:
    handlers = list(logging.root.handlers)
    before = os.environ.get("SPHINX")
    os.environ["SPHINX"] = "1"
    try:
        with loader.no_threads():
            importlib.import_module("neonize.client")
    finally:
        # Processes that other tests start must not inherit it.
        if before is None:
            del os.environ["SPHINX"]
        logging.root.handlers[:] = handlers


_import_without_library()
