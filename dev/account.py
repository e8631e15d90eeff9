"""The account that server programs run as: ours, or, for root, one without rights."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dev.errors import ServerAccountUnavailableError

# Exists on every Linux, and initdb wants an account that has a name.
UNPRIVILEGED = "nobody"


@dataclass(frozen=True)
class Account:
    """A user and group by number."""

    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Whether we run as this account already."""
        return self.uid == os.geteuid()

    def take(self, path: Path) -> None:
        """Give a file or folder to this account."""
        if not self.is_ours:
            shutil.chown(path, self.uid, self.gid)

    def can(self, test: str, path: Path) -> bool:
        """Ask as this account what `test` says of a path: -w, -x; the mode of every parent folder counts."""
        command = ["/bin/sh", "-c", f'test {test} "$1"', "sh", str(path)]
        return self.run(command, timeout=10).returncode == 0

    def run(self, command: list[str], *, timeout: float, cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """Run a program to its end as this account, and collect what it says."""
        try:
            return subprocess.run(
                command,
                check=False,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=timeout,
                cwd=cwd,
                env=environment(),
                user=self.switch_user,
                group=self.switch_group,
                extra_groups=self.switch_extra_groups,
            )
        except PermissionError as error:
            if self.is_ours:
                raise
            raise ServerAccountUnavailableError(_cannot_become(str(error))) from error

    # The three arguments by which Popen makes a child run as this account; None changes nothing.

    @property
    def switch_user(self) -> int | None:
        """The user to change to."""
        return None if self.is_ours else self.uid

    @property
    def switch_group(self) -> int | None:
        """The group to change to."""
        return None if self.is_ours else self.gid

    @property
    def switch_extra_groups(self) -> list[int] | None:
        """The further groups to keep: none of root's."""
        return None if self.is_ours else []


def ours() -> Account:
    """Return the account of this process."""
    return Account(os.geteuid(), os.getegid())


def without_root() -> Account:
    """Return our account, or for root (which Postgres refuses) the unprivileged one."""
    if os.geteuid() != 0:
        return ours()
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        raise ServerAccountUnavailableError(_cannot_become("there is no such account")) from error
    return Account(entry.pw_uid, entry.pw_gid)


def environment() -> dict[str, str]:
    """Return a server's environment: nothing of ours, as PG* settings would bend it and secrets are not its own."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _cannot_become(why: str) -> str:
    return (
        f"Postgres refuses to run as root, and this process cannot run it as {UNPRIVILEGED!r} ({why}). "
        "Run the service as an ordinary user, or set DATABASE_URL to a Postgres of yours."
    )
