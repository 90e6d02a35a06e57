"""Baked preprocessing on photographs, and on pictures that are likely to break it.

The 19 photographs come with scikit-learn, matplotlib and scikit-image; 31 crops of them, at other
places, are pictures of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import slide_deploy
from slide_deploy import Model, Report, Verdict, registry
from slide_deploy.artifacts import prepare
from slide_deploy.packaging.images import read_images
from slide_deploy.packaging.preprocessing import fit, load_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "slide_swin_digits.pth"
PHOTOGRAPHS = {
    "sklearn": "datasets/images/china.jpg datasets/images/flower.jpg",
    "matplotlib": "mpl-data/sample_data/grace_hopper.jpg",
    "skimage": "data/astronaut.png data/brick.png data/camera.png data/chelsea.png "
    "data/clock_motion.png data/coffee.png data/coins.png data/grass.png data/gravel.png "
    "data/hubble_deep_field.jpg data/ihc.png data/moon.png data/motorcycle_left.png "
    "data/motorcycle_right.png data/retina.jpg data/rocket.jpg",
}
WANTED = 50
GATE = 10  # times the noise, that of float32


def photographs() -> Iterator[Path]:
    for package, names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"{package}, whose photographs are used, is not installed")
        yield from (Path(spec.origin).parent / name for name in names.split())


def crops(paths: list[Path]) -> Iterator[Image.Image]:
    """Parts of the photographs at different places and of different sizes."""
    rng = np.random.default_rng(0)
    for index in range(WANTED - len(paths)):
        with Image.open(paths[index % len(paths)]) as whole:
            width, height = (int(side * rng.uniform(0.3, 0.7)) for side in whole.size)
            left = int(rng.integers(0, whole.width - width))
            top = int(rng.integers(0, whole.height - height))
            yield whole.convert("RGB").crop((left, top, left + width, top + height))


def hostile() -> Iterator[tuple[str, Image.Image]]:
    """One pixel, odd and extreme sizes, plain colours, and the modes of files."""
    noise = np.random.default_rng(1).integers(0, 256, (47, 61, 4), np.uint8)
    yield "one.png", Image.new("RGB", (1, 1), (200, 30, 90))
    for width, height in ((1, 301), (301, 1), (3, 5), (33, 31), (997, 7)):
        size = (height, width, 3)
        pixels = np.random.default_rng(2).integers(0, 256, size, np.uint8)
        yield f"size-{width}x{height}.png", Image.fromarray(pixels)
    for name in ("black", "white", "red", "lime", "blue", "yellow", "cyan", "magenta"):
        yield f"plain-{name}.png", Image.new("RGB", (50, 40), name)
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    yield "checks.png", Image.fromarray(checks.astype(np.uint8))
    yield "grey.png", Image.fromarray(noise[..., 0])
    yield "grey-alpha.png", Image.fromarray(noise[..., :2], "LA")
    yield "alpha.png", Image.fromarray(noise, "RGBA")
    yield "cmyk.tif", Image.fromarray(noise, "CMYK")
    yield "palette.png", Image.fromarray(noise[..., :3]).quantize(16)
    yield "bits.png", Image.fromarray(noise[..., 0]).convert("1")
    deep = np.random.default_rng(3).integers(0, 65536, (47, 61), np.uint16)
    yield "deep.png", Image.fromarray(deep)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = Image.fromarray(noise[..., :3])
        turned.info["exif"] = exif.tobytes()
        yield f"exif-{orientation}.png", turned


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    paths = list(photographs())
    assert len(paths) == 19
    for index, path in enumerate(paths):
        (folder / f"photo-{index:02}{path.suffix}").write_bytes(path.read_bytes())
    for index, part in enumerate(crops(paths), len(paths)):
        part.save(folder / f"photo-{index:02}.png")
    for name, picture in hostile():
        picture.save(folder / name, exif=picture.info.get("exif", b""))
    assert len(list(folder.glob("photo-*"))) == WANTED
    return folder


@pytest.fixture(scope="module")
def model() -> Model:
    return slide_deploy.with_preprocessing(slide_deploy.load(DIGITS), "imagenet")


@pytest.fixture(scope="module")
def exported(model: Model, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    slide_deploy.export_and_verify(model, "all", folder, images=pictures, seed=1).save(folder)
    return folder


def upright(path: Path) -> np.ndarray:
    """The pixels of a file, uint8 in RGB, written down a second time."""
    with Image.open(path) as file:
        turn = file.getexif().get(0x0112, 1)
        pixels = np.asarray(file)
        if file.mode == "I;16":
            pixels = np.rint(pixels / 257).astype(np.uint8)
        elif file.mode in ("RGBA", "LA"):
            colours, alpha = pixels[..., :-1].astype(float), pixels[..., -1:] / 255
            pixels = np.rint(colours * alpha + 255 * (1 - alpha)).astype(np.uint8)
            pixels = pixels[..., 0] if file.mode == "LA" else pixels
        elif file.mode == "CMYK":
            paper = 1 - pixels / 255  # that the inks leave white
            pixels = np.rint(255 * paper[..., :3] * paper[..., 3:]).astype(np.uint8)
        elif file.mode in ("P", "1"):
            pixels = np.asarray(file.convert("RGB"))
    pixels = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
    flips = {1: 0, 2: 1, 3: 0, 4: 1, 5: 1, 6: 0, 7: 1, 8: 0}
    quarters = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}
    return np.rot90(pixels[:, ::-1] if flips[turn] else pixels, quarters[turn])


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """Bicubic to 256/224 of `side` on the shortest side, then the centre."""
    height, width = pixels.shape[:2]
    shortest = int(256 / 224 * side)
    size = (int(shortest * width / min(height, width)), int(shortest * height / min(height, width)))
    whole = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return np.asarray(whole.crop((left, top, left + side, top + side)))


def scores(model: Model, pixels: np.ndarray) -> np.ndarray:
    """Those of the unfused model in float64."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    planes = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    exact = copy.deepcopy(model.module).double()
    with torch.no_grad():
        return np.asarray(exact(torch.from_numpy(np.ascontiguousarray(planes))))


def test_every_file_becomes_the_pixels_that_it_should(model: Model, pictures: Path) -> None:
    """Exactly; where transparency or ink is computed, to one level before resizing."""
    assert model.preprocessing is not None
    for path in sorted(pictures.iterdir()):
        found, expected = load_image(path), upright(path)
        assert found.shape == expected.shape, path.name
        computed = path.name in ("alpha.png", "grey-alpha.png", "cmyk.tif")
        levels = np.abs(found.astype(int) - expected.astype(int)).max()
        assert levels <= (1 if computed else 0), path.name
        side = model.inputs[0].shape[-1]
        np.testing.assert_array_equal(
            fit(model.preprocessing, found), resized(found, int(side)), err_msg=path.name
        )


@pytest.mark.parametrize("target", registry.float_targets())
def test_all_pictures_pass_the_gates_of_float32(
    target: str, model: Model, pictures: Path, exported: Path
) -> None:
    """By the verdict, and against scores that are computed here."""
    report = slide_deploy.read_report(exported / "report.json")
    check = next(check for check in report.checks if check.target == target)
    assert check.verdict is Verdict.PASS, check.problems
    files = sorted(pictures.iterdir())
    own = [c for c in check.comparisons if c.probe.startswith("image")]
    assert len(own) == len(files) >= WANTED + 25
    pixels = np.stack([resized(load_image(path), 32) for path in files])
    named = zip(files, pixels, strict=True)
    feeds = {path.name: {"image": picture[None]} for path, picture in named}
    outputs = slide_deploy.run_artifact(exported / check.path, feeds).outputs
    expected = scores(model, pixels)
    for path, exact, comparison in zip(files, expected, own, strict=True):
        error = np.abs(outputs[path.name]["logits"][0] - exact).max()
        assert error <= GATE * comparison.noise_floor, path.name


def test_half_a_level_in_one_channel_is_noticed_on_photographs(
    model: Model, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = prepare.pixels_of(model.preprocessing)
    wrong = replace(right, offset=(right.offset[0] + 0.5, *right.offset[1:]))
    monkeypatch.setattr(prepare, "pixels_of", lambda way: wrong)
    report: Report = slide_deploy.export_and_verify(
        model, "onnx", tmp_path, images=pictures, seed=1
    )
    (check,) = report.checks
    assert check.verdict is Verdict.FAIL
    failed = {comparison.probe for comparison in check.comparisons if comparison.problem}
    numbered = enumerate(sorted(pictures.iterdir()), 1)
    noticed = [f"image {number}" in failed for number, path in numbered if "photo-" in path.name]
    assert len(noticed) == WANTED
    assert all(noticed)


def test_the_folder_is_read_in_the_order_of_names(model: Model, pictures: Path) -> None:
    """So that the comparisons above belong to their files."""
    spec = model.artifact_inputs[0]
    read = read_images(pictures, spec, model.preprocessing)
    files = sorted(pictures.iterdir())
    for path, image in zip(files, read, strict=True):
        np.testing.assert_array_equal(image, resized(load_image(path), 32), err_msg=path.name)
