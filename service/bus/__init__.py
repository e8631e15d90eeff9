"""Redis: live events and hints. It may be lost at any time: slower, never wrong."""
