"""Damaged bytes give a clear error or are read correctly, for every reader."""

from __future__ import annotations

import io
import json
import os
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slide_deploy.artifacts.golden import load_golden
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.errors import SlideDeployError
from slide_deploy.loading.checkpoint import read_checkpoint
from slide_deploy.verification.record import read_report

GOLDEN = Path(__file__).parents[1] / "golden"

# `FUZZ_EXAMPLES=2500` runs 10,000 bad inputs over the four readers.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@cache
def pickle_archive() -> tuple[bytes, dict[str, bytes]]:
    """A small real checkpoint: its bytes, and its zip members."""
    data = (GOLDEN / "module_dat_default.pth").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return data, {name: archive.read(name) for name in archive.namelist()}


damage = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=6,
)


def damaged(data: bytes, edits: list[tuple[float, bytes]], cut: float) -> bytes:
    mutable = bytearray(data)
    for place, replacement in edits:
        start = int(place * len(mutable))
        mutable[start : start + len(replacement)] = replacement
    return bytes(mutable[: max(1, int(cut * len(mutable)))])


def read(function, path: Path) -> None:
    with suppress(SlideDeployError):
        function(path)


@fuzzed
@given(edits=damage, cut=st.one_of(st.just(1.0), st.floats(0.001, 1)), inner=st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_damaged_checkpoints(tmp_path, edits, cut, inner):
    data, members = pickle_archive()
    path = tmp_path / "model.pth"
    if inner:
        # The zip is whole, its pickle is not: this reaches the unpickler every time.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                is_pickle = name.endswith("data.pkl")
                archive.writestr(name, damaged(content, edits, cut) if is_pickle else content)
    else:
        path.write_bytes(damaged(data, edits, cut))
    read(read_checkpoint, path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@st.composite
def broken_documents(draw, kind: str):
    """A document of the right outline with wrong things in it, or any bytes at all."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    names = {
        "manifest": ["schema_version", "source", "model", "artifacts", "toolchain"],
        "report": ["schema_version", "verdict", "source", "model", "reference", "checks"],
    }[kind]
    content = {name: draw(json_values) for name in draw(st.sets(st.sampled_from(names)))}
    content["schema_version"] = draw(st.just(1) | json_values)
    return json.dumps(content).encode()


@fuzzed
@given(content=broken_documents("manifest"))
def test_broken_manifests(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    read(find_manifest, tmp_path)


@fuzzed
@given(content=broken_documents("report"))
def test_broken_reports(tmp_path, content):
    (tmp_path / "report.json").write_bytes(content)
    read(read_report, tmp_path / "report.json")


@fuzzed
@given(content=st.binary(max_size=400), edits=damage, real=st.booleans())
def test_broken_golden_vectors(tmp_path, content, edits, real):
    path = tmp_path / "golden.npz"
    data = (GOLDEN / "micro_ema.npz").read_bytes() if real else content
    path.write_bytes(damaged(data, edits, 1.0) if data else b"x")
    read(load_golden, path)
