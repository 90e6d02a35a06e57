"""Checkpoints that would fill the memory or take minutes: refused within 5 s and 1 GB."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from slide_deploy import fuse, load
from slide_deploy.errors import CheckpointError

TinyFile = Callable[..., Path]
SECONDS, BYTES = 5, 2**30

# Time of the processor, since other work on the machine is none of ours; the first load imports.
MEASURED = """
import json, resource, sys, time
from pathlib import Path
from slide_deploy import load
from slide_deploy.errors import SlideDeployError

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

resource.setrlimit(resource.RLIMIT_AS, (24 * 2**30, 24 * 2**30))
load(sys.argv[1])
before = peak()
for path in sys.argv[2:]:
    refusal, started = "loaded", time.process_time()
    try:
        load(path)
    except SlideDeployError as error:
        refusal = error.message
    except Exception as error:
        refusal = f"CRASHED: {type(error).__name__} {error}"[:300]
    seconds = time.process_time() - started
    more = peak() - before - Path(path).stat().st_size
    print(json.dumps([Path(path).stem, refusal, seconds, more]), flush=True)
"""


def troubles(good: Path, files: Mapping[Path, str]) -> dict[str, Any]:
    """What went wrong with each file: it must be refused in these words, quickly, in little memory.

    The peak of memory is that of all files up to each.
    """
    command = [sys.executable, "-c", MEASURED, *map(str, (good, *files))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(files), done.stderr[-2000:]
    return {
        name: (refusal, seconds, more)
        for (name, refusal, seconds, more), words in zip(rows, files.values(), strict=True)
        if words not in refusal
        or refusal.startswith(("loaded", "CRASHED"))
        or len(refusal) > 500
        or seconds > SECONDS
        or more > BYTES
    }


def zipped(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickled)
        file.writestr("x/version", "3\n")
    return path


def deflated(path: Path) -> Path:
    """A record of 1.5 GB of zeros in a file of 1.5 MB."""
    torch.save({"model": {"a.weight": torch.ones(4)}}, path)
    with zipfile.ZipFile(path) as whole:
        records = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, content in records.items():
            file.writestr(name, content, zipfile.ZIP_STORED)
        folder = next(iter(records)).partition("/")[0]
        with file.open(f"{folder}/data/1", "w") as zeros:
            for _ in range(1500):
                zeros.write(bytes(10**6))
    return path


def many_keys(path: Path) -> Path:
    one = torch.ones(1)
    torch.save({f"module.layer{n}.weight": one for n in range(200_000)}, path)
    return path


def expanded(path: Path) -> Path:
    torch.save({"model": {"a.weight": torch.ones(1).expand(2**34)}}, path)
    return path


def expanded_beyond_addresses(path: Path) -> Path:
    torch.save({"model": {"a.weight": torch.ones(1).expand(2**31, 2**31)}}, path)
    return path


def shared_by_many(path: Path) -> Path:
    one = torch.ones(2**18)
    torch.save({f"layer{n}.weight": one for n in range(20_000)}, path)
    return path


def long_key(path: Path) -> Path:
    torch.save({"k" * 200_000_000: torch.ones(1)}, path)
    return path


def long_key_in_the_old_format(path: Path) -> Path:
    content = {"k" * 200_000_000: torch.ones(1)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def long_key_in_safetensors(path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_file({"k" * 50_000_000: torch.ones(1)}, path)
    return path


def nested(path: Path) -> Path:
    """A dict in a dict in a dict …, 200,000 times."""
    depth = 200_000
    return zipped(path, b"\x80\x02" + b"}X\1\0\0\0a" * depth + b"}" + b"s" * depth + b".")


def endless_list(path: Path) -> Path:
    content: list[None] = []
    torch.save(content, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"]q\0.", b"]" + b"Na" * 20_000_000 + b"."))
    return path


def mappings_in_circles(path: Path) -> Path:
    content: dict[str, Any] = {"epoch": 1}
    content |= {f"part{n}": content for n in range(1000)}
    torch.save(content, path)
    return path


FILES = {
    mappings_in_circles: "holds no state dict",
    deflated: "is compressed",
    many_keys: "200000 keys",
    expanded: "68.7 GB in a file of",
    expanded_beyond_addresses: "GB in a file of",
    shared_by_many: "GB in a file of",
    long_key: "beside its tensors",
    long_key_in_the_old_format: "a key of 200000000 characters",
    long_key_in_safetensors: "",
    nested: "not a PyTorch checkpoint",
    endless_list: "not a PyTorch checkpoint",
}


def test_a_file_takes_no_more_than_its_size_explains(tmp_path: Path, tiny_file: TinyFile) -> None:
    files = {make(tmp_path / f"{make.__name__}.pth"): words for make, words in FILES.items()}
    assert troubles(tiny_file("good.pth"), files) == {}


FUSED = (
    {"depths": [10**6, 2]},
    {"depths": [10**9, 2]},
    {"embed_dim": 10**6},
    {"window_size": 10**5},
    {"image_size": [2**15, 2**15]},
    {"image_size": [10**9, 10**9]},
    {"num_classes": 10**10},
    {"kernel_size": 10**5 + 1},
    {"mlp_ratio": 1e9},
)


def test_sizes_of_fused_weights_are_compared_before_a_module_is_built(
    tmp_path: Path, tiny_file: TinyFile
) -> None:
    good, path = tiny_file("good.pth"), tmp_path / "fused.safetensors"
    fuse(load(good), path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    files = {}
    for number, change in enumerate(FUSED):
        config = json.dumps(json.loads(metadata["config"]) | change)
        hostile = tmp_path / f"{number}-{next(iter(change))}.safetensors"
        save_file(load_file(path), hostile, {**metadata, "config": config})
        files[hostile] = ""
    assert troubles(good, files) == {}


def test_sizes_of_a_training_config_are_compared_before_a_module_is_built(
    tiny_file: TinyFile, training_config: Any, tiny_config: Any
) -> None:
    changes = (
        ("SWIN", "DEPTHS", [10**6, 2]),
        ("SWIN", "EMBED_DIM", 10**6),
        ("SLIDE", "KA", 10**5 + 1),
    )
    files = {}
    for node, field, value in changes:
        config = training_config(tiny_config)
        config["MODEL"][node][field] = value
        files[tiny_file(f"{field}.pth", config=config)] = ""
    assert troubles(tiny_file("good.pth"), files) == {}


class Shadowing:
    """Unpickles to an OrderedDict with `attributes` of its own."""

    def __init__(self, content: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        self.parts = content, attributes

    def __reduce__(self) -> tuple[Any, ...]:
        content, attributes = self.parts
        return OrderedDict, (), dict(attributes), None, iter(content.items())


@pytest.mark.parametrize("method", ["items", "get", "keys", "copy"])
@pytest.mark.parametrize("place", ["file", "state"])
def test_a_mapping_cannot_shadow_its_methods(
    tmp_path: Path, make_model: Callable[..., Any], method: str, place: str
) -> None:
    state: Any = make_model().state_dict()
    if place == "state":
        state = Shadowing(state, {method: 1})
    content = Shadowing({"model": state}, {method: 1} if place == "file" else {})
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=f"attribute '{method}' on a mapping"):
        load(tmp_path / "odd.pth")


@pytest.mark.parametrize("method", ["detach", "numel", "is_floating_point", "float"])
@pytest.mark.parametrize("kind", [torch.Tensor, torch.nn.Parameter])
def test_a_tensor_cannot_shadow_its_methods(
    tmp_path: Path, make_model: Callable[..., Any], method: str, kind: type
) -> None:
    state = make_model().state_dict()
    odd = state["head.weight"].clone()
    odd = torch.nn.Parameter(odd) if kind is torch.nn.Parameter else odd
    setattr(odd, method, "x")
    state["head.weight"] = odd
    torch.save({"model": state}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"head\.weight is of a subclass of Tensor"):
        load(tmp_path / "odd.pth")


def test_a_circular_file_is_read(tmp_path: Path, make_model: Callable[..., Any]) -> None:
    content: dict[str, Any] = {"model": make_model().state_dict()}
    content["again"] = content
    torch.save(content, tmp_path / "circle.pth")
    assert load(tmp_path / "circle.pth").family == "slide-swin"


def test_messages_cut_names(tiny_file: TinyFile, make_model: Callable[..., Any]) -> None:
    state = make_model().state_dict() | {"k" * 900: torch.ones(1)}
    with pytest.raises(CheckpointError) as refused:
        load(tiny_file(model=state))
    assert "k" * 79 + "…" in refused.value.message
    assert "k" * 80 not in refused.value.message
