"""The page in docs/: what was run, and every table of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from benchmarks.mutation.analysis import localised, power
from benchmarks.mutation.outcome import Outcome, Results, Status
from benchmarks.mutation.plan import Plan
from benchmarks.mutation.sampling import KINDS
from benchmarks.mutation.tables import (
    as_markdown,
    headroom_rows,
    kind_rows,
    probe_rows,
    real_rows,
    undetected_rows,
)
from slide_deploy import toolchain
from slide_deploy.parity.comparison import NOISE_MULTIPLE, POOLED_MULTIPLE, SYSTEMATIC_MULTIPLE

__all__ = ["document"]

TEXT = """\
# What `verify` notices

Written by `make mutation`; do not edit. Artifacts are broken on purpose, in the ways converters
and people break them, and judged by the code of `slide-deploy verify`, by their numbers alone:
without a manifest, whose hashes would give most of them away.

    {command}

{date}, {minutes:.0f} minutes on {jobs} processes, sites sampled with seed {seed}; {versions}.

**Power {power}**: {detected} of {relevant} mutants that change anything were detected;
{equivalent} more change nothing beyond the noise, {mended} were mended.
**{alarms} false alarms** in {clean} clean exports of {seeds} differently seeded models and
{real} of the models below. Where a mutant has one site, the block that the report names is the
block that was broken in **{named} of {localised}** ({share}).

## Mutants

{kinds}
Each cell: detected / equivalent / missed / mended. Models: {models}.

| mutation | what happens |
| --- | --- |
{explained}

- **file**: the tensor is changed in the artifact's own bytes (for Core ML's GELU, in its
  program). **conversion**: the mistake is made in the module, which the real converter then
  exports; so are the few tensors that a converter folded into something that is not found.
- **equivalent**: on a thousand random inputs (200 draws each of the probes normal, patchwork,
  impulses, large and tiny, at other seeds) no output changes by more than the model's own float32
  rounding does, max |y32 − y64|. Measured in float64 on the broken module, the twin of the broken
  artifact; only mutants that were not detected are asked.
- **mended**: the mistake is in the file, but not in what is computed (bytes that nothing reads, or
  an attribute that the runtime or converter puts right): where it would show most of a thousand
  inputs, the artifact gives the clean one's output to the last bit. Counted as neither.
- **not made**: the converter refused the broken model.
- `slide-deploy verify` in its own processes gave the same verdict on {agreed} of {asked} of these
  mutants: per format the faintest that was detected, and the loudest that was not.

{undetected}
## Headroom

A float32 artifact passes where, for each output, on every probe the largest error is at most
{multiple:g} × the noise floor, over all probes together the error is at most {pooled:g} × the noise
(both root mean square), and what of it returns on the echoes, near copies of one input that round
differently, is at most {repeated:g} × the noise. The noise is that of PyTorch's own float32 against
float64; for outputs of fewer than 100 values a probe's floor is never below twice the noise that
is typical of the probes, since few values may all be rounded luckily.

{headroom}
The same on models that are there, as worst probe · all probes · repeated:

{real_table}
## Probes

Mutants of all formats that a probe notices; then in the order in which they are worth having,
each with those above it.

{probes}"""


def document(results: Results, plan: Plan, command: str, seconds: float) -> str:
    """Markdown."""
    outcomes = results.outcomes
    count = {status: sum(o.status is status for o in outcomes) for status in Status}
    named, everywhere = localised(outcomes)
    agreed = sum(check.exit_code == check.expected for check in results.cross_checks)
    return TEXT.format(
        command=command,
        date=date.today().isoformat(),
        minutes=seconds / 60,
        jobs=plan.jobs,
        seed=plan.seed,
        versions=", ".join(f"{name} {version}" for name, version in toolchain().items()),
        power=f"{power(outcomes):.2%}",
        detected=count[Status.DETECTED],
        relevant=count[Status.DETECTED] + count[Status.MISSED],
        equivalent=count[Status.EQUIVALENT],
        mended=count[Status.MENDED],
        alarms=sum(bool(one.problem) for one in (*results.clean, *results.real)),
        clean=len(results.clean),
        seeds=plan.seeds,
        real=len(results.real),
        named=named,
        localised=everywhere,
        share=f"{named / everywhere:.1%}" if everywhere else "–",
        kinds=as_markdown(kind_rows(outcomes)),
        models=", ".join(path.stem for path in plan.benches),
        explained="\n".join(f"| {kind.name} | {kind.what} |" for kind in KINDS),
        agreed=agreed,
        asked=len(results.cross_checks),
        undetected=_undetected(outcomes),
        multiple=NOISE_MULTIPLE,
        pooled=POOLED_MULTIPLE,
        repeated=SYSTEMATIC_MULTIPLE,
        headroom=as_markdown(headroom_rows(results.clean)),
        real_table=as_markdown(real_rows(results.real)),
        probes=as_markdown(probe_rows(results)),
    )


def _undetected(outcomes: Sequence[Outcome]) -> str:
    rows = undetected_rows(outcomes)
    if not rows.cells:
        return ""
    text = "Not detected, with the largest change on the thousand inputs in units of the noise:\n\n"
    return text + as_markdown(rows)
