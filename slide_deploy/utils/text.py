"""Short texts for messages."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["cut", "first_line", "first_names", "key_count", "one_line"]


def cut(name: str, limit: int = 80) -> str:
    """A name from a file, at most `limit` characters of it."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def one_line(text: str) -> str:
    """File names and keys come from others: nothing in them may start a line or move a cursor."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def first_line(error: BaseException, limit: int = 160) -> str:
    """The error's type and the first line of its message, at most `limit` characters."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:limit]}"


def first_names(names: Sequence[str], count: int = 3) -> str:
    """The first `count` names, each cut to 80 characters, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(cut, names[:count])) + more


def key_count(count: int) -> str:
    """How many keys of a state dict."""
    return f"{count} key{'' if count == 1 else 's'}"
