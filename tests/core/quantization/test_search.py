"""The fewest parts in float that reach an accuracy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.quantization.search import parts_of, search

NOISES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.floats(1e-6, 1.0), min_size=1, max_size=12
)


def measured(noises: dict[str, float], tried: list[tuple[str, ...]] | None = None):
    """The ratio in dB where each quantized part adds noise of its own."""

    def measure(kept: tuple[str, ...]) -> float:
        if tried is not None:
            tried.append(kept)
        left = sum(noise for part, noise in noises.items() if part not in kept)
        return 120.0 if left == 0 else min(120.0, -10 * math.log10(left))

    return measure


@given(noises=NOISES, wanted=st.floats(1.0, 80.0))
def test_no_fewer_parts_would_be_enough(noises: dict[str, float], wanted: float) -> None:
    found = search(list(noises), measured(noises), wanted)
    assert found.snr_db >= wanted
    loudest = sorted(noises, key=lambda part: noises[part], reverse=True)
    fewer = tuple(loudest[: max(0, len(found.kept) - 1)])
    assert not found.kept or measured(noises)(fewer) < wanted


@given(noises=NOISES, wanted=st.floats(1.0, 80.0))
def test_nothing_is_tried_twice(noises: dict[str, float], wanted: float) -> None:
    tried: list[tuple[str, ...]] = []
    found = search(list(noises), measured(noises, tried), wanted)
    assert len({frozenset(kept) for kept in tried}) == len(tried) == len(found.trials)
    assert len(tried) <= 2 + len(noises) + math.ceil(math.log2(len(noises) + 1))


def test_one_trial_is_enough_where_nothing_must_stay_in_float() -> None:
    found = search(["a", "b"], measured({"a": 1e-5, "b": 1e-5}), 30.0)
    assert (found.kept, len(found.trials), found.gains) == ((), 1, {})


def test_each_part_tells_what_it_gains() -> None:
    found = search(["a", "b"], measured({"a": 0.09, "b": 0.01}), 15.0)
    assert found.kept == ("a",)
    assert found.gains == pytest.approx({"a": 10.0, "b": 10 * math.log10(10 / 9)})


def test_all_parts_stay_where_even_these_are_not_enough() -> None:
    found = search(["a", "b"], lambda kept: 10.0 + len(kept), 60.0)
    assert (set(found.kept), found.snr_db) == ({"a", "b"}, 12.0)


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
    assert parts_of(products, ["stem", "blocks.1"]) == parts
