"""Postgres and Valkey for a laptop and for tests, out of wheels: nothing to install, nothing to start beforehand.

    async with EmbeddedPostgres(Path(".data")) as postgres, EmbeddedValkey(Path(".data")) as valkey:
        print(postgres.url, valkey.url)

A server is started when its folder has none running, and otherwise joined: one that outlived its service (kill -9)
is used again as it is, and two services on one folder share it. The last user to leave stops it.
Not for production: there DATABASE_URL and REDIS_URL name servers that somebody looks after.
"""

from dev.errors import (
    DataDirectoryUnusableError,
    EmbeddedServerError,
    ServerAccountUnavailableError,
    ServerHeldElsewhereError,
    ServerNotInstalledError,
    ServerStartError,
)
from dev.postgres import EmbeddedPostgres
from dev.valkey import EmbeddedValkey

__all__ = [
    "DataDirectoryUnusableError",
    "EmbeddedPostgres",
    "EmbeddedServerError",
    "EmbeddedValkey",
    "ServerAccountUnavailableError",
    "ServerHeldElsewhereError",
    "ServerNotInstalledError",
    "ServerStartError",
]
