"""Links from a docs page to a file outside docs/ (`../recipes/x.yaml`) lead to the repository."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Rewrites the links of one page; called by mkdocs."""
    return _OUTSIDE.sub(rf"]({config.repo_url}/blob/main/\1)", markdown)
