"""Reads JSON files that users write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slide_deploy.errors import UsageError

__all__ = ["parse_json", "read_json_object", "read_text"]


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file, without byte order mark; UsageError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"{what} file {path} cannot be read: {reason}", "check the path"
        ) from error


def parse_json(path: Path, what: str) -> Any:
    """The JSON value in a file; UsageError if it is not valid or has a duplicate key."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key!r} is a duplicate")
            found[key] = value
        return found

    try:
        return json.loads(read_text(path, what), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}"[:200], "correct the file") from error


def read_json_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file; UsageError if it contains another value."""
    content = parse_json(path, what)
    if not isinstance(content, dict):
        raise UsageError(f"{path} contains no JSON object", f"write the {what} as {{…}}")
    return content
