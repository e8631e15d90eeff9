"""Generate the Python of protos/ into generated/: messages, gRPC stubs and their types.

`python scripts/generate.py` writes; with `--check` it compares and exits 1 when generated/ is out of date.
"""

import argparse
import filecmp
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
THIRD_PARTY = PROTOS / "third_party"
GENERATED = ROOT / "generated"
# The interpreter of the environment lies beside its scripts; PATH need not name that folder.
PLUGINS = Path(sys.executable).parent


def main() -> int:
    """Write generated/, or with --check compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate_into(fresh)
        if parser.parse_args().check:
            return report(sorted(differences(fresh, GENERATED)))
        replace(GENERATED, fresh)
    return 0


def generate_into(target: Path) -> None:
    """Run protoc; stubs of services only for our own protos, as nobody calls the vendored ones."""
    own = sorted(PROTOS.glob("zap/**/*.proto"))
    vendored = sorted(THIRD_PARTY.glob("**/*.proto"))
    run_protoc(target, [*own, *vendored], ["--python_out", "--mypy_out"])
    with_services = [proto for proto in own if "\nservice " in proto.read_text(encoding="utf-8")]
    if with_services:
        run_protoc(target, with_services, ["--grpc_python_out", "--mypy_grpc_out"])


def run_protoc(target: Path, protos: list[Path], outputs: list[str]) -> None:
    """Run protoc once, or end with its own complaint."""
    well_known = resources.files("grpc_tools") / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={THIRD_PARTY}",
            f"--proto_path={well_known}",
            f"--plugin=protoc-gen-mypy={PLUGINS / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={PLUGINS / 'protoc-gen-mypy_grpc'}",
            *(f"{output}={target}" for output in outputs),
            *(f"{output.removesuffix('_out')}_opt=quiet" for output in outputs if output.startswith("--mypy")),
            *(str(relative_name(proto)) for proto in protos),
        ]
    )
    if status != 0:
        sys.exit(f"protoc failed with status {status}")


def relative_name(proto: Path) -> Path:
    """Return the name by which other protos import this one."""
    return proto.relative_to(THIRD_PARTY if proto.is_relative_to(THIRD_PARTY) else PROTOS)


def differences(fresh: Path, committed: Path) -> Iterator[str]:
    """Yield what is missing, superfluous or different in the committed folder."""
    expected, present = files_of(fresh), files_of(committed)
    yield from (f"missing: {name}" for name in expected - present)
    yield from (f"left over: {name}" for name in present - expected)
    for name in expected & present:
        if not filecmp.cmp(fresh / name, committed / name, shallow=False):
            yield f"differs: {name}"


def files_of(folder: Path) -> set[Path]:
    """Return the generated files below a folder, by their relative names."""
    return {path.relative_to(folder) for path in folder.rglob("*.py*") if path.suffix in {".py", ".pyi"}}


def report(findings: list[str]) -> int:
    """Print the differences and what repairs them."""
    for finding in findings:
        print(f"generated/ {finding}", file=sys.stderr)
    if findings:
        print("`make generate` repairs this", file=sys.stderr)
    return 1 if findings else 0


def replace(target: Path, fresh: Path) -> None:
    """Put the fresh files in place of the old ones, so that what no proto gives any more is gone."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(fresh, target)


if __name__ == "__main__":
    sys.exit(main())
