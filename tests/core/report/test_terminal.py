from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from slide_deploy.report.terminal import report_table


def test_the_first_bad_block_is_named_with_the_problems(failed):
    console = Console(width=200, record=True, file=None, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(report_table(failed))
    assert (
        "torchscript: the first block whose error exceeds the noise is layers.1.blocks.0.mlp"
        in (captured.get())
    )


def printed(*arguments, **options) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(report_table(*arguments, **options))
    return captured.get()


def test_a_float16_row_shows_decibels_and_no_multiple_of_the_noise(sample):
    text = printed(sample.report(sample.float16("coreml", "a.mlpackage")))
    assert "2.5 ≤ 10 dB" in text
    assert "3333" not in text
    assert "1 operation in another type" in text


def test_details_of_a_failure_are_shown_on_request_alone(sample):
    check = replace(sample.not_run("onnx", "a.onnx"), details="Traceback: KeyError\n")
    assert "KeyError" not in printed(sample.report(check))
    assert "KeyError" in printed(sample.report(check), debug=True)
