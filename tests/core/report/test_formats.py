from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slide_deploy.artifacts.manifest import Manifest
from slide_deploy.errors import OutputError, UsageError
from slide_deploy.report.formats import check_report_paths, save_reports, write_report
from slide_deploy.utils.records import to_json
from slide_deploy.verification.record import read_report


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("r.html", "<!doctype html>"),
        ("r.xml", "<?xml version"),
        ("r.md", "## "),
        ("r.json", "{\n"),
        ("R.HTML", "<!doctype html>"),
    ],
)
def test_the_suffix_chooses_the_format(name, start, passed, tmp_path):
    write_report(passed, tmp_path / "new" / name)
    assert (tmp_path / "new" / name).read_text(encoding="utf-8").startswith(start)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.json.gz", ".html"])
def test_another_suffix_is_refused_with_the_choices(name):
    with pytest.raises(UsageError, match=r"has no known suffix.*\.html .*\.xml .*\.md .*\.json"):
        check_report_paths([Path(name)])


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "r.html").mkdir()
    (tmp_path / "r.html" / "precious").touch()
    with pytest.raises(UsageError, match="is a folder"):
        check_report_paths([tmp_path / "r.html"])
    assert (tmp_path / "r.html" / "precious").exists()


def test_a_place_that_cannot_be_written_is_said(passed, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_report(passed, tmp_path / "file" / "r.html")


def test_hostile_text_can_be_written_in_every_format(hostile, tmp_path):
    for suffix in ("html", "xml", "md", "json"):
        write_report(hostile, tmp_path / f"r.{suffix}")
    # UTF-8 has no lone surrogates: they are written as question marks.
    assert to_json(read_report(tmp_path / "r.json")) == to_json(hostile)


@pytest.mark.parametrize("name", ["r.html", "r.md", "r.json"])
def test_notes_are_in_every_report_that_people_read(name, passed, tmp_path):
    write_report(replace(passed, notes=("lone.onnx was not verified",)), tmp_path / name)
    assert "lone.onnx was not verified" in (tmp_path / name).read_text(encoding="utf-8")


def test_beside_artifacts_lie_json_and_a_page(passed, tmp_path):
    save_reports(passed, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.html"}


def test_beside_artifacts_of_a_manifest_lies_a_page_for_receivers(passed, tmp_path):
    manifest = Manifest(passed.source, {"name": "model"}, (), {})
    save_reports(passed, tmp_path, manifest)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.json", "report.html", "model.md"}
    assert (tmp_path / "model.md").read_text(encoding="utf-8").startswith("# model\n")
