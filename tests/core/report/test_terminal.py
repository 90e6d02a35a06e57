from __future__ import annotations

from rich.console import Console

from slide_deploy.report.terminal import report_table


def test_the_first_bad_block_is_named_with_the_problems(failed):
    console = Console(width=200, record=True, file=None, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(report_table(failed))
    assert "torchscript: the first block to leave the noise is layers.1.blocks.0.mlp" in (
        captured.get()
    )
