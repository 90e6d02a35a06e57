"""Invalid files and options give one line, a hint, an exit code, and no incomplete file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt

RunCli = Callable[..., Any]
TinyFile = Callable[..., Path]
Listing = Callable[[Path], dict[str, bytes]]

Damage = Callable[[Path], None]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def random_bytes(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def text(path: Path) -> None:
    path.write_text("<!DOCTYPE html><title>404: not found</title>\n")


def torchscript(path: Path) -> None:
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(module, str(path))


def a_list(path: Path) -> None:
    torch.save([1, 2, 3], path)


def no_tensors(path: Path) -> None:
    torch.save({"epoch": 3, "name": "slide"}, path)


def empty_dictionary(path: Path) -> None:
    torch.save({}, path)


def archive_without_directory(path: Path) -> None:
    """The end of a zip file whose list of files is missing."""
    end = b"PK\5\6" + b"\0" * 4 + b"\1\0\1\0" + b"\x40\0\0\0" + b"\x10\0\0\0" + b"\0\0"
    path.write_bytes(b"x" * 200 + end)


def other_archive(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "not a checkpoint")


FILES: list[Any] = [
    (empty, "is empty"),
    (truncated, "truncated"),
    (random_bytes, "not a PyTorch checkpoint"),
    (text, "not a PyTorch checkpoint"),
    (torchscript, "TorchScript archive"),
    (a_list, "contains a list"),
    (no_tensors, "no state dict"),
    (empty_dictionary, "no state dict"),
    (archive_without_directory, "not a PyTorch checkpoint"),
    (other_archive, "not a PyTorch checkpoint"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("damage", "words"), FILES)
def test_files_that_are_no_checkpoint(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, damage: Damage, words: str
) -> None:
    damage(tiny_file("model.pth"))
    run_cli("export", "model.pth", "-t", "torchscript").refused(2, "model.pth", words)
    assert os.listdir(in_tmp) == ["model.pth"]


def test_missing_file(run_cli: RunCli, in_tmp: Path) -> None:
    run_cli("export", "model.pth", "-t", "onnx").refused(2, "model.pth does not exist")
    assert os.listdir(in_tmp) == []


def test_directory(run_cli: RunCli, in_tmp: Path) -> None:
    (in_tmp / "model.pth").mkdir()
    run_cli("export", "model.pth", "-t", "onnx").refused(2, "model.pth is a directory")


@pytest.mark.parametrize("command", ["export", "inspect", "fuse", "verify"])
def test_every_command_refuses_a_missing_checkpoint(
    run_cli: RunCli, in_tmp: Path, command: str
) -> None:
    arguments = {
        "export": ("no.pth", "-t", "torchscript"),
        "inspect": ("no.pth",),
        "fuse": ("no.pth", "-o", "fused.safetensors"),
        "verify": ("a.onnx", "--against", "no.pth"),
    }[command]
    run_cli(command, *arguments).refused(2, "no.pth does not exist")
    assert os.listdir(in_tmp) == []


State = dict[str, torch.Tensor]


def nan(state: State) -> None:
    state["layers.0.blocks.0.mlp.fc1.weight"][0, 0] = float("nan")


def infinite(state: State) -> None:
    state["layers.0.blocks.0.mlp.fc1.weight"][0, 0] = float("inf")


def missing(state: State) -> None:
    del state["layers.1.blocks.0.norm1.weight"]


def unexpected(state: State) -> None:
    state["layers.1.blocks.0.gate.weight"] = torch.ones(1)


def another_shape(state: State) -> None:
    state["head.weight"] = torch.ones(4, 8)


def no_pair(state: State) -> None:
    for key in [key for key in state if "dep_conv1" in key or "dep_conv" in key]:
        del state[key]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (nan, "fc1.weight has NaN or infinite values"),
        (infinite, "fc1.weight has NaN or infinite values"),
        (missing, "lacks layers.1.blocks.0.norm1.weight"),
        (unexpected, "layers.1.blocks.0.gate.weight"),
        (another_shape, "head.weight is (4, 8), but its architecture has (3, 8)"),
        (no_pair, "no Slide Attention: no layer with dep_conv"),
    ],
)
def test_weights_that_cannot_be_meant(
    run_cli: RunCli,
    in_tmp: Path,
    tiny_file: TinyFile,
    make_model: Callable[..., Any],
    damage: Callable[[State], None],
    words: str,
) -> None:
    state = make_model().state_dict()
    damage(state)
    tiny_file("model.pth", model=state)
    run_cli("export", "model.pth", "-t", "torchscript").refused(2, words)
    assert os.listdir(in_tmp) == ["model.pth"]


def test_a_config_that_the_weights_contradict(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, training_config: Any, tiny_config: Any
) -> None:
    config = training_config(tiny_config)
    config["MODEL"]["SWIN"]["EMBED_DIM"] = 8
    tiny_file("model.pth", config=config)
    run_cli("inspect", "model.pth").refused(2, "but its architecture has")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("NUM_HEADS", [3, 2], id="heads"),
        pytest.param("KA", 4, id="kernel"),
    ],
)
def test_a_config_of_sizes_that_cannot_be(
    run_cli: RunCli,
    in_tmp: Path,
    tiny_file: TinyFile,
    training_config: Any,
    tiny_config: Any,
    key: str,
    value: Any,
) -> None:
    config = training_config(tiny_config)
    node = config["MODEL"]["SLIDE" if key == "KA" else "SWIN"]
    node[key] = value
    tiny_file("model.pth", config=config)
    run_cli("inspect", "model.pth").refused(2)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("onxx", "onnx"),
        ("coremll", "coreml"),
        ("open-vino", "openvino"),
        ("torchscrip", "torchscript"),
        ("al", "all"),
    ],
)
def test_an_unknown_target_is_answered_with_the_nearest(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, typed: str, offered: str
) -> None:
    tiny_file("model.pth")
    run_cli("export", "model.pth", "-t", typed).refused(2, repr(typed), repr(offered))
    assert os.listdir(in_tmp) == ["model.pth"]


def test_a_target_near_to_nothing_is_answered_with_all(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile
) -> None:
    tiny_file("model.pth")
    run_cli("export", "model.pth", "-t", "zzz").refused(
        2, "coreml", "onnx", "openvino", "torchscript"
    )


@pytest.mark.parametrize(
    "size", ["", "0", "-1", "big", "16x", "x16", "16x16x16", "16.5", "1e3", "16x0", "²", " "]
)
def test_what_is_no_image_size(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, size: str
) -> None:
    tiny_file("model.pth")
    run_cli("inspect", "model.pth", f"--image-size={size}").refused(2, "--image-size")


@pytest.mark.parametrize("size", ["15", "17x16", "2", "12x16"])
def test_an_image_size_that_the_model_cannot_have(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, size: str
) -> None:
    tiny_file("model.pth")
    result = run_cli("export", "model.pth", "-t", "torchscript", "--image-size", size)
    if size == "12x16":  # a multiple, but windows of 2 do not tile 3×4
        result.refused(2, "window size 2")
    else:
        result.refused(2, "image size", "multiple of 4")
    assert os.listdir(in_tmp) == ["model.pth"]


def test_an_image_size_of_five_thousand_digits(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile
) -> None:
    tiny_file("model.pth")
    run_cli("inspect", "model.pth", "--image-size", "4" * 5000).refused(2)


def test_an_image_that_no_memory_holds(run_cli: RunCli, in_tmp: Path, lone_module: Path) -> None:
    result = run_cli(
        "export", lone_module, "-t", "torchscript", "-o", "out", "--image-size", "20000000"
    )
    assert result.code in (1, 2), result.err
    assert "Traceback" not in result.out + result.err
    assert "memory" in result.out + result.err
    assert not any((in_tmp / "out").glob("*.torchscript"))


def test_weights_that_the_file_does_not_have(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile
) -> None:
    tiny_file("model.pth")
    run_cli("inspect", "model.pth", "--weights", "ema").refused(2, "'ema'", "--weights model")


def test_an_output_folder_that_is_a_file(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile
) -> None:
    tiny_file("model.pth")
    (in_tmp / "out").write_text("mine")
    run_cli("export", "model.pth", "-t", "torchscript", "-o", "out").refused(2, "out")
    assert (in_tmp / "out").read_text() == "mine"


def test_an_output_folder_below_a_file(run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile) -> None:
    tiny_file("model.pth")
    (in_tmp / "out").write_text("mine")
    run_cli("export", "model.pth", "-t", "torchscript", "-o", "out/below").refused(2, "out")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_an_output_folder_that_cannot_be_made(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile
) -> None:
    tiny_file("model.pth")
    run_cli("export", "model.pth", "-t", "torchscript", "-o", "/proc/out").refused(2, "/proc/out")


def test_fusing_below_a_file(run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile) -> None:
    tiny_file("model.pth")
    run_cli("fuse", "model.pth", "-o", "model.pth/fused.safetensors").refused(2, "model.pth")
    assert os.listdir(in_tmp) == ["model.pth"]


def test_fusing_into_another_kind_of_file(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile
) -> None:
    tiny_file("model.pth")
    run_cli("fuse", "model.pth", "-o", "fused.pth").refused(2, ".safetensors")
    assert os.listdir(in_tmp) == ["model.pth"]


def test_fusing_does_not_replace_a_folder(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile
) -> None:
    tiny_file("model.pth")
    mine = in_tmp / "mine.safetensors" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("three years")
    result = run_cli("fuse", "model.pth", "-o", "mine.safetensors")
    assert mine.exists(), "a user's folder was deleted"
    result.refused(2, "mine.safetensors")


@pytest.fixture
def earlier(in_tmp: Path) -> Path:
    """An output folder with what an earlier export may have left there."""
    folder = in_tmp / "out"
    (folder / "model.mlpackage").mkdir(parents=True)
    for name in ("model.torchscript", "model.mlpackage/weight.bin", "report.json"):
        (folder / name).write_bytes(b"good " + name.encode())
    return folder


def test_a_failed_export_leaves_earlier_artifacts_as_they_were(
    run_cli: RunCli, earlier: Path, tiny_file: TinyFile, listing: Listing
) -> None:
    before = listing(earlier)
    truncated(tiny_file("model.pth"))
    run_cli("export", "model.pth", "-t", "torchscript", "-o", "out").refused(2)
    assert listing(earlier) == before


def test_a_failed_fusion_leaves_an_earlier_file_as_it_was(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile
) -> None:
    path = tiny_file("model.pth")
    assert run_cli("fuse", "model.pth", "-o", "fused.safetensors").code == 0
    before = (in_tmp / "fused.safetensors").read_bytes()
    truncated(path)
    run_cli("fuse", "model.pth", "-o", "fused.safetensors").refused(2)
    assert (in_tmp / "fused.safetensors").read_bytes() == before


def test_a_converter_that_breaks_leaves_an_earlier_artifact_as_it_was(
    run_cli: RunCli,
    in_tmp: Path,
    earlier: Path,
    tiny_file: TinyFile,
    listing: Listing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_file("model.pth")
    before = listing(earlier)

    def breaks(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("aten::nonsense is not supported")

    monkeypatch.setattr(torch.jit, "trace", breaks)
    result = run_cli("export", "model.pth", "-t", "torchscript", "-o", "out")
    assert result.code == 1
    assert "aten::nonsense is not supported" in result.out
    assert "Traceback" not in result.out + result.err
    after = listing(earlier)
    described = ("manifest.json", "report.json", "report.html")  # these say that the export failed
    assert {name: data for name, data in after.items() if name not in described} == {
        name: data for name, data in before.items() if name not in described
    }


def test_a_deployment_target_nobody_knows_changes_nothing(
    run_cli: RunCli, earlier: Path, tiny_file: TinyFile, listing: Listing
) -> None:
    """The first target was already converted when the second is refused."""
    tiny_file("model.pth")
    before = listing(earlier)
    targets = ("-t", "openvino", "-t", "coreml", "--deployment-target", "iOS99")
    run_cli("export", "model.pth", *targets, "-o", "out").refused(2, "iOS99")
    assert listing(earlier) == before


@pytest.mark.parametrize("name", ["[bold]model.pth", "model[red].pth"])
def test_a_file_name_is_no_markup(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, name: str
) -> None:
    tiny_file(name)
    result = run_cli("inspect", name)
    assert result.code == 0, result.err
    assert name in result.out


def test_the_name_of_an_output_folder_is_no_markup(
    run_cli: RunCli, in_tmp: Path, lone_module: Path
) -> None:
    export = ("export", lone_module, "--image-size", "6x7", "-t", "torchscript")
    assert run_cli(*export, "-o", "out[/x]").code == 0


FORGED = "a\x1b[31m\nerror: forged\r\x9b2J<img src=x>.pth"


def printed(result: Any) -> str:
    """All that a command printed, after a look for what must not be there raw."""
    text = str(result.out + result.err)
    assert not set(text) & set("\x1b\r\x9b")
    assert not any(line.startswith("error: forged") for line in text.splitlines())
    return text


@pytest.mark.parametrize("command", ["inspect", "fuse", "export", "verify"])
def test_a_file_name_moves_no_cursor_and_forges_no_line(
    run_cli: RunCli, in_tmp: Path, lone_module: Path, command: str
) -> None:
    name = FORGED
    shutil.copy(lone_module, name)
    size = ("--image-size", "6x7")
    more = {
        "inspect": (name, *size),
        "fuse": (name, *size, "-o", f"{name}.safetensors"),
        "export": (name, *size, "-t", "torchscript", "--report", "report.md"),
        "verify": (f"{name}.onnx", "--against", name, *size),
    }[command]
    assert "forged" in printed(run_cli(command, *more))
    if command == "export":
        page = MarkdownIt("commonmark", {"html": True}).render(Path("report.md").read_text())
        assert "img src=x" in page
        assert "<img" not in page


def test_a_traceback_moves_no_cursor(run_cli: RunCli, in_tmp: Path) -> None:
    text = run_cli("inspect", FORGED, "--debug").err
    assert "Traceback" in text
    assert not set(text) & set("\x1b\r\x9b")


def test_names_in_notes_move_no_cursor(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, make_model: Callable[..., Any]
) -> None:
    state = {f"net.{key}": value for key, value in make_model().state_dict().items()}
    tiny_file("model.pth", model={**state, f"{FORGED}.weight": torch.ones(1)})
    assert "left out" in printed(run_cli("inspect", "model.pth"))


def test_a_key_cannot_forge_lines(
    run_cli: RunCli, in_tmp: Path, tiny_file: TinyFile, make_model: Callable[..., Any]
) -> None:
    state = make_model().state_dict()
    state["x\n  → all is well\nerror: none"] = torch.ones(1)
    tiny_file("model.pth", model=state)
    run_cli("inspect", "model.pth").refused(2)
