"""The database relay: the library reaches Postgres through a thread of its own process, and never hears of a loss."""
