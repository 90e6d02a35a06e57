"""Loading of models: golden outputs, formats, and weights that do not match."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from slide_deploy import fuse, load
from slide_deploy.errors import AmbiguousModel, ArchitectureError, CheckpointError, UnknownName
from slide_deploy.models.slide_swin import SlideSwin, SlideSwinConfig
from slide_deploy.packaging.preprocessing import preset
from slide_deploy.types import TensorSpec

TinyFile = Callable[..., Path]
MakeModel = Callable[..., SlideSwin]

# What each golden file is: family, weights used by default, and (class, kernel, window stages).
SWINS = {
    "micro_official": ("model", {"num_classes": 10, "kernel_size": 3, "slide_stages": 2}),
    "micro_ema": ("ema", {"num_classes": 10, "kernel_size": 3, "slide_stages": 2}),
    "micro_ddp_noqkvbias": ("model", {"num_classes": 5, "qkv_bias": False, "slide_stages": 3}),
    "micro_k5_ape": ("model", {"num_classes": 7, "kernel_size": 5, "ape": True}),
    "micro_shifted_bare": ("model", {"num_classes": 10, "slide_stages": 1, "window_size": 4}),
}
MODULES = {
    "module_dat_default": {"dim": 64, "heads": 4, "kernel_size": 3, "reduction": 4},
    "module_dat_shareqkv": {"dim": 48, "heads": 3, "kernel_size": 3, "share_qkv": True},
    "module_dat_unshared_k5": {
        "dim": 64,
        "heads": 2,
        "kernel_size": 5,
        "reduction": 2,
        "share_kernel": False,
        "position_bias": False,
    },
}


@pytest.fixture
def vectors(golden: Path) -> Callable[[str], dict[str, np.ndarray]]:
    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(golden / f"{name}.npz") as archive:
            return {key: archive[key] for key in archive.files}

    return read


Vectors = Callable[[str], dict[str, np.ndarray]]


def double(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module.double()(torch.from_numpy(x).double()).numpy()


@pytest.mark.parametrize("name", SWINS)
def test_golden_models_are_recognised(golden: Path, name: str) -> None:
    weights, facts = SWINS[name]
    model = load(golden / f"{name}.pth")
    found = {key: getattr(model.config, key) for key in facts}
    assert (model.family, model.source.weights, found) == ("slide-swin", weights, facts)


def test_a_training_config_tells_the_preprocessing(golden: Path) -> None:
    model = load(golden / "micro_official.pth")
    height, width = map(int, model.inputs[0].shape[2:])
    assert model.preprocessing == preset("imagenet", (height, width))
    assert model.labels is None


def test_a_bare_state_dict_tells_no_preprocessing(golden: Path) -> None:
    model = load(golden / "micro_shifted_bare.pth")
    assert model.preprocessing is None


@pytest.mark.parametrize("name", SWINS)
def test_golden_models_compute_the_recorded_outputs(
    golden: Path, vectors: Vectors, name: str
) -> None:
    known = vectors(name)
    found = double(load(golden / f"{name}.pth").module, known["x"])
    assert np.abs(found - known["y64"]).max() <= 1e-12 * max(1, np.abs(known["y64"]).max())


@pytest.mark.parametrize("name", SWINS)
def test_golden_models_give_the_recorded_stages(golden: Path, vectors: Vectors, name: str) -> None:
    """The vectors are float32: no further from float64 than ten times our own float32 noise."""
    known = vectors(name)

    def stages(dtype: torch.dtype) -> list[np.ndarray]:
        module, found = load(golden / f"{name}.pth").module.to(dtype), []
        for layer in module.layers:
            layer.register_forward_hook(
                lambda layer, inputs, output: found.append(output.flatten(1, 2).double().numpy())
            )
        module(torch.from_numpy(known["x"]).to(dtype))
        return found

    for index, (exact, rounded) in enumerate(
        zip(stages(torch.float64), stages(torch.float32), strict=True)
    ):
        noise = np.abs(exact - rounded).max()
        assert np.abs(exact - known[f"stage{index}"]).max() <= 10 * noise, f"stage {index}"


@pytest.mark.parametrize("name", MODULES)
def test_golden_modules_are_recognised(golden: Path, vectors: Vectors, name: str) -> None:
    model = load(golden / f"{name}.pth", image_size=vectors(name)["x"].shape[2:])
    found = {key: getattr(model.config.attention, key) for key in MODULES[name]}
    assert (model.family, found) == ("slide-attention", MODULES[name])


@pytest.mark.parametrize("name", MODULES)
def test_golden_modules_compute_the_recorded_outputs(
    golden: Path, vectors: Vectors, name: str
) -> None:
    known = vectors(name)
    model = load(golden / f"{name}.pth", image_size=known["x"].shape[2:])
    found = double(model.module, known["x"])
    assert np.abs(found - known["y64"]).max() <= 1e-12 * max(1, np.abs(known["y64"]).max())


def test_a_golden_file_has_its_other_weights_too(golden: Path, vectors: Vectors) -> None:
    model = load(golden / "micro_ema.pth", weights="model")
    known = vectors("micro_ema")
    assert model.source.weights == "model"
    assert np.abs(double(model.module, known["x"]) - known["y64"]).max() > 1e-3


def test_all_formats_of_the_same_weights_give_the_same_model(
    tiny_file: TinyFile, make_model: MakeModel, tmp_path: Path
) -> None:
    state = make_model().state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "ddp.pth")
    torch.save(state, tmp_path / "bare.pth")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "bare.safetensors")
    x = torch.randn(2, 3, 16, 16)
    expected = load(tiny_file()).module(x)
    for name in ("ddp.pth", "bare.pth", "bare.safetensors"):
        assert torch.equal(load(tmp_path / name).module(x), expected), name


def test_a_model_is_float32_in_eval_mode_without_gradients(tiny_file: TinyFile) -> None:
    module = load(tiny_file()).module
    assert not module.training
    assert {(p.dtype, p.requires_grad) for p in module.parameters()} == {(torch.float32, False)}


def test_names_of_inputs_and_outputs(tiny_file: TinyFile) -> None:
    model = load(tiny_file())
    assert model.inputs == (TensorSpec("image", (1, 3, 16, 16)),)
    assert model.outputs == (TensorSpec("logits", (1, 3)),)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats_become_float32_and_it_is_said(
    tiny_file: TinyFile, make_model: MakeModel, dtype: torch.dtype
) -> None:
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in make_model().state_dict().items()
    }
    model = load(tiny_file(model=state))
    name = str(dtype).removeprefix("torch.")
    assert any(name in note for note in model.notes)
    assert next(model.module.parameters()).dtype == torch.float32


def test_weights_of_float64_that_float32_cannot_hold_are_refused(
    tiny_file: TinyFile, make_model: MakeModel
) -> None:
    state = make_model().double().state_dict()
    state["norm.weight"][0] = 1e300
    with pytest.raises(CheckpointError):
        load(tiny_file(model=state))


SWIN_KEYS = (
    "PATCH_SIZE",
    "IN_CHANS",
    "EMBED_DIM",
    "DEPTHS",
    "NUM_HEADS",
    "WINDOW_SIZE",
    "MLP_RATIO",
    "QKV_BIAS",
    "QK_SCALE",
    "APE",
    "PATCH_NORM",
)
KEYS = [
    "DATA.IMG_SIZE",
    "MODEL.NUM_CLASSES",
    "MODEL.SLIDE.KA",
    "MODEL.SLIDE.NUM_SLIDE_STAGES",
    *(f"MODEL.SWIN.{key}" for key in SWIN_KEYS),
]


@pytest.mark.parametrize("key", KEYS)
def test_a_config_that_lacks_a_size_is_refused_by_its_name(
    tiny_file: TinyFile, training_config: Any, tiny_config: SlideSwinConfig, key: str
) -> None:
    config = training_config(tiny_config)
    node = config
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    del node[last]
    with pytest.raises(ArchitectureError, match=last):
        load(tiny_file(config=config))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda state: state.pop("norm.bias"), "lacks norm.bias"),
        (lambda state: state.update({"extra.weight": torch.ones(1)}), "extra.weight"),
        (
            lambda state: state.update({"layers.0.blocks.0.attn.qkv.weight": torch.ones(9, 4)}),
            r"qkv.weight is \(9, 4\)",
        ),
        (
            lambda state: state["layers.1.blocks.1.attn_mask"].zero_(),
            "attn_mask",
        ),
        (
            lambda state: state["layers.1.blocks.1.attn.relative_position_index"].zero_(),
            "relative_position_index",
        ),
    ],
    ids=["missing", "unexpected", "shape", "another-mask", "another-index"],
)
def test_weights_that_do_not_fit_are_named(
    tiny_file: TinyFile, make_model: MakeModel, change: Callable[[Any], Any], word: str
) -> None:
    state = make_model().state_dict()
    change(state)
    with pytest.raises(ArchitectureError, match=word):
        load(tiny_file(model=state))


@pytest.mark.parametrize("buffer", ["attn_mask", "relative_position_index"])
def test_buffers_that_the_architecture_determines_may_be_left_out(
    tiny_file: TinyFile, make_model: MakeModel, buffer: str
) -> None:
    state = make_model().state_dict()
    kept = {key: value for key, value in state.items() if not key.endswith(buffer)}
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(load(tiny_file(model=kept)).module(x), load(tiny_file()).module(x))


def test_another_image_size_may_be_asked_for(tiny_file: TinyFile) -> None:
    model = load(tiny_file(), image_size=(32, 16))
    assert model.module(torch.randn(1, 3, 32, 16)).shape == (1, 3)
    assert model.inputs[0].shape == (1, 3, 32, 16)


def test_an_all_slide_model_without_config_needs_its_image_size(
    tiny_file: TinyFile, make_model: MakeModel
) -> None:
    state = make_model(depths=(1, 1), slide_stages=2).state_dict()
    path = tiny_file(model=state, config=None)
    with pytest.raises(AmbiguousModel) as refused:
        load(path)
    assert "--image-size" in refused.value.hint
    assert load(path, image_size=(16, 16)).config.image_size == (16, 16)


def test_what_was_assumed_is_said(golden: Path) -> None:
    notes = load(golden / "micro_ddp_noqkvbias.pth").notes
    assert any("--image-size overrides" in note for note in notes)


def test_what_the_config_says_needs_no_note(golden: Path) -> None:
    assert load(golden / "micro_official.pth").notes == ()


def test_a_model_without_a_shift_pair_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.ones(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no Slide Attention: no layer with dep_conv"):
        load(tmp_path / "other.pth")


def test_a_shift_pair_in_an_unknown_model_is_refused_as_that(tmp_path: Path) -> None:
    state = {
        f"detector.{name}.weight": torch.ones(9, 1, 3, 3) for name in ("dep_conv", "dep_conv1")
    }
    torch.save(state, tmp_path / "detector.pth")
    with pytest.raises(CheckpointError, match="no known family"):
        load(tmp_path / "detector.pth")


@pytest.fixture
def fused_file(tiny_file: TinyFile, tmp_path: Path) -> Path:
    path = tmp_path / "fused.safetensors"
    fuse(load(tiny_file()), path)
    return path


def test_a_fused_file_computes_what_its_checkpoint_does(
    tiny_file: TinyFile, fused_file: Path
) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16))
    expected = double(load(tiny_file()).module, x)
    found = double(load(fused_file).module, x)
    # each fused weight was rounded to float32 once
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(found - expected).max() > 0


def test_a_fused_file_carries_its_architecture(tiny_file: TinyFile, fused_file: Path) -> None:
    original, fused = load(tiny_file()), load(fused_file)
    assert (fused.config, fused.family, fused.fused) == (original.config, original.family, True)


def test_a_fused_file_says_what_it_was_made_of(tiny_file: TinyFile, fused_file: Path) -> None:
    from safetensors import safe_open

    source = load(tiny_file()).source
    with safe_open(fused_file, "pt") as file:
        metadata = file.metadata()
    assert metadata["source"] == f"{source.path_name} sha256:{source.sha256}"
    assert metadata["weights"] == "model"


def test_fusing_a_fused_file_changes_no_weight(fused_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    fuse(load(fused_file), tmp_path / "again.safetensors")
    first, second = load_file(fused_file), load_file(tmp_path / "again.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_fused_module_keeps_its_variant(golden: Path, tmp_path: Path) -> None:
    model = load(golden / "module_dat_unshared_k5.pth", image_size=(6, 7))
    fuse(model, tmp_path / "fused.safetensors")
    assert load(tmp_path / "fused.safetensors").config == model.config


def test_averaged_weights_stay_known_as_such_when_fused(golden: Path, tmp_path: Path) -> None:
    fuse(load(golden / "micro_ema.pth"), tmp_path / "fused.safetensors")
    assert load(tmp_path / "fused.safetensors").source.weights == "ema"


@pytest.fixture
def with_metadata(fused_file: Path) -> Callable[..., Path]:
    """with_metadata(family=…, config=…): the fused file with other metadata."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    def change(**changes: str | None) -> Path:
        with safe_open(fused_file, "pt") as file:
            metadata = {**file.metadata(), **changes}
        kept = {key: value for key, value in metadata.items() if value is not None}
        save_file(load_file(fused_file), fused_file, kept)
        return fused_file

    return change


def test_a_fused_file_of_an_unknown_family_is_refused(
    with_metadata: Callable[..., Path],
) -> None:
    with pytest.raises(UnknownName, match="slide-swim"):
        load(with_metadata(family="slide-swim"))


@pytest.mark.parametrize(
    "config", [None, "", "{", "{}", '{"image_size": 3}', "[]", "null", '"x"'], ids=repr
)
def test_a_fused_file_without_a_readable_architecture_is_refused(
    with_metadata: Callable[..., Path], config: str | None
) -> None:
    with pytest.raises(ArchitectureError):
        load(with_metadata(config=config))


def test_a_fused_file_with_the_architecture_of_another_is_refused(
    with_metadata: Callable[..., Path], tiny_config: SlideSwinConfig
) -> None:
    other = dataclasses.replace(tiny_config, embed_dim=8)
    with pytest.raises(ArchitectureError):
        load(with_metadata(config=json.dumps(dataclasses.asdict(other))))
