"""Print what went wrong as annotations of a GitHub job: `python annotate.py REPORT.json LOG`.

The report, where there is one, names failed checks; the log has the `error:` lines of slide-deploy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

LEVEL = {"fail": "error", "not_run": "warning"}


def annotations(report: Path, log: Path) -> Iterator[str]:
    """A workflow command per artifact that did not pass, and per error of slide-deploy itself."""
    checks = json.loads(report.read_text("utf-8"))["checks"] if report.is_file() else []
    for check in checks:
        if level := LEVEL.get(check["verdict"]):
            lines = list(check["problems"]) or ["no reason was recorded"]
            if block := check["first_bad_block"]:
                lines.insert(0, f"the first block whose error exceeds the noise is {block}")
            yield command(level, f"{check['target']}: {check['path']}", "\n".join(lines))
    for line in log.read_text("utf-8", "replace").splitlines():
        if line.startswith("error: "):
            yield command("error", "slide-deploy", line.removeprefix("error: "))


def command(level: str, title: str, message: str) -> str:
    """A workflow command; names come from others, and must not start another one."""
    return f"::{level} title={escaped(title, ':,')}::{escaped(message)}"


def escaped(text: str, more: str = "") -> str:
    text = text.replace("%", "%25")
    for sign in ("\r", "\n", *more):
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text


if __name__ == "__main__":
    for annotation in annotations(Path(sys.argv[1]), Path(sys.argv[2])):
        print(annotation)
