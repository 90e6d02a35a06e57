"""Golden vectors on disk: the format that docs/golden-vectors.md describes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slide_deploy.artifacts.golden import load_golden, save_golden
from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.errors import ArtifactError
from slide_deploy.parity.expectation import Expectation, Noise
from slide_deploy.types import TensorSpec

DOCUMENT = Path(__file__).parents[3] / "docs" / "golden-vectors.md"
SOURCE = SourceRecord("größe 𝔐.pth", "0" * 64, "ema")
ROWS = np.asfortranarray([[np.pi, 0.2]] * 3)
KNOWN = (
    Expectation(
        "normal",
        "every weight",
        {"image": np.ones((1, 3, 2, 2), np.float32), "ids": np.array([[2**40]])},
        {"logits": np.array([[0.1, 0.2]])},
        {"logits": Noise(1e-7, 4e-8)},
    ),
    Expectation(
        "ramps, batch of 3",
        "axes",
        {"image": np.zeros((3, 3, 2, 2), np.float32), "ids": np.zeros((3, 1), np.int64)},
        {"logits": ROWS},
        {"logits": Noise(1e-7, 4e-8, 1e-3, 61.5)},
    ),
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_golden(KNOWN, "größe", SOURCE, "float16", tmp_path / "m.golden-1-float16")


@pytest.fixture
def rewritten(saved: Path) -> Callable[[Callable[[dict[str, np.ndarray]], object]], Path]:
    """rewritten(change): the file saved again with plain numpy, its arrays changed by `change`."""

    def rewrite(change: Callable[[dict[str, np.ndarray]], object]) -> Path:
        with np.load(saved) as archive:
            arrays = dict(archive)
        change(arrays)
        np.savez(saved, **arrays)  # type: ignore[arg-type]
        return saved

    return rewrite


def test_golden_vectors_come_back_as_they_went(saved: Path) -> None:
    found = load_golden(saved)
    assert (found.model, found.source, found.precision) == ("größe", SOURCE, "float16")
    for one, known in zip(found.expectations, KNOWN, strict=True):
        assert (one.probe, one.why, one.noise) == (known.probe, known.why, known.noise)
        for mine, other in ((one.inputs, known.inputs), (one.references, known.references)):
            assert mine.keys() == other.keys()
            for name in mine:
                assert mine[name].dtype == other[name].dtype
                assert np.array_equal(mine[name], other[name])


def test_they_tell_inputs_and_outputs_with_their_free_dimensions(saved: Path) -> None:
    found = load_golden(saved)
    image = TensorSpec("image", ("size0", 3, 2, 2))
    assert found.inputs == (image, TensorSpec("ids", ("size0", 1), "int64"))
    assert found.outputs == (TensorSpec("logits", ("size0", 2)),)


def test_the_name_follows_the_content(saved: Path, tmp_path: Path) -> None:
    assert re.fullmatch(r"m\.golden-1-float16-[0-9a-f]{12}\.npz", saved.name)
    stem = tmp_path / "m.golden-1-float16"
    assert save_golden(KNOWN, "größe", SOURCE, "float16", stem) == saved
    assert save_golden(KNOWN[:1], "größe", SOURCE, "float16", stem) != saved


def test_an_older_form_has_no_source(
    rewritten: Callable[..., Path],
) -> None:
    path = rewritten(lambda a: [a.pop(k) for k in ("model", "source", "precision", "digest")])
    found = load_golden(path)
    assert (found.model, found.source, found.precision) == ("m", None, "float16")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a["0/noise/logits"].__imul__(1e6), id="noise"),
        pytest.param(lambda a: a["1/reference/logits"].__iadd__(1e-9), id="reference"),
        pytest.param(lambda a: a["0/input/image"].__iadd__(1), id="input"),
        pytest.param(lambda a: [a.pop(k) for k in list(a) if k.startswith("1/")], id="one-probe"),
        pytest.param(lambda a: a.update(source=np.array(["b.pth", "1" * 64, "ema"])), id="source"),
        pytest.param(lambda a: a.update(precision=np.array("float32")), id="precision"),
        pytest.param(lambda a: a.pop("digest"), id="no-digest"),
        pytest.param(lambda a: a.pop("source"), id="no-source"),
        pytest.param(lambda a: a.pop("1/noise/logits"), id="no-noise"),
        pytest.param(lambda a: a.clear(), id="nothing"),
    ],
)
def test_changed_golden_vectors_are_refused(rewritten: Callable[..., Path], change: object) -> None:
    path = rewritten(change)
    with pytest.raises(ArtifactError, match=re.escape(path.name)):
        load_golden(path)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"PK\x05\x06" + b"\0" * 18])
def test_what_are_no_golden_vectors_is_an_artifact_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"golden\.npz"):
        load_golden(tmp_path / "golden.npz")


# numpy leaves a file open that turns out to be no archive
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_golden_vectors_cut_short_are_an_artifact_error(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-40])
    with pytest.raises(ArtifactError):
        load_golden(saved)


def test_golden_vectors_hold_no_pickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", **{"0/about": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ArtifactError):
        load_golden(tmp_path / "golden.npz")


def test_the_documented_javascript_reads_every_array(saved: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    (program,) = re.findall(r"```js\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    script = tmp_path / "reader.mjs"
    script.write_text(
        program
        + "const plain = (_, v) => typeof v === 'bigint' ? Number(v) : v?.buffer ? [...v] : v;\n"
        + "console.log(JSON.stringify(readGolden(process.argv[2]), plain));",
        encoding="utf-8",
    )
    done = subprocess.run([node, script, saved], capture_output=True, check=True)
    read = json.loads(done.stdout)
    with np.load(saved) as archive:
        assert list(read) == archive.files
        for key, value in archive.items():
            flat = [None if x != x else x for x in value.ravel().tolist()]
            assert read[key] == {"shape": list(value.shape), "data": flat}, key


def test_every_key_is_documented(saved: Path) -> None:
    keys = re.findall(r"^\| `([^`]+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    with np.load(saved) as archive:
        found = [re.sub(r"^\d+/", "I/", key) for key in archive.files]
    places = ("image", "ids", "logits")
    # At float16, where the model has such a function, and of probabilities alone.
    rare = ("rounded", "operator", "logarithms")
    patterns = [
        re.sub("FUNCTION", r"\\w+", re.sub("INPUT|OUTPUT", f"({'|'.join(places)})", key))
        for key in keys
    ]
    assert [key for key in found if not any(re.fullmatch(p, key) for p in patterns)] == []
    common = [p for p in patterns if not any(f"/{word}" in p for word in rare)]
    assert [p for p in common if not any(re.fullmatch(p, key) for key in found)] == []
