"""A simulated WhatsApp server: the unmodified neonize wheel pairs, connects and exchanges messages with it.

It is one process (``python -m simulator``) that plays the server *and* the people: accounts with a phone that
really speaks Signal. Tests and the demo drive it over HTTP (``control.py``, ``process.py``); ``README.md`` is the map.
"""
