"""Everything that the loader assumes of neonize's insides, in fresh interpreters. A wheel that differs fails here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *, sphinx: bool = True) -> Any:
    """What the script prints, as JSON."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'generated'}"}
    if sphinx:
        environment["SPHINX"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_zygote_s_import_leaves_one_thread_and_no_library() -> None:
    seen = run("""
import json, os
from service.worker.library import loader
loader.import_without_library()
maps = open("/proc/self/maps").read()
print(json.dumps([len(os.listdir("/proc/self/task")), "neonize-linux" in maps, "grpc" in __import__("sys").modules]))
""")
    assert seen == [1, False, False]


def test_the_zygote_has_stand_ins_for_modules_that_nothing_uses() -> None:
    seen = run("""
import json, sys
from service.worker.library import loader
loader.import_without_library()
refused = []
for call in (sys.modules["neonize.client"].link_preview, sys.modules["requests"].get, sys.modules["httpx"].AsyncClient):
    try:
        call("http://example.org")
    except loader.LoaderError as error:
        refused.append(str(error).split()[5])
loaded = [name for name in ("bs4", "click", "urllib3") if name in sys.modules]
print(json.dumps([refused, loaded, "encodings.idna" in sys.modules]))
""")
    assert seen == [["linkpreview.link_preview", "requests.get", "httpx.AsyncClient"], [], True]


def test_a_child_has_the_library_in_every_module_that_holds_a_place_for_it() -> None:
    seen = run("""
import json, os, sys
from service.worker.library import loader
loader.import_without_library()
reading, writing = os.pipe()
if os.fork() == 0:
    library = loader.load_library(restored=False)
    binder = sys.modules["neonize._binder"]
    client = sys.modules["neonize.client"]
    holders = [name for name, module in sys.modules.items() if name.startswith("neonize") and hasattr(module, "gocode")]
    same = all(sys.modules[name].gocode is library for name in holders)
    proxy = client.ProxySettings(proxy_address="http://p")._to_c_struct()
    fits = isinstance(proxy, binder._CProxySettings)
    answer = [sorted(holders), same, library.GetVersion().decode(), fits, "SPHINX" in os.environ]
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)
os.wait()
print(os.read(reading, 4096).decode())
""")
    assert seen == [["neonize._binder", "neonize.client"], True, seen[2], True, False]
    assert seen[2]


def test_without_sphinx_the_zygote_refuses() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        run("from service.worker.library import loader; loader.import_without_library()", sphinx=False)
    assert "must be in the environment" in failure.value.stderr


def test_a_library_of_another_version_is_not_fetched_over_the_network() -> None:
    seen = run("""
import json, sys
from service.worker.library import loader
loader.import_without_library()
vars(sys.modules["neonize.download"])["__GONEONIZE_VERSION__"] = "0.0.0"
said = []
try:
    sys.modules["neonize.download"].download()
except loader.LoaderError as error:
    said.append(str(error))
try:
    loader.load_library(restored=False)
except RuntimeError as error:
    said.append(str(error))
print(json.dumps(said))
""")
    assert seen[0] == "the installed Go library is not the one that this neonize expects"
    assert "version mismatch: found 0.5.2, expected 0.0.0" in seen[1]


def test_what_the_client_replaces_is_there_to_be_replaced() -> None:
    seen = run("""
import inspect, json
from service.worker.library import loader
loader.import_without_library()
import neonize.client, neonize.events
source = inspect.getsource(neonize.client.NewClient.connect_with_proxy)
names = ["self.__onLoginStatus", "self.event.execute", "(log_whatsmeow)", "self.event.list_func", "log.level"]
print(json.dumps([name for name in names if name not in source]))
""")
    assert seen == []
