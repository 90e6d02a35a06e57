"""The packages of the digits model classify PNG files."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import slide_deploy

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
EACH = 4


@pytest.fixture(scope="module")
def ship():
    sys.path.insert(0, str(DIGITS))
    try:
        import ship

        return ship
    finally:
        sys.path.remove(str(DIGITS))


@pytest.fixture(scope="module")
def pictures(ship, tmp_path_factory) -> list[Path]:
    """A folder for each digit, with a few pictures."""
    folders = ship.write_pictures(tmp_path_factory.mktemp("pictures"))
    for folder in folders:
        for path in sorted(folder.iterdir())[EACH:]:
            path.unlink()
    return folders


def test_pictures_are_the_held_out_digits_to_half_a_level(ship, pictures) -> None:
    images, labels = ship.held_out_split()
    way = json.loads(ship.PREPROCESSING.read_text())
    assert [folder.name for folder in pictures] == [str(digit) for digit in range(10)]
    for path in (path for folder in pictures for path in folder.iterdir()):
        assert str(labels[int(path.stem)]) == path.parent.name
        found = (np.array(Image.open(path)) * way["scale"] - way["mean"][0]) / way["std"][0]
        assert np.abs(found - images[int(path.stem)]).max() <= 0.501 / 255 / way["std"][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["server", "iphone"])
def test_a_package_classifies_pictures_as_pytorch_does(
    name, ship, pictures, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(ship, "OUTPUT", tmp_path)
    model = slide_deploy.load(ship.CHECKPOINT)
    packaged = slide_deploy.with_preprocessing(model, ship.PREPROCESSING)
    packaged = slide_deploy.with_labels(packaged, DIGITS / "labels.txt")
    (profile,) = (own for own in slide_deploy.PROFILES if own.name == name)
    row = ship.ship(profile, packaged, model, pictures)
    assert row.succeeded
    assert row.total == row.agreed == 10 * EACH
    assert row.right >= 0.95 * row.total
    assert len(row.cells) == len(ship.COLUMNS)
    assert (tmp_path / name / "slide_swin_digits.md").exists()
    assert not replace(row, agreed=row.agreed - 1).succeeded
    assert not replace(row, check=replace(row.check, verdict="fail")).succeeded


@pytest.mark.slow
def test_a_package_that_is_wrong_is_noticed(ship, pictures, tmp_path, monkeypatch) -> None:
    """Its pixels are not divided by 255."""
    from slide_deploy.artifacts import prepare

    right = prepare.pixels_of

    def unscaled(way):
        return right(replace(way, scale=1.0))

    monkeypatch.setattr(ship, "OUTPUT", tmp_path)
    monkeypatch.setattr(prepare, "pixels_of", unscaled)
    model = slide_deploy.load(ship.CHECKPOINT)
    packaged = slide_deploy.with_preprocessing(model, ship.PREPROCESSING)
    (profile,) = (own for own in slide_deploy.PROFILES if own.name == "android")
    row = ship.ship(profile, packaged, model, pictures)
    assert row.check.verdict == "fail"
    assert row.agreed < row.total
    assert row.right < 0.9 * row.total
    assert not row.succeeded
