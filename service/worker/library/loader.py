"""The one file that leans on how neonize is put together, so that a process can be forked from one that has it.

`import neonize` loads a Go library, and Go's threads do not survive a fork. So the zygote imports everything *but* the
library (`SPHINX`, which neonize has for its documentation, leaves it out), and each child loads the library and hands
it to the modules that hold a place for it. That is 0.03 s and 12 MiB in place of 0.5 s and 37 MiB.

If a new wheel is put together differently, this fails loudly, at the start of the zygote or of the first session, and
not by a slower way that nobody would notice: the version is pinned exactly and a test holds every assumption made here.
"""

import contextlib
import functools
import gc
import importlib
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from service.worker.errors import LoaderError
from service.worker.library import own_code, switches

_WITHOUT_LIBRARY = "SPHINX"
_BINDER = "neonize._binder"
_PLACE = "gocode"

_UNUSED = ("magic", "httpx", "linkpreview", "phonenumbers", "requests", "segno", "tqdm")
"""Modules that neonize imports to guess types of media, fetch addresses, format numbers and draw QR codes."""

#: Modules that hold a place for the library, found before the fork: a look at all modules copies the pages they are on.
_places: list[ModuleType] = []

#: What a session process changes in the library, found before the fork as well: each process would search 18 MB.
_patches: list[switches.Patch] = []


def import_without_library() -> None:
    """Import all that a session process needs but the Go library, and leave no thread behind. For the zygote, once."""
    if not os.environ.get(_WITHOUT_LIBRARY):
        raise LoaderError(f"{_WITHOUT_LIBRARY} must be in the environment that the zygote is executed with")
    stand_in_for_unused()
    with no_threads():
        importlib.import_module("neonize.client")
        importlib.import_module("service.worker.process.main")
    _forbid_downloads()
    _ask_once()
    _reap_shells()
    _share_openssl()
    _places.extend(_holders())
    if not _places:
        raise LoaderError(f"no module of neonize has a place for the library ({_PLACE})")
    _patches.extend(switches.find(_library_file()))
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise LoaderError(f"importing neonize left {threads - 1} threads, which would not survive a fork")
    # What is here now is never garbage, and touching it would copy the pages that children share.
    gc.collect()
    gc.freeze()


def load_library(*, restored: bool) -> Any:
    """Load the Go library into this process, a child of the zygote, turn its switches on, and return it. Once."""
    os.environ.pop(_WITHOUT_LIBRARY, None)
    binder = sys.modules[_BINDER]
    before = dict(vars(binder))
    importlib.reload(binder)
    for module in _places:
        _hand_over(before, binder, module)
    library = vars(binder)[_PLACE]
    if not hasattr(library, "Neonize"):
        raise LoaderError("the Go library was not loaded")
    switches.turn_on(_patches, own_code.load_base(library.Neonize), restored=restored)
    return library


def _library_file() -> Path:
    """Return the file that the binder is going to load."""
    name: str = vars(sys.modules["neonize.utils.platform"])["generated_name"]()
    return Path(str(sys.modules[_BINDER].__file__)).parent / name


def _hand_over(before: dict[str, Any], binder: ModuleType, module: ModuleType) -> None:
    """Replace everything that a module imported from the binder by what the reloaded binder has under that name."""
    for name, value in list(vars(module).items()):
        if not name.startswith("__") and name in before and value is before[name]:
            setattr(module, name, vars(binder)[name])


def _holders() -> list[ModuleType]:
    return [
        module
        for name, module in sys.modules.items()
        if name.startswith("neonize.") and name != _BINDER and hasattr(module, _PLACE)
    ]


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Keep threads from starting: neonize starts one at import, to write Go's log lines, and it would die in the fork.

    Nothing misses it: the callback that fills its queue is replaced by one of ours (client.py).
    """
    start = threading.Thread.start
    threading.Thread.start = lambda self: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]


def _forbid_downloads() -> None:
    """neonize fetches a library of another version over the network. Never here: what runs is what was installed."""

    def refuse(*_: object, **__: object) -> None:
        raise LoaderError("the installed Go library is not the one that this neonize expects")

    vars(sys.modules["neonize.download"])["download"] = refuse


def stand_in_for_unused() -> None:
    """Let neonize import modules that nothing here uses, without loading them. What is called of them refuses.

    With them the zygote imports for 0.5 s in place of 0.27, and has 16 MB more, which each fork maps. `magic` needs a C
    library that no dependency of neonize brings.
    """
    for name in _UNUSED:
        sys.modules[name] = _StandIn(name, "A stand-in; see service.worker.library.loader.")


class _StandIn(ModuleType):
    """A module each attribute of which is a function that refuses to be called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return functools.partial(_refuse, f"{self.__name__}.{name}")


def _refuse(name: str, *_: object, **__: object) -> None:
    raise LoaderError(f"session processes do not have {name} (service.worker.library.loader)")


def _reap_shells() -> None:
    """neonize does not wait for the shells that it runs; each would stay a zombie of the zygote's for ever."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _share_openssl() -> None:
    """Have OpenSSL set itself up here: that is 1 to 2 MiB, which children then share, whether or not they need TLS."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _ask_once() -> None:
    """Do what each child would do: ask for the library's name, with a shell, and load the codec of host names.

    neonize also looks for an ffmpeg, which nothing here needs, and warns.
    """
    "localhost".encode("idna")
    platform = vars(sys.modules["neonize.utils.platform"])
    platform["generated_name"] = functools.cache(platform["generated_name"])
    platform["generated_name"]()
    vars(sys.modules["neonize.utils.ffmpeg"])["_ffmpeg_checked"] = True
