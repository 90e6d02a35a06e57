from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from slide_deploy.report.junit import render


def test_one_case_per_artifact_with_its_outcome(failed):
    suite = ET.fromstring(render(failed).encode()).find("testsuite")
    assert suite.attrib == {
        "name": "slide-deploy model",
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
        "time": "3.750",
        "timestamp": "2026-11-25T22:33:44+00:00",
    }
    onnx, torchscript, openvino = suite.findall("testcase")
    assert [case.get("time") for case in (onnx, torchscript, openvino)] == [
        "1.250",
        "2.500",
        "0.000",
    ]
    assert onnx.get("classname") == "slide_deploy.onnx"
    assert onnx.get("name") == "model.onnx (float32)"
    assert onnx.find("failure") is None
    assert onnx.find("skipped") is None
    assert "8750000 times" in torchscript.find("failure").get("message")
    assert "layers.1.blocks.0.mlp" in torchscript.find("failure").text
    assert "not installed" in openvino.find("skipped").get("message")


def test_a_report_of_before_has_no_timestamp(passed):
    root = ET.fromstring(render(replace(passed, date="")).encode())
    assert "timestamp" not in root.find("testsuite").attrib


def test_a_float16_artifact_is_told_in_decibels(sample):
    text = render(sample.report(sample.float16("onnx", "a.onnx")))
    assert "2.5 ≤ 10 dB" in text
    assert "3333" not in text


def test_versions_and_hashes_are_properties(passed):
    root = ET.fromstring(render(passed).encode())
    found = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert found["slide-deploy"] == "0.1.0"
    assert found["source sha256"] == "cd" * 32
    assert found["command"] == passed.command


def test_hostile_text_stays_text(hostile):
    root = ET.fromstring(render(hostile).encode())
    failure = root.find(".//failure")
    assert "<img src=x onerror=alert(2)> ]]> \ufffd\ufffd[31m \ufffd |" in failure.text
    assert {element.tag for element in root.iter()} == {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "system-out",
    }  # fmt: skip
