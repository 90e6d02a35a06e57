"""Writes report files, atomically, in the format that the suffix selects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from slide_deploy.artifacts.manifest import Manifest
from slide_deploy.errors import UsageError
from slide_deploy.report import html, junit, markdown
from slide_deploy.report.receiver import handouts
from slide_deploy.utils.records import to_json
from slide_deploy.utils.staging import staged
from slide_deploy.verification.record import FILE_NAME, Report

__all__ = ["PAGE_NAME", "check_report_paths", "save_reports", "write_report"]

PAGE_NAME = "report.html"

_RENDERERS: dict[str, Callable[[Report], str]] = {
    ".html": html.render,
    ".xml": junit.render,
    ".md": markdown.render,
    ".json": to_json,
}
_CHOICES = ".html (a page), .xml (JUnit), .md (Markdown) or .json"


def check_report_paths(paths: Sequence[Path]) -> None:
    """Raise UsageError for a path that cannot be written as a report, before any work begins."""
    for path in paths:
        if path.suffix.lower() not in _RENDERERS:
            raise UsageError(f"--report {path} has no known suffix", f"use {_CHOICES}")
        if path.is_dir():
            raise UsageError(f"--report {path} is a folder", "name a file in it")


def write_report(report: Report, path: Path) -> None:
    """Write `path` in the format of its suffix."""
    check_report_paths([path])
    text = _RENDERERS[path.suffix.lower()](report)
    with staged(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def save_reports(report: Report, folder: Path, manifest: Manifest | None = None) -> None:
    """Write report.json and report.html into the folder of the artifacts, and NAME.md for their
    receivers, NAME being the model's, where there is a manifest."""
    write_report(report, folder / FILE_NAME)
    found = handouts(manifest, report) if manifest else ()
    pages = {PAGE_NAME: html.render(report, found)}
    if manifest:
        pages[f"{report.model}.md"] = markdown.render_handouts(report, found)
    for name, text in pages.items():
        with staged(folder / name) as scratch:
            scratch.write_text(text, encoding="utf-8")
