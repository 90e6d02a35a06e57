"""The table of timings at the widths that terminals have."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from slide_deploy.bench.latency import Benchmark, Timing
from slide_deploy.protocols import Estimate
from slide_deploy.report.timings import timings_table

RUNTIME = "onnxruntime 1.31.1 CPUExecutionProvider"


def timing(name: str, threads: int) -> Timing:
    figures = {"median_ms": 1234.5, "p10_ms": 1001.0, "p90_ms": 2001.0, "throughput": 0.8}
    sizes = {"ratio": 1.25, "peak_memory_bytes": 94_500_000, "size_bytes": 597_300}
    return Timing(name, "onnx", RUNTIME, "float32", 1, threads, **figures, **sizes)


FOUND = Benchmark(
    timings=tuple(timing("slide_swin_digits_openvino_model", threads) for threads in (1, 16)),
    rounds=10,
    calls_per_round=5,
    warmup=5,
    toolchain={},
    processor="x86_64 AMD EPYC",
    cores=2,
    notes=("this machine is busy",),
)


def printed(width: int, found: Benchmark = FOUND) -> str:
    console = Console(width=width, file=StringIO(), legacy_windows=False)
    with console.capture() as captured:
        console.print(timings_table(found, width))
    return captured.get()


@pytest.mark.parametrize("width", [80, 120, 160])
def test_no_word_is_broken_and_the_figures_stay(width: int) -> None:
    def words(text: str) -> set[str]:
        return set(re.split(r"[\s│┃─━┏┓┗┛┡┩┳┻╇┴└┘├┤┼]+", text))

    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    assert words(text) <= words(printed(1000))
    for figure in ("1234.50 ms", "1.250", "│       1 │", "│      16 │"):
        assert figure in text


def test_processor_runtime_and_notes_are_told() -> None:
    text = printed(160)
    assert "x86_64 AMD EPYC, 2 cores." in text
    assert text.count(RUNTIME) == 1
    assert "note: this machine is busy" in text


def test_estimates_of_devices_are_told_as_such() -> None:
    estimate = Estimate("ethos-u85-256", "Vela 5.1.0", 1000.0, 1_832_172, 1.83, 54000, 0, 2.5, 400)
    simulated = replace(timing("a", 1), estimates=(estimate,))
    text = printed(160, replace(FOUND, timings=(simulated,)))
    assert "a: ethos-u85-256, estimated by Vela 5.1.0: 1,832,172 cycles (1.83 ms" in text
