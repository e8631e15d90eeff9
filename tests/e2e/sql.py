"""A connection to a node's database, of a type that the checker can use."""

from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    Sql = asyncpg.Connection[asyncpg.Record]
else:
    Sql = asyncpg.Connection
