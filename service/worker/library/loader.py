"""Imports neonize without its Go library in the zygote, and loads the library in each forked session process.

`import neonize` loads a Go library, and Go's threads do not survive a fork. So the zygote imports everything *but* the
library (neonize leaves it out if `SPHINX` is set, for its documentation). Each child then loads the library and puts it
into the modules that refer to it. That takes 0.03 s and 12 MiB instead of 0.5 s and 37 MiB.

Only this file depends on how neonize is built. The version is pinned exactly and a test checks every assumption. If a
new wheel is built differently, the start of the zygote or of the first session fails; there is no slower fallback.
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
_LIBRARY_ATTRIBUTE = "gocode"

_UNUSED = ("magic", "httpx", "linkpreview", "phonenumbers", "requests", "segno", "tqdm")
"""Modules that neonize imports to guess types of media, fetch addresses, format numbers and draw QR codes."""

#: Modules that refer to the library. Found before the fork, because searching all modules copies their memory pages.
_library_users: list[ModuleType] = []

#: What a session process changes in the library. Found before the fork, so that not every process searches 18 MB.
_patches: list[switches.Patch] = []


def import_without_library() -> None:
    """Import all that a session process needs except the Go library, without a thread. The zygote calls this once."""
    if not os.environ.get(_WITHOUT_LIBRARY):
        raise LoaderError(f"{_WITHOUT_LIBRARY} must be in the environment that the zygote is executed with")
    stub_unused_modules()
    with no_threads():
        importlib.import_module("neonize.client")
        importlib.import_module("service.worker.process.main")
    _forbid_downloads()
    _cache_lookups()
    _reap_shells()
    _share_openssl()
    _library_users.extend(_find_library_users())
    if not _library_users:
        raise LoaderError(f"no module of neonize refers to the library ({_LIBRARY_ATTRIBUTE})")
    _patches.extend(switches.find(_library_file()))
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise LoaderError(f"importing neonize left {threads - 1} threads, which would not survive a fork")
    # Objects that exist now are never garbage, and a collection that visits them would copy pages that children share.
    gc.collect()
    gc.freeze()


def load_library(*, restored: bool) -> Any:
    """Load the Go library into this child of the zygote, turn its switches on, and return it. Called once."""
    os.environ.pop(_WITHOUT_LIBRARY, None)
    binder = sys.modules[_BINDER]
    before = dict(vars(binder))
    importlib.reload(binder)
    for module in _library_users:
        _rebind(before, binder, module)
    library = vars(binder)[_LIBRARY_ATTRIBUTE]
    if not hasattr(library, "Neonize"):
        raise LoaderError("the Go library was not loaded")
    switches.turn_on(_patches, own_code.load_base(library.Neonize), restored=restored)
    return library


def _library_file() -> Path:
    """Return the file that the binder will load."""
    name: str = vars(sys.modules["neonize.utils.platform"])["generated_name"]()
    return Path(str(sys.modules[_BINDER].__file__)).parent / name


def _rebind(before: dict[str, Any], binder: ModuleType, module: ModuleType) -> None:
    """Replace each name that a module imported from the binder by that of the reloaded binder."""
    for name, value in list(vars(module).items()):
        if not name.startswith("__") and name in before and value is before[name]:
            setattr(module, name, vars(binder)[name])


def _find_library_users() -> list[ModuleType]:
    return [
        module
        for name, module in sys.modules.items()
        if name.startswith("neonize.") and name != _BINDER and hasattr(module, _LIBRARY_ATTRIBUTE)
    ]


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Keep threads from starting: neonize starts one at import to write Go's log lines, which would die in the fork.

    The thread is not needed, because `session/client.py` replaces the callback that fills its queue.
    """
    start = threading.Thread.start
    threading.Thread.start = lambda self: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]


def _forbid_downloads() -> None:
    """Refuse neonize's download of a library of another version, so that only the installed code runs."""

    def refuse(*_: object, **__: object) -> None:
        raise LoaderError("the installed Go library is not the one that this neonize expects")

    vars(sys.modules["neonize.download"])["download"] = refuse


def stub_unused_modules() -> None:
    """Replace modules that neonize imports and nothing here uses by stubs, whose functions raise LoaderError.

    With the real ones the zygote imports for 0.5 s instead of 0.27 and has 16 MB more, which each fork maps. `magic`
    needs a C library that no dependency of neonize brings.
    """
    for name in _UNUSED:
        sys.modules[name] = _Stub(name, "A stub; see service.worker.library.loader.")


class _Stub(ModuleType):
    """A module whose attributes are functions that refuse to be called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return functools.partial(_refuse, f"{self.__name__}.{name}")


def _refuse(name: str, *_: object, **__: object) -> None:
    raise LoaderError(f"session processes do not have {name} (service.worker.library.loader)")


def _reap_shells() -> None:
    """Reap the shells that neonize runs and does not wait for; otherwise they stay zombies of the zygote."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _share_openssl() -> None:
    """Initialise OpenSSL before the fork, so that children share its 1 to 2 MiB."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _cache_lookups() -> None:
    """Do once what each child would do: find the library's name with a shell, and load the codec of host names.

    Suppress neonize's search for ffmpeg, which is not needed here and would log a warning.
    """
    "localhost".encode("idna")
    platform = vars(sys.modules["neonize.utils.platform"])
    platform["generated_name"] = functools.cache(platform["generated_name"])
    platform["generated_name"]()
    vars(sys.modules["neonize.utils.ffmpeg"])["_ffmpeg_checked"] = True
