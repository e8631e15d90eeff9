"""`python -m service.cli` is zapctl."""

from service.cli.zapctl import main

if __name__ == "__main__":
    main()
