"""slide-deploy predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import slide_deploy
from slide_deploy.packaging.preprocessing import preset
from slide_deploy.utils.records import to_text

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "slide_swin_digits.pth"
WAY = preset("imagenet", (32, 32))
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An artifact with preprocessing and labels, and a folder of pictures of several modes."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "labels.json").write_text(json.dumps(NAMES))
    model = slide_deploy.with_preprocessing(slide_deploy.load(DIGITS), WAY)
    model = slide_deploy.with_labels(model, folder / "labels.json")
    manifest = slide_deploy.export(model, "onnx", folder)
    pictures = folder / "pictures"
    pictures.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for mode in ("RGB", "L", "RGBA", "CMYK", "I;16"):
        image = Image.fromarray(
            pixels if mode != "I;16" else pixels[..., 0].astype(np.uint16) * 257
        )
        image = image if mode == "I;16" else image.convert(mode)
        image.save(pictures / f"{mode.replace(';', '')}.{'tif' if mode == 'CMYK' else 'png'}")
    return folder / manifest.artifacts[0].path, pictures


def test_every_mode_of_picture_gets_labels_and_probabilities(run_cli, exported) -> None:
    artifact, pictures = exported
    done = run_cli("predict", artifact, pictures, "--json", "--against", DIGITS, "--top", "3")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["reference"] == DIGITS.name
    assert len(found["predictions"]) == 5
    for own in found["predictions"]:
        assert own["agrees"] is True
        assert [guess["label"] for guess in own["guesses"]] == [
            NAMES[guess["number"]] for guess in own["guesses"]
        ]
        probabilities = [guess["probability"] for guess in own["guesses"]]
        assert len(probabilities) == 3
        assert sorted(probabilities, reverse=True) == probabilities
        assert 0 < sum(probabilities) <= 1


def test_a_classifier_gives_the_same_probabilities(run_cli, exported, tmp_path) -> None:
    artifact, pictures = exported
    model = slide_deploy.with_preprocessing(slide_deploy.load(DIGITS), WAY)
    model = slide_deploy.with_classifier(model, keep_logits=True)
    manifest = slide_deploy.export(model, "onnx", tmp_path)
    classifier = tmp_path / manifest.artifacts[0].path
    done = run_cli("predict", classifier, pictures, "--json", "--against", DIGITS)
    own = json.loads(done.out)["predictions"]
    others = slide_deploy.predict(artifact, [pictures]).predictions
    for one, other in zip(own, others, strict=True):
        assert one["agrees"] is True
        assert [guess["probability"] for guess in one["guesses"]] == pytest.approx(
            [guess.probability for guess in other.guesses], abs=1e-6
        )
        assert [guess["label"] for guess in one["guesses"]] == [
            str(guess.number) for guess in other.guesses
        ]


def test_kept_logits_need_probabilities(run_cli, tmp_path) -> None:
    done = run_cli("export", "-t", "onnx", "--keep-logits", DIGITS, "-o", tmp_path)
    done.refused(2, "--keep-logits needs --classifier")


def test_the_artifact_alone_tells_how_pictures_are_prepared(run_cli, exported) -> None:
    artifact, pictures = exported
    own = json.loads(run_cli("predict", artifact, pictures / "RGB.png", "--json").out)
    model = slide_deploy.load(DIGITS)
    tensor = slide_deploy.predict(artifact, [pictures / "RGB.png"], model=model)
    assert own["notes"] == []
    assert tensor.predictions[0].guesses[0].label == own["predictions"][0]["guesses"][0]["label"]
    metadata = slide_deploy.run_artifact(artifact, {}).metadata
    assert metadata["labels"] == to_text(NAMES)


def test_a_broken_picture_is_one_line_and_the_others_are_shown(
    run_cli, exported, tmp_path: Path
) -> None:
    artifact, pictures = exported
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    done = run_cli("predict", artifact, broken, pictures / "RGB.png")
    assert done.code == 1
    assert "is not a picture that can be read" in " ".join(done.out.split())
    assert "%" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.onnx", "cat.png"), "absent.onnx does not exist"),
        (("ARTIFACT", "absent.png"), "absent.png does not exist"),
        (("ARTIFACT", "."), "has no pictures"),
        (("ARTIFACT", "PICTURE", "--preprocess", "absent.json"), "absent.json"),
    ],
)
def test_what_cannot_be_predicted_is_named(
    run_cli, exported, tmp_path, monkeypatch, arguments, message
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"ARTIFACT": exported[0], "PICTURE": exported[1] / "RGB.png"}
    run_cli("predict", *(places.get(a, a) for a in arguments)).refused(2, message)
