"""The page for receivers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from slide_deploy.artifacts.manifest import Artifact, Manifest, SourceRecord
from slide_deploy.packaging.pictures import for_pictures
from slide_deploy.packaging.preprocessing import preset
from slide_deploy.report.html import render
from slide_deploy.report.markdown import render_handouts
from slide_deploy.report.receiver import handouts
from slide_deploy.types import TensorSpec
from slide_deploy.utils.text import one_line

WAY = for_pictures(preset("imagenet", (32, 32)), (TensorSpec("image", (1, 3, 32, 32)),))
LABELS = tuple(f"class{number}" for number in range(25))


def artifact(path: str, target: str = "onnx") -> Artifact:
    return Artifact(
        target=target,
        path=path,
        precision="float32",
        sha256="ab" * 32,
        size_bytes=570_518,
        inputs=(TensorSpec("image", (1, 32, 32, 3), "uint8", (0, 255)),),
        outputs=(TensorSpec("logits", (1, 25)),),
        preprocessing=WAY,
        labels=LABELS,
    )


def manifest(*artifacts: Artifact) -> Manifest:
    return Manifest(SourceRecord("model.pth", "cd" * 32, "ema"), {"name": "model"}, artifacts, {})


def facts(own: Artifact, report) -> dict[str, str]:
    (found,) = handouts(manifest(own), report)
    return dict(found.facts)


def test_it_says_what_goes_in_and_out_and_what_it_was_judged_by(passed):
    found = facts(artifact("model.onnx"), passed)
    assert found["Verdict"] == "passed"
    assert found["Format"] == "ONNX, float32, 570.5 kB"
    assert (
        found["Compared with PyTorch"]
        == "error 1.5 ≤ 10 × noise; 4 of 4 rows agree, 2 near-ties not counted"
    )
    assert found["Input image"].startswith("uint8 (1, 32, 32, 3): batch, rows, columns")
    assert (
        "resize the shortest side to 36 pixels, the other rounded down (bicubic" in found["Before"]
    )
    assert "crop 32 × 32 pixels at the centre" in found["Before"]
    assert "(pixel / 255 − mean)" in found["Inside"]
    assert "standard deviation 0.229, 0.224, 0.225 in RGB; do not normalise" in found["Inside"]
    assert found["Output logits"].startswith("float32 (1, 25): a score for each class")
    assert found["Labels"].endswith("19 class19, and 5 more, all in manifest.json")


def test_a_picture_is_an_image_where_the_format_has_images(passed):
    found = facts(artifact("model.mlpackage", "coreml"), passed)
    assert found["Input image"] == (
        "an image (ImageType, in RGB), such as a CVPixelBuffer, 32 pixels wide and 32 high"
    )


def test_a_tensor_is_normalised_by_the_application(passed):
    spec = TensorSpec("image", ("batch", 3, 32, 32))
    own = replace(artifact("model.onnx"), inputs=(spec,), preprocessing=None, labels=())
    found = facts(own, passed)
    assert found["Input image"] == (
        "float32 (batch, 3, 32, 32): batch, channels, rows, columns; normalised as in training"
    )
    assert not {"Before", "Inside", "Labels"} & found.keys()


def test_what_failed_is_not_to_be_shipped(failed):
    found = facts(artifact("model.torchscript", "torchscript"), failed)
    assert found["Verdict"] == "FAILED: do not ship it, see report.html"


@pytest.mark.parametrize("changes", [{"path": "other.onnx"}, {"sha256": "ef" * 32}])
def test_the_verdict_of_another_file_says_nothing(changes, passed):
    found = facts(replace(artifact("model.onnx"), **changes), passed)
    assert found["Verdict"].startswith("of an earlier export, not checked in this one")
    assert "Compared with PyTorch" not in found


def test_an_artifact_of_an_unknown_target_has_no_page(passed):
    assert handouts(manifest(artifact("model.xyz", "xyz")), passed) == ()


def test_page_and_html_show_the_same(passed):
    found = handouts(manifest(artifact("model.onnx")), passed)
    page, html = render_handouts(passed, found), render(passed, found)
    assert page.startswith("# model\n\nMade from model.pth, ema weights.")
    for language in ("Python", "JavaScript"):
        assert f"```{language.lower()}\n" in page
        assert f"<h3>{language}</h3>" in html
    assert "For the receiver" in html
    assert "For the receiver" not in render(passed)
    assert MarkdownIt("commonmark").enable("table").render(page).count("<table>") == 1


def test_hostile_names_stay_text(passed):
    evil = "</pre><script>alert(1)</script>|```\n# h"
    own = replace(artifact("model.onnx"), path=evil, labels=(evil, *LABELS[1:]))
    own = replace(own, inputs=(replace(own.inputs[0], name=evil),))
    found = handouts(manifest(own), passed)
    page = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .render(render_handouts(passed, found))
    )
    for html in (page, render(passed, found)):
        assert "<script" not in html
        assert one_line("# h") not in [line.strip() for line in html.splitlines()]
    assert page.count("<h1>") == 1
