"""The installed neonize by links, with a copy of its library that tests alter."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Self


def installed_library() -> Path:
    """Return the library's file, without importing neonize."""
    spec = importlib.util.find_spec("neonize")
    assert spec is not None and spec.origin is not None
    (library,) = Path(spec.origin).parent.glob("neonize-linux-*.so")
    return library


class AlteredNeonize:
    """A folder for PYTHONPATH, in which neonize has a library of its own."""

    def __init__(self, folder: Path) -> None:
        original = installed_library()
        package = folder / "neonize"
        package.mkdir()
        for entry in original.parent.iterdir():
            if entry != original:
                (package / entry.name).symlink_to(entry)
        self.library = package / original.name
        self._original = original
        self._folder = folder
        self.restore()

    def restore(self) -> Self:
        """Undo every alteration."""
        shutil.copyfile(self._original, self.library)
        return self

    def write(self, offset: int, content: bytes) -> None:
        """Overwrite a part of the library's file."""
        with self.library.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def environment(self) -> dict[str, str]:
        """Return what has a process import it, besides what it has to import anyway."""
        root = Path(__file__).resolve().parents[1]
        return {"PYTHONPATH": os.pathsep.join(map(str, (self._folder, root, root / "generated")))}
