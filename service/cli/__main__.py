"""Runs zapctl as `python -m service.cli`."""

from service.cli.zapctl import main

if __name__ == "__main__":
    main()
