"""The selection of lowerings: by name, from the tuning cache, from the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from slide_deploy.errors import UnknownName
from slide_deploy.fusion.branches import fuse
from slide_deploy.lowering import selection as choice
from slide_deploy.lowering.catalog import CANONICAL, lowerings
from slide_deploy.lowering.lowering import ImpossibleLowering
from slide_deploy.lowering.memory import low_memory
from slide_deploy.lowering.selection import check_name, lower_for, shape_key
from slide_deploy.models.slide_attention import AttentionConfig
from slide_deploy.types import TensorSpec

pytestmark = pytest.mark.usefixtures("default_lowerings")

IMAGE = (TensorSpec("image", (1, 3, 16, 16)),)
KEY = shape_key(AttentionConfig(4, 2), (8, 8))


@pytest.fixture
def lowerings_of(make_model):
    """lowerings_of(asked, runtime, tuned): (lowering, why) of each layer of the tiny model."""

    def choose(asked: str, runtime: str = "onnx", tuned: dict[str, str] | None = None):
        _, layers = lower_for(fuse(make_model(depths=(2, 2))), IMAGE, asked, runtime, tuned or {})
        assert [layer.layer for layer in layers] == [f"layers.0.blocks.{i}.attn" for i in (0, 1)]
        (kind,) = {(layer.form, layer.why) for layer in layers}
        return kind

    return choose


@pytest.mark.parametrize("asked", [known.name for known in lowerings()])
def test_a_name_wins_over_what_was_tuned(lowerings_of, asked: str) -> None:
    assert lowerings_of(asked, tuned={KEY: "im2col"}) == (asked, "asked for")


def test_what_was_tuned_wins_over_the_table(lowerings_of) -> None:
    assert lowerings_of("auto", tuned={KEY: "slices"}) == ("slices", "tuned on this machine")


@pytest.mark.parametrize("tuned", [{KEY: "no such lowering"}, {"another shape": "slices"}])
def test_what_was_tuned_for_something_else_is_not_used(lowerings_of, tuned: dict[str, str]) -> None:
    assert lowerings_of("auto", tuned=tuned) == lowerings_of("auto")


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torchscript", "coreml"])
def test_the_table_knows_every_target(lowerings_of, runtime: str) -> None:
    lowering, why = lowerings_of("auto", runtime)
    assert lowering in {known.name for known in lowerings()} - {CANONICAL}
    assert why.startswith(("table of 20", f"default for {runtime}"))


def test_the_table_may_know_another_lowering_at_a_precision(make_model) -> None:
    def at(precision: str, runtime: str) -> str:
        _, layers = lower_for(fuse(make_model()), IMAGE, "auto", runtime, {}, precision=precision)
        return layers[0].form

    assert at("w8a8", "onnx") != at("float32", "onnx")
    assert at("w8a8", "openvino") == at("float32", "openvino")


def test_a_runtime_that_nobody_measured_gets_the_canonical_lowering(lowerings_of) -> None:
    assert lowerings_of("auto", "abacus") == (CANONICAL, "the table has no measurements for abacus")


def test_the_processor_family_decides_the_row(
    lowerings_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"forms": {"onnx": {"arm": "slices", "other": "flat"}}, "measured": {"date": "today"}}
    monkeypatch.setattr(choice, "_table", lambda: table)
    monkeypatch.setattr(choice, "processor_family", lambda: "arm")
    assert lowerings_of("auto") == ("slices", "table of today, arm processors")
    monkeypatch.setattr(choice, "processor_family", lambda: "apple")
    assert lowerings_of("auto") == ("flat", "table of today, other processors")


def test_low_memory_takes_the_smallest_peak(lowerings_of) -> None:
    lowering, why = lowerings_of("low-memory")
    assert (lowering, why) == (
        low_memory("", AttentionConfig(4, 2), (8, 8)),
        "smallest peak memory",
    )


def test_a_lowering_that_cannot_express_the_module_gives_way_and_says_so(
    lowerings_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise ImpossibleLowering("its kernel has no middle")

    impossible = choice.lowering_named("two-level")
    monkeypatch.setattr(
        choice,
        "lowering_named",
        lambda name: type(impossible)(name, refuse),
    )
    lowering, why = lowerings_of("auto")
    assert lowering == CANONICAL
    assert why == "two-level is not possible: its kernel has no middle"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="two-level"):
        check_name("twolevel")


def test_the_command_line_refuses_an_unknown_lowering(run_cli, tiny_file, in_tmp: Path) -> None:
    done = run_cli("export", "-t", "onnx", "--lowering", "twolevel", tiny_file())
    done.refused(2, "twolevel", "two-level")
