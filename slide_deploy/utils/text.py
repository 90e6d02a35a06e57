"""Short texts for messages."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_line", "first_names"]


def first_line(error: BaseException, limit: int = 160) -> str:
    """The error's type and the first line of its message, at most `limit` characters."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:limit]}"


def first_names(names: Sequence[str], count: int = 3) -> str:
    """The first `count` names and the number of further ones."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
