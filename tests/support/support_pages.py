"""The code that pages of docs/ show, so that tests can run it as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, title: str = "") -> list[tuple[str, str]]:
    """The blocks of code of a page, in order: language and text.

    Args:
        page: its name in docs/.
        title: a heading, to take only what stands below it, up to the next one of its level or above.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    if title:
        found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
        assert found, f"no heading {title!r}"
        text = text[found.end() :]
        fenced = re.sub(
            r"^```.*?^```$", lambda code: "." * len(code[0]), text, flags=re.MULTILINE | re.DOTALL
        )
        following = re.search(rf"^#{{1,{len(found[1])}}} ", fenced, re.MULTILINE)
        text = text[: following.start()] if following else text
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def code(page: str, title: str, language: str) -> list[str]:
    """The blocks in one language."""
    return [text for found, text in blocks(page, title) if found == language]
