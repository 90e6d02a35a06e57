"""Almost valid checkpoints give a model or an error of ours, never a crash."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy import load
from slide_deploy.errors import SlideDeployError

TinyFile = Callable[..., Path]


def outcome(path: Path, **options: Any) -> str:
    """What loading did: "" for a model or an error of ours that says what to do."""
    try:
        load(path, **options)
    except SlideDeployError as error:
        return "" if error.message and "\n" not in error.message else f"unclear: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("malformed") / "file.pth"


@given(part=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(scratch: Path, lone_module: Path, part: float) -> None:
    whole = lone_module.read_bytes()
    scratch.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(SlideDeployError):
        load(scratch, image_size=(4, 4))


@given(place=st.integers(0, 23_000), value=st.integers(0, 255))
def test_a_file_with_one_other_byte_never_crashes(
    scratch: Path, lone_module: Path, place: int, value: int
) -> None:
    whole = lone_module.read_bytes()
    scratch.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    assert outcome(scratch, image_size=(4, 4)) == ""


@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    with pytest.raises(SlideDeployError):
        load(scratch)


@given(content=st.text(max_size=50))
def test_any_text_is_refused(scratch: Path, content: str) -> None:
    scratch.write_text(content, encoding="utf-8")
    with pytest.raises(SlideDeployError):
        load(scratch)


JUNK = [None, -1, 0, "x", "", [], [1], [0, 0], 1.5, float("nan"), float("inf"), {}, True]


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize(
    "key",
    [
        "DATA",
        "DATA.IMG_SIZE",
        "MODEL",
        "MODEL.NUM_CLASSES",
        "MODEL.SWIN",
        "MODEL.SWIN.PATCH_SIZE",
        "MODEL.SWIN.IN_CHANS",
        "MODEL.SWIN.EMBED_DIM",
        "MODEL.SWIN.DEPTHS",
        "MODEL.SWIN.NUM_HEADS",
        "MODEL.SWIN.WINDOW_SIZE",
        "MODEL.SWIN.MLP_RATIO",
        "MODEL.SWIN.QKV_BIAS",
        "MODEL.SWIN.QK_SCALE",
        "MODEL.SWIN.APE",
        "MODEL.SWIN.PATCH_NORM",
        "MODEL.SLIDE",
        "MODEL.SLIDE.KA",
        "MODEL.SLIDE.NUM_SLIDE_STAGES",
    ],
)
def test_junk_in_a_config_is_an_error_of_ours(
    tiny_file: TinyFile, training_config: Any, tiny_config: Any, key: str
) -> None:
    *path, last = key.split(".")
    troubles = {}
    for junk in JUNK:
        config = copy.deepcopy(training_config(tiny_config))
        functools.reduce(lambda node, part: node[part], path, config)[last] = junk
        if trouble := outcome(tiny_file(config=config)):
            troubles[repr(junk)] = trouble
    assert troubles == {}


@pytest.mark.parametrize("config", [1, "x", [], [1], {}, {"MODEL": {}}], ids=repr)
def test_a_config_of_another_form_is_an_error_of_ours(tiny_file: TinyFile, config: Any) -> None:
    assert outcome(tiny_file(config=config)) == ""


SHAPES = [(), (0,), (1,), (0, 0), (1, 1), (1, 1, 1, 1), (0, 1, 0, 1), (2, 1, 1, 1, 1, 1)]

SWIN_KEYS = [
    "patch_embed.proj.weight",
    "layers.0.blocks.0.attn.relative_position_bias_table",
    "layers.0.blocks.0.attn.dep_conv.weight",
    "layers.0.blocks.0.mlp.fc1.weight",
    "layers.1.blocks.0.attn.relative_position_bias_table",
    "layers.1.blocks.1.attn_mask",
    "layers.1.blocks.1.attn.relative_position_index",
    "head.weight",
    "norm.weight",
]


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize(
    "key",
    SWIN_KEYS,
)
def test_any_shape_in_a_bare_model_is_an_error_of_ours(
    tiny_file: TinyFile, make_model: Callable[..., Any], key: str
) -> None:
    troubles = {}
    for shape in SHAPES:
        state = {**make_model().state_dict(), key: torch.zeros(shape)}
        if trouble := outcome(tiny_file(model=state, config=None)):
            troubles[shape] = trouble
    assert troubles == {}


MODULE_KEYS = [
    "qkv.weight",
    "proj.weight",
    "dep_conv.weight",
    "dep_conv1.weight",
    "relative_position_bias_table",
]


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize(
    "key",
    MODULE_KEYS,
)
def test_any_shape_in_a_lone_module_is_an_error_of_ours(
    golden: Path, scratch: Path, key: str
) -> None:
    state = torch.load(golden / "module_dat_default.pth", weights_only=True)
    troubles = {}
    for shape in SHAPES:
        torch.save({**state, key: torch.zeros(shape)}, scratch)
        if trouble := outcome(scratch, image_size=(4, 4)):
            troubles[shape] = trouble
    assert troubles == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float8_e4m3fn,
        *(dtype for dtype in (torch.int8, torch.bool, torch.complex64)),
    ],
    ids=lambda dtype: str(dtype).removeprefix("torch."),
)
def test_weights_that_are_no_plain_floats_are_an_error_or_a_note(
    tiny_file: TinyFile, make_model: Callable[..., Any], dtype: torch.dtype
) -> None:
    state = make_model().state_dict()
    state["head.weight"] = state["head.weight"].to(dtype)
    path = tiny_file(model=state)
    assert outcome(path) == ""
    try:
        notes = load(path).notes
    except SlideDeployError:
        return
    assert any("used as float32" in note for note in notes)


def test_a_sparse_weight_is_an_error_of_ours(
    tiny_file: TinyFile, make_model: Callable[..., Any]
) -> None:
    state = make_model().state_dict()
    state["head.weight"] = state["head.weight"].to_sparse()
    assert outcome(tiny_file(model=state)) == ""


def test_weights_without_values_are_an_error_of_ours(
    tiny_file: TinyFile, make_model: Callable[..., Any]
) -> None:
    state = make_model().state_dict()
    state["head.weight"] = torch.empty(3, 8, device="meta")
    assert outcome(tiny_file(model=state)) == ""


@pytest.mark.parametrize("key", ["layers.9.blocks.0.x", "layers.0.blocks.7.x", "layers.x"])
def test_keys_of_blocks_that_are_not_there_are_an_error_of_ours(
    tiny_file: TinyFile, make_model: Callable[..., Any], key: str
) -> None:
    state = {**make_model().state_dict(), key: torch.ones(1)}
    assert outcome(tiny_file(model=state, config=None)) == ""
