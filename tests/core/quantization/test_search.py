"""The fewest parts in float that reach an accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.protocols import Product
from slide_deploy.quantization.search import Goal, Search, Trial, kinds_of, parts_of, search
from slide_deploy.types import ProductKind

NOISES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.floats(1e-6, 1.0), min_size=1, max_size=12
)


def measured(noises: dict[str, float], tried: list[Trial] | None = None):
    """The ratio in dB where each quantized part adds noise of its own, and each setting takes a
    tenth of it or, being called bad, ten times as much."""

    def measure(trials: Sequence[Trial]) -> list[Trial]:
        return [of(trial) for trial in trials]

    def of(trial: Trial) -> Trial:
        if tried is not None:
            tried.append(trial)
        left = sum(noise for part, noise in noises.items() if part not in trial.kept)
        for value in trial.settings.values():
            left *= 10 if value == "bad" else 0.1
        ratio = 120.0 if left == 0 else min(120.0, -10 * math.log10(left))
        return replace(trial, snr_db=ratio, top1=100 - left)

    return measure


def found_by(noises: dict[str, float], least: float, choices=(), tried=None) -> Search:
    return search(alone(noises), {}, dict(choices), measured(noises, tried), Goal(least))


def alone(parts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Parts of one product each."""
    return {part: (part,) for part in parts}


@given(noises=NOISES, wanted=st.floats(1.0, 80.0))
def test_no_fewer_parts_would_be_enough(noises: dict[str, float], wanted: float) -> None:
    found = found_by(noises, wanted)
    assert found.snr_db >= wanted
    assert found.reached
    loudest = sorted(noises, key=lambda part: noises[part], reverse=True)
    fewer = tuple(loudest[: max(0, len(found.kept) - 1)])
    assert not found.kept or measured(noises)([Trial(fewer, 0.0)])[0].snr_db < wanted


@given(noises=NOISES, wanted=st.floats(1.0, 80.0))
def test_nothing_is_tried_twice(noises: dict[str, float], wanted: float) -> None:
    tried: list[Trial] = []
    found = found_by(noises, wanted, {"smooth": ("good", "bad")}, tried)
    seen = {(frozenset(trial.kept), tuple(trial.settings.items())) for trial in tried}
    assert len(seen) == len(tried) == len(found.trials)
    assert len(tried) <= 4 + len(noises) + 2 * math.ceil(math.log2(len(noises) + 1))


def test_one_trial_is_enough_where_nothing_must_stay_in_float() -> None:
    found = found_by({"a": 1e-5, "b": 1e-5}, 30.0, {"smooth": ("good",)})
    assert (found.kept, found.settings, len(found.trials), found.gains) == ((), {}, 1, {})


def test_settings_are_tried_before_parts_stay_in_float() -> None:
    choices = {"smooth": ("bad", "good"), "activations": ("good",)}
    found = found_by({"a": 1e-2, "b": 1e-2}, 25.0, choices)
    assert (found.kept, found.settings) == ((), {"smooth": "good"})
    both = found_by({"a": 1e-2, "b": 1e-2}, 35.0, choices)
    assert (both.kept, both.settings) == ((), {"smooth": "good", "activations": "good"})
    parts = found_by({"a": 1e-2, "b": 1e-3}, 45.0, choices)
    assert (parts.kept, parts.settings) == (("a",), {"smooth": "good", "activations": "good"})


def test_settings_that_lose_are_left_out() -> None:
    found = found_by({"a": 0.09, "b": 0.01}, 15.0, {"smooth": ("bad",)})
    assert (found.kept, found.settings) == (("a",), {})


def test_each_part_tells_what_it_gains() -> None:
    found = found_by({"a": 0.09, "b": 0.01}, 15.0)
    assert found.kept == ("a",)
    assert found.gains == pytest.approx({"a": 10.0, "b": 10 * math.log10(10 / 9)})


def test_an_accuracy_can_be_the_goal() -> None:
    found = search(alone("ab"), {}, {}, measured({"a": 3.0, "b": 1.0}), Goal(min_top1=99.0))
    assert (found.kept, found.top1, found.reached) == (("a",), 99.0, True)
    assert not Goal(min_top1=99.5).met_by(Trial((), 60.0, top1=99.0))


def test_all_parts_stay_where_even_these_are_not_enough() -> None:
    def measure(trials: Sequence[Trial]) -> list[Trial]:
        return [replace(trial, snr_db=10.0 + len(trial.kept)) for trial in trials]

    grow = partial(search, alone("ab"), {}, {}, measure)
    found = grow(Goal(60.0))
    assert (set(found.kept), found.snr_db, found.reached) == ({"a", "b"}, 12.0, False)


@pytest.mark.parametrize(
    ("size", "kept"), [(1, ("depthwise",)), (2, ("a",))], ids=["fewer products", "no fewer"]
)
def test_one_kind_is_kept_where_it_has_fewer_products(size: int, kept: tuple[str, ...]) -> None:
    parts = {"a": ("a1", "a2"), "b": ("b1",)}
    kinds = {"depthwise": ("a1", "b1")[:size], "linear": ("a2",)}
    noise = measured({"a": 0.09, "depthwise": 0.09, "b": 0.001, "linear": 0.001})
    half = -10 * math.log10(0.182) + 1
    found = search(parts, kinds, {}, noise, Goal(half))
    assert (found.kept, found.kinds, found.reached) == (kept, ("depthwise", "linear"), True)
    assert set(found.gains) == {"a", "b", "depthwise", "linear"}


@pytest.mark.parametrize(
    ("products", "parts"),
    [
        ({"p1": "stem.weight", "p2": "stem.2.bias"}, {"stem": ("p1", "p2")}),
        ({"p1": "blocks.1.qkv.weight", "p2": ""}, {"blocks.1": ("p1", "p2")}),
        ({"p1": "blocks.10.qkv"}, {"blocks.10.qkv": ("p1",)}),
        ({"p1": ""}, {"p1": ("p1",)}),
    ],
    ids=["by path", "no path", "another block's prefix", "first"],
)
def test_products_belong_to_blocks(
    products: dict[str, str], parts: dict[str, tuple[str, ...]]
) -> None:
    found = {name: Product(path, ProductKind.LINEAR) for name, path in products.items()}
    assert parts_of(found, ["stem", "blocks.1"]) == parts


def test_products_are_grouped_by_kind() -> None:
    one = {name: Product("", ProductKind.LINEAR) for name in ("p1", "p2")}
    assert kinds_of(one) == {}
    both = one | {"p3": Product("", ProductKind.GROUPED)}
    assert kinds_of(both) == {"linear layers": ("p1", "p2"), "grouped convolutions": ("p3",)}
