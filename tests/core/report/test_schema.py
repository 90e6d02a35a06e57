from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from slide_deploy.artifacts.manifest import Artifact, Manifest, SourceRecord
from slide_deploy.parity.comparison import Comparison
from slide_deploy.parity.gates import GateResult
from slide_deploy.types import LayerLowering, TensorSpec
from slide_deploy.utils.records import to_json
from slide_deploy.verification.record import BlockError, Check, Opinion, Report, read_report
from tests.schemas import PUBLISHED, generated

GOLDEN = Path(__file__).parents[2] / "golden"


def schema(package: str, name: str) -> dict:
    return json.loads(files(package).joinpath(name).read_text(encoding="utf-8"))


REPORT = schema("slide_deploy.report", "report.schema.json")
MANIFEST = schema("slide_deploy", "manifest.schema.json")

IN_REPORTS = (Check, LayerLowering, Comparison, GateResult, Opinion, BlockError)
IN_MANIFESTS = (SourceRecord, Artifact, LayerLowering, TensorSpec)


def validate(text: str, against: dict) -> None:
    jsonschema.Draft202012Validator(against).validate(json.loads(text))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_the_published_schema_is_that_of_the_records(path):
    assert json.loads(path.read_text(encoding="utf-8")) == generated(path), "run `make schemas`"


@pytest.mark.parametrize("schema", [REPORT, MANIFEST], ids=["report", "manifest"])
def test_every_number_has_a_form_for_what_is_not_finite(schema):
    def walk(node, parent):
        if isinstance(node, dict):
            if node.get("title") == "Preprocessing":
                return  # refuses what is not finite
            if node.get("type") == "number":
                assert {"enum": ["NaN", "Infinity", "-Infinity"]} in parent, "annotate it as Figure"
            for value in node.values():
                walk(value, node)
        elif isinstance(node, list):
            for value in node:
                walk(value, node)

    walk(schema, None)


@pytest.mark.parametrize("published", [REPORT, MANIFEST])
def test_it_is_a_schema(published):
    jsonschema.Draft202012Validator.check_schema(published)


@pytest.mark.parametrize(
    ("part", "record"),
    [
        (REPORT, Report),
        *((REPORT["$defs"][r.__name__], r) for r in IN_REPORTS),
        (REPORT["$defs"]["SourceRecord"], SourceRecord),
        (MANIFEST, Manifest),
        *(
            (MANIFEST["$defs"][r.__name__], r)
            for r in (SourceRecord, Artifact, LayerLowering, TensorSpec)
        ),
    ],
)
def test_schema_and_record_have_the_same_fields(part, record):
    fields = {field.name for field in dataclasses.fields(record)}
    assert set(part["properties"]) == fields
    assert set(part["required"]) == fields
    assert part["additionalProperties"] is False


@pytest.mark.parametrize("report", ["passed", "failed", "hostile"])
def test_reports_hold_to_it_and_come_back(report, request, tmp_path):
    original = request.getfixturevalue(report)
    text = to_json(original)
    validate(text, REPORT)
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    assert to_json(read_report(tmp_path / "report.json")) == text


def test_what_export_writes_holds_to_it(tmp_path):
    pytest.importorskip("torch")
    import slide_deploy

    model = slide_deploy.load(GOLDEN / "micro_ema.pth")
    slide_deploy.export_and_verify(model, ["torchscript"], tmp_path, progress=lambda _: None)
    validate((tmp_path / "report.json").read_text(encoding="utf-8"), REPORT)
    validate((tmp_path / "manifest.json").read_text(encoding="utf-8"), MANIFEST)
    report = read_report(tmp_path / "report.json")
    assert report.verdict == "pass"
    age = datetime.now(UTC) - datetime.fromisoformat(report.date)
    assert age < timedelta(minutes=10)
    assert all(check.seconds and check.seconds > 0 for check in report.checks)
    assert "<title>micro_ema: passed" in (tmp_path / "report.html").read_text(encoding="utf-8")
