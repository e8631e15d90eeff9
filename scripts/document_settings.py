"""Write the table of settings in docs/configuration.md anew, from service/node/config.py."""

from pathlib import Path

from service.node.config import documentation

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
MARK = "<!-- The table is made from service/node/config.py by scripts/document_settings.py. -->\n"


def main() -> None:
    """Replace everything behind the mark."""
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(f"{text}{MARK}\n{documentation()}", encoding="utf-8")


if __name__ == "__main__":
    main()
