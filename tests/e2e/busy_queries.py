"""Called in a session process before its first connect: has the library ask its database much at once, again and again.

Its pool then opens connections by the dozen, and closes all but two of them of its own accord.
"""

import threading
import time
from typing import Any

import neonize.client

from service.worker import addresses
from simulator.preload import aim

AT_ONCE = 12


def aim_and_ask() -> None:
    """Aim at the simulator, and begin to ask a moment after the client was made."""
    aim()
    original = neonize.client.NewClient.__init__

    def begin(self: Any, *arguments: Any, **more: Any) -> None:
        original(self, *arguments, **more)
        threading.Thread(target=_ask, args=(self,), daemon=True).start()

    vars(neonize.client)["NewClient"].__init__ = begin


def _ask(client: Any) -> None:
    # Before its login there may be no client in Go to ask, only a nil.
    time.sleep(3.0)
    someone = addresses.from_text("491700000009@s.whatsapp.net")
    while True:
        asking = [
            threading.Thread(target=client.chat_settings.get_chat_settings, args=(someone,)) for _ in range(AT_ONCE)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        time.sleep(0.2)
