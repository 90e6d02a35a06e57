"""The JSON Schemas of our files; `make schemas` writes them into the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slide_deploy.artifacts.manifest import Manifest
from slide_deploy.utils.records import json_schema
from slide_deploy.verification.record import Report

PACKAGE = Path(__file__).parents[1] / "slide_deploy"
PUBLISHED = {
    PACKAGE / "manifest.schema.json": (Manifest, "manifest"),
    PACKAGE / "report" / "report.schema.json": (Report, "report"),
}


def generated(path: Path) -> dict[str, Any]:
    """The schema that belongs at `path`."""
    kind, name = PUBLISHED[path]
    return json_schema(kind, name, f"slide-deploy {name}.json")


if __name__ == "__main__":
    for path in PUBLISHED:
        path.write_text(json.dumps(generated(path), indent=2) + "\n", encoding="utf-8")
