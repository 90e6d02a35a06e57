"""Kinds of checkpoints and what happens with each; `make checkpoint-kinds` writes the page."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from slide_deploy import fuse, load
from slide_deploy.errors import SlideDeployError
from slide_deploy.loading.loader import Model
from slide_deploy.models.slide_swin import SlideSwin
from tests.tiny import TINY

PAGE = Path(__file__).parents[1] / "docs" / "checkpoints.md"
MARK = "<!-- written by `make checkpoint-kinds` -->\n"

State = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One kind of file: `save` writes it into a folder and returns what a user would give.

    `words` stand in what happens. `weights` are those that are loaded; empty where it is refused.
    """

    kind: str
    save: Callable[[Path], Path]
    words: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "model"


@cache
def drawn(seed: int) -> State:
    """Weights of a tiny Slide-Swin; seed 1 stands for averaged ones."""
    state = SlideSwin(TINY).state_dict()
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and not key.endswith(("dep_conv.weight", "attn_mask"))
        else value
        for key, value in state.items()
    }


MODEL, AVERAGED = partial(drawn, 0), partial(drawn, 1)


def saved(content: Callable[[], Any], name: str = "model.pth") -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        torch.save(content(), folder / name)
        return folder / name

    return save


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def backbone() -> State:
    """As a detector has it: no classifier, a norm on each stage's map, other parts beside it."""
    own = {key: value for key, value in MODEL().items() if not key.startswith(("norm.", "head."))}
    norms = {f"norm{n}.{part}": torch.ones(4 << n) for n in (0, 1) for part in ("weight", "bias")}
    others = {"neck.fpn.weight": torch.ones(2), "rpn_head.conv.weight": torch.ones(2)}
    return prefixed("backbone.", own | norms) | others


def safetensors(folder: Path) -> Path:
    save_file(dict(MODEL()), folder / "model.safetensors")
    return folder / "model.safetensors"


def hub_folder(folder: Path, **config: Any) -> Path:
    (folder / "slide-tiny").mkdir()
    safetensors(folder / "slide-tiny")
    written = {"architectures": ["SlideSwin"], "image_size": 16, **config}
    (folder / "slide-tiny" / "config.json").write_text(json.dumps(written))
    return folder / "slide-tiny"


def fused(folder: Path) -> Path:
    fuse(load(saved(MODEL)(folder)), folder / "fused.safetensors")
    return folder / "fused.safetensors"


def pointer(folder: Path) -> Path:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    (folder / "model.pth").write_text(text)
    return folder / "model.pth"


def adapter_folder(folder: Path) -> Path:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    return folder / "adapter"


def sharded_folder(folder: Path) -> Path:
    (folder / "large").mkdir()
    (folder / "large" / "model.safetensors.index.json").write_text("{}")
    return folder / "large"


def torchscript(folder: Path) -> Path:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
        torch.jit.save(module, str(folder / "model.pth"))
    return folder / "model.pth"


COUNTERS = {"total_ops": torch.zeros(1), "layers.0.total_params": torch.zeros(1)}
FEATURES = {"features": True}

CASES = (
    Case("bare state dict", saved(MODEL)),
    Case("safetensors", safetensors),
    Case("`model`, `state_dict`", saved(lambda: {"state_dict": MODEL(), "epoch": 3})),
    Case("`model_state_dict`", saved(lambda: {"model_state_dict": MODEL(), "optimizer": {}})),
    Case("DeepSpeed: `module`", saved(lambda: {"module": MODEL(), "global_steps": 9})),
    Case(
        "`model` beside `model_ema` or `state_dict_ema`",
        saved(lambda: {"model": MODEL(), "model_ema": AVERAGED()}),
        weights="ema",
    ),
    Case(
        "the same, the other weights",
        saved(lambda: {"model": MODEL(), "model_ema": AVERAGED()}),
        options={"weights": "model"},
    ),
    Case(
        "`{'ema': {'module': …}}`",
        saved(lambda: {"model": MODEL(), "ema": {"module": AVERAGED(), "updates": 7}}),
        weights="ema",
    ),
    Case(
        "MMEngine with `ema_state_dict` (MMEngine saves the averaged weights under `state_dict`)",
        saved(
            lambda: {
                "state_dict": AVERAGED(),
                "ema_state_dict": prefixed("module.", MODEL()) | {"steps": torch.tensor(9)},
                "message_hub": {},
            }
        ),
        "steps (1 key)",
        weights="ema",
    ),
    Case("DDP, `torch.compile`", saved(lambda: prefixed("module._orig_mod.", MODEL()))),
    Case(
        "Lightning",
        saved(lambda: {"state_dict": prefixed("model.", MODEL()), "pytorch-lightning_version": ""}),
        "the weights under 'model.' are taken",
    ),
    Case(
        "any other prefix, such as `encoder.` or `slide_swin.`",
        saved(lambda: prefixed("net.slide_swin.", MODEL())),
        "the weights under 'net.slide_swin.' are taken",
    ),
    Case(
        "student beside teacher",
        saved(lambda: prefixed("student.", MODEL()) | prefixed("teacher.", AVERAGED())),
        "holds several models: student., teacher.",
        weights="",
    ),
    Case(
        "the same",
        saved(lambda: prefixed("student.", MODEL()) | prefixed("teacher.", AVERAGED())),
        "left out: teacher",
        {"prefix": "student"},
    ),
    Case(
        "detector or segmentor (mmdetection, mmsegmentation)",
        saved(lambda: {"state_dict": backbone(), "meta": {}}),
        "left out: neck (1 key), rpn_head (1 key)",
        FEATURES,
    ),
    Case("the same", saved(lambda: {"state_dict": backbone()}), "--features", weights=""),
    Case(
        "weights elsewhere in the file",
        saved(lambda: {"nets": {"student": MODEL()}}),
        "pass --key nets.student",
        weights="",
    ),
    Case(
        "the same",
        saved(lambda: {"nets": {"student": MODEL()}}),
        "the weights at 'nets.student' are taken",
        {"key": "nets.student"},
    ),
    Case("Hugging Face folder (`config.json` beside `model.safetensors`)", hub_folder),
    Case("Hugging Face folder in several files", sharded_folder, "several files", weights=""),
    Case("what `slide-deploy fuse` writes", fused, "fused weights only", weights="fused"),
    Case("with counters of thop", saved(lambda: MODEL() | COUNTERS), "total_ops, total_params"),
    Case("LoRA adapters", adapter_folder, "LoRA", weights=""),
    Case(
        "LoRA adapters in a state dict",
        saved(lambda: {"layers.0.attn.qkv.lora_A.weight": torch.ones(2, 4)}),
        "LoRA",
        weights="",
    ),
    Case(
        "quantized by `torch.ao`",
        saved(
            lambda: OrderedDict(
                {
                    "head.scale": torch.tensor(1.0),
                    "head.zero_point": torch.tensor(0),
                    "head._packed_params._packed_params": (torch.ones(2), None),
                }
            )
        ),
        "quantized weights",
        weights="",
    ),
    Case(
        "quantized by bitsandbytes",
        saved(lambda: {**MODEL(), "head.weight": torch.ones(9, 1, dtype=torch.uint8)}),
        "quantized weights (head.weight)",
        weights="",
    ),
    Case("git-LFS pointer", pointer, "git lfs pull", weights=""),
    Case("TorchScript archive", torchscript, "TorchScript", weights=""),
    Case(
        "a pickled module",
        saved(lambda: torch.nn.Linear(2, 2)),
        "torch.nn.modules.linear.Linear",
        weights="",
    ),
)


def outcome(case: Case, folder: Path) -> tuple[str, Model | None]:
    """What loading does, in words: what is chosen and left out, or the refusal and its hint."""
    try:
        model = load(case.save(folder), **case.options)
    except SlideDeployError as error:
        return f"refused: {error.message} → {error.hint}".replace(f"{folder}/", ""), None
    plain = load(saved(MODEL, "plain.pth")(folder)).notes
    notes = [note for note in model.notes if note not in plain]
    return "; ".join((f"loads the {model.source.weights} weights", *notes)), model


def page() -> str:
    """The page with its table written anew."""
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found, _ = outcome(case, Path(folder))
        given = " ".join(
            f"`--{name}`" if value is True else f"`--{name} {value}`"
            for name, value in case.options.items()
        )
        rows.append(f"| {case.kind} | {given} | {found.replace('|', chr(92) + '|')} |\n")
    text = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    return "".join(
        (text, MARK, "\n| checkpoint | options | what happens |\n|---|---|---|\n", *rows)
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
