"""The first block whose error exceeds the noise."""

import numpy as np
import pytest

from slide_deploy.parity.block_trace import BlockReference, first_bad_block, trace_blocks

NOISE = 1e-6
SHAPES = {"embed": (1, 16, 8), "attn": (1, 16, 8), "mlp": (1, 16, 8), "head": (1, 10)}


@pytest.fixture
def blocks():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def found(blocks, values):
    references = [BlockReference(name, value, NOISE) for name, value in blocks.items()]
    return first_bad_block(trace_blocks(values, references))


def test_values_within_the_noise_name_no_block(blocks):
    assert found(blocks, [value + NOISE for value in blocks.values()]) is None


def test_the_first_of_several_wrong_blocks_is_named(blocks):
    values = {name: value + 1e-3 * (name != "embed") for name, value in blocks.items()}
    assert found(blocks, values.values()) == "attn"


def test_a_block_with_its_channels_first_is_found(blocks):
    turned = np.moveaxis(blocks["embed"], -1, 1)
    assert found(blocks, [turned, *list(blocks.values())[1:]]) is None


@pytest.mark.parametrize("similar", [0.01, 10.0])
def test_a_merged_block_is_skipped_where_a_later_one_agrees(blocks, similar):
    wrong = {name: blocks[name] + 1e-3 for name in ("mlp", "head")}
    values = dict(blocks, **wrong, embed=blocks["embed"] + similar)
    assert found(blocks, values.values()) == "mlp"


def test_a_small_error_that_a_later_block_swallows_is_named(blocks):
    values = dict(blocks, attn=blocks["attn"] + 30 * NOISE, head=blocks["head"] + 1e-3)
    assert found(blocks, values.values()) == "attn"
