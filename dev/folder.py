"""The folder of one embedded server: made, given to the account that uses it, and within that account's reach."""

import os
import tempfile
from pathlib import Path

from dev.account import Account
from dev.errors import DataDirectoryUnusableError

# Where root's servers keep their files when the data directory lies in a folder closed to others, as /root is.
OUTSIDE = Path("/var/lib/zap-service")


def open_data_dir(data_dir: Path) -> Path:
    """Make the data directory and return its full path, or say which setting names another."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        resolved = data_dir.resolve(strict=True)
    except OSError as error:
        raise unusable(data_dir, error) from error
    if not os.access(resolved, os.W_OK | os.X_OK):
        raise unusable(data_dir, "it is not writable")
    return resolved


def open_folder(data_dir: Path, name: str, account: Account) -> Path:
    """Make the folder of a server and return its full path; the caller holds the lock on it."""
    link = data_dir / name
    try:
        if link.is_symlink() and not link.exists():
            link.unlink()
        link.mkdir(mode=0o700, exist_ok=True)
        folder = link.resolve(strict=True)
        account.take(folder)
        if not account.is_ours and not account.can("-w", folder):
            return _move_outside(link, account)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise unusable(folder, "it belongs to another user")
    except OSError as error:
        raise unusable(link, error) from error
    return folder


def _move_outside(link: Path, account: Account) -> Path:
    """Put a folder that the account cannot reach where it can, and leave a link in its place."""
    try:
        link.rmdir()
    except OSError as error:
        raise unusable(link, "Postgres runs as another user than root, who cannot reach it") from error
    OUTSIDE.mkdir(mode=0o755, parents=True, exist_ok=True)
    # A new folder each time: whoever removed the link wanted a fresh start.
    folder = Path(tempfile.mkdtemp(prefix=f"{link.name}-", dir=OUTSIDE))
    account.take(folder)
    if not account.can("-w", folder):
        folder.rmdir()
        raise unusable(link, "Postgres runs as another user than root, who cannot reach it")
    link.symlink_to(folder)
    return folder


def unusable(path: Path, why: object) -> DataDirectoryUnusableError:
    """Say that a folder cannot hold an embedded server, and what to do."""
    return DataDirectoryUnusableError(
        f"The embedded servers cannot use {path}: {why}. Set ZAP_DATA_DIR to a folder that this user can write, "
        "or set DATABASE_URL and REDIS_URL to servers of yours."
    )
