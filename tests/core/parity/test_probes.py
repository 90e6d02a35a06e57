"""Probes are seeded, float32, and reveal their kinds of errors."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.parity.fresh_probes import fresh_probes, nan_probe
from slide_deploy.parity.probes import PERTURBATION, Probe, make_probes, source
from slide_deploy.types import TensorSpec

IMAGE = TensorSpec("image", (2, 3, 8, 9))
ONE = TensorSpec("image", (1, 3, 8, 9))


def named(name: str, spec: TensorSpec = IMAGE) -> np.ndarray:
    return {probe.name: probe for probe in make_probes((spec,))}[name].inputs[spec.name]


shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


@given(shape=shapes)
def test_every_size_of_image_has_finite_float32_probes(shape: tuple[int, ...]) -> None:
    for probe in make_probes((TensorSpec("x", shape),)):
        assert probe.inputs["x"].shape == shape
        assert probe.inputs["x"].dtype == np.float32
        assert np.isfinite(probe.inputs["x"]).all()


def digest(probes: tuple[Probe, ...]) -> str:
    data = b"".join(value.tobytes() for probe in probes for value in probe.inputs.values())
    return hashlib.sha256(data).hexdigest()


def test_the_same_seed_gives_the_same_bits() -> None:
    assert digest(make_probes((IMAGE,))) == digest(make_probes((IMAGE,)))


def test_another_seed_gives_other_bits() -> None:
    assert digest(make_probes((IMAGE,), seed=1)) != digest(make_probes((IMAGE,)))


def test_names_are_unique_and_reasons_are_given() -> None:
    probes = make_probes((IMAGE,))
    assert len({probe.name for probe in probes}) == len(probes)
    assert all(probe.why for probe in probes)


def test_every_input_is_fed() -> None:
    other = TensorSpec("scale", (2, 5))
    for probe in make_probes((IMAGE, other)):
        assert {name: value.shape for name, value in probe.inputs.items()} == {
            "image": IMAGE.shape,
            "scale": other.shape,
        }


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[..., ::-1],
        lambda x: x[..., ::-1, :],
        lambda x: x[:, ::-1],
        lambda x: x[::-1],
        lambda x: np.roll(x, 1, axis=2),
    ],
    ids=["columns", "rows", "channels", "batch", "shift"],
)
def test_ramps_tell_a_changed_axis(change: object) -> None:
    ramps = named("ramps")
    assert not np.allclose(change(ramps), ramps)  # type: ignore[operator]


def test_a_patchwork_has_a_quarter_of_each_kind() -> None:
    image = named("patchwork", TensorSpec("image", (1, 3, 64, 64)))
    assert not image[..., :32, :32].any()
    assert (image[..., :32, 32:] == np.float32(0.7)).all()
    assert 0 <= image[..., 32:, :32].min() < 0.01
    assert 0.99 < image[..., 32:, :32].max() <= 1
    natural = image[..., 32:, 32:]
    steps = np.diff(natural, axis=-1)
    assert steps.std() < 0.8 * natural.std()  # neighbours are alike, unlike those of white noise


@pytest.mark.parametrize("number", [0, 1])
def test_perturbed_copies_are_almost_the_probe(number: int) -> None:
    probes = make_probes((IMAGE,))
    first = probes[number]
    copies = [p for p in probes if source(p.name) == first.name and p is not first]
    assert len(copies) == 4
    for copy in copies:
        change = copy.inputs["image"] - first.inputs["image"]
        assert ((change != 0) == (first.inputs["image"] != 0)).mean() > 0.99
        assert np.abs(change).max() < 10 * PERTURBATION * np.abs(first.inputs["image"]).max()


def test_integers_take_the_ends_of_their_range_and_as_many_values_as_fit() -> None:
    ids = TensorSpec("ids", (1, 8), "int64", (10, 60))
    taken = np.concatenate([probe.inputs["ids"].ravel() for probe in make_probes((ids,))])
    assert {10, 60} <= set(taken) <= set(range(10, 61))
    assert len(set(taken)) == 51  # 7 probes of 8


@pytest.mark.parametrize(
    "ends", [None, (3, 3), (0, 2**40), (-2, 1)], ids=["unknown", "one", "huge", "negative"]
)
def test_every_range_of_integers_has_probes(ends: tuple[int, int] | None) -> None:
    low, high = ends or (0, 1)
    for probe in make_probes((TensorSpec("ids", (2, 3), "int64", ends),)):
        assert probe.inputs["ids"].shape == (2, 3)
        assert low <= probe.inputs["ids"].min() <= probe.inputs["ids"].max() <= high


def test_fresh_probes_are_drawn_from_the_seed() -> None:
    first, again, other = (fresh_probes((ONE,), 2, seed) for seed in (0, 0, 1))
    assert digest(first) == digest(again) != digest(other)
    known = [digest((probe,)) for probe in make_probes((IMAGE,))]
    assert all(digest((probe,)) not in known for probe in first)
    assert [probe.name for probe in first] == ["fresh patchwork", "fresh normal"]
    assert all(probe.inputs["image"].shape == (2, 3, 8, 9) for probe in first)


def test_a_free_batch_is_drawn_and_its_rows_are_in_another_order() -> None:
    largest, *others = fresh_probes((ONE,), "batch", 1)[1:]
    rows = [row.tobytes() for row in largest.inputs["image"]]
    assert len(set(rows)) == 8
    for probe in others:
        places = [rows.index(row.tobytes()) for row in probe.inputs["image"]]
        assert places != list(range(len(places)))
    drawn = {len(fresh_probes((ONE,), "batch", seed)[-1].inputs["image"]) for seed in range(30)}
    assert (len(others[0].inputs["image"]), drawn) == (2, {4, 5, 6, 7})


def test_other_sizes_are_asked_for() -> None:
    small = TensorSpec("image", (1, 3, 4, 6))
    probe = fresh_probes((ONE,), 2, 1, [[small]])[-1]
    assert (probe.name, probe.inputs["image"].shape) == ("fresh normal, 4x6", (2, 3, 4, 6))


def test_one_value_of_each_float_input_is_not_a_number() -> None:
    ids = TensorSpec("ids", (1, 4), "int64")
    probe = nan_probe(make_probes((ONE, ids))[0])
    assert probe
    assert np.isnan(probe.inputs["image"]).sum() == 1
    assert nan_probe(make_probes((ids,))[0]) is None


def test_integers_have_no_perturbed_copies() -> None:
    probes = make_probes((TensorSpec("index", (1, 4), "int64"),))
    assert [source(probe.name) for probe in probes] == [probe.name for probe in probes]


def test_ramps_tell_rows_from_columns() -> None:
    square = named("ramps", TensorSpec("image", (1, 3, 8, 8)))
    assert not np.allclose(square.transpose(0, 1, 3, 2), square)


def test_impulses_touch_corners_borders_and_the_middle() -> None:
    impulses = named("impulses")
    lit = {(int(r), int(c)) for r, c in np.argwhere(impulses[0, 0])}
    assert lit == {(r, c) for r in (0, 4, 7) for c in (0, 4, 8)}


@pytest.mark.parametrize("name", ["normal perturbed copy 2", "normal echo 2", "normal"])
def test_a_copy_belongs_to_its_probe_under_its_old_name_too(name: str) -> None:
    assert source(name) == "normal"
