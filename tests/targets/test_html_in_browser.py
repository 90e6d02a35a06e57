"""The HTML report in a browser: its content, and no network requests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.parity.comparison import Comparison
from slide_deploy.report.html import render
from slide_deploy.types import Fidelity, Precision, Verdict
from slide_deploy.verification.record import BlockError, Check, Report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), str(MAC) if MAC.exists() else None)

OWN = "not an origin"

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser found: none of {', '.join(NAMES)} is installed"
)

PROBES = ("normal", "zeros", "natural", "<script>alert(1)</script>")


def sample_report() -> Report:
    ratios = (0.8, 1.7, 4e5, 0.0)
    check = Check(
        target="onnx",
        path='model"><script>document.title="broken"</script>.onnx',
        precision=Precision.FLOAT32,
        verdict=Verdict.FAIL,
        problems=("probe natural, output logits: error 1.6e-01 is 400000 times the noise",),
        gate="error ≤ 10 × the model's own float32 noise, per probe and output",
        sha256="ab" * 32,
        size_bytes=1_234_567,
        fidelity=Fidelity.NATIVE,
        runtime="onnxruntime 1.31.1",
        ran_precision="float32",
        max_abs_error=0.16,
        noise_floor=4e-7,
        noise_ratio=4e5,
        snr_db=12.0,
        operators={"ai.onnx::Conv": 9, "ai.onnx::Add": 56},
        probes=dict.fromkeys(PROBES, "a reason"),
        comparisons=tuple(
            Comparison(probe, "logits", ratio * 4e-7, 4e-7, ratio, 12.0, "", 1, 1, 0)
            for probe, ratio in zip(PROBES, ratios, strict=True)
        ),
        trace=tuple(
            BlockError(f"layers.{i}.blocks.0.attn", r * 4e-7, 4e-7, r, True)
            for i, r in enumerate((0.9, 1.1, 3e5, 4e5))
        ),
        first_bad_block="layers.2.blocks.0.attn",
    )
    other = replace(check, target="coreml", path="model.mlpackage", verdict=Verdict.PASS)
    other = replace(other, problems=(), trace=(), first_bad_block=None, comparisons=())
    source = SourceRecord("model.pth", "cd" * 32, "ema")
    command = "slide-deploy export -t all model.pth"
    versions = {"python": "3.12.1"}
    return Report(Verdict.FAIL, source, "tiny", "float64 model", (check, other), command, versions)


@pytest.fixture
def browse(tmp_path):
    """Open the sample page, or a `source`; gives stdout, stderr and every address asked for."""
    page = tmp_path / "report.html"

    def run(*flags: str, source: str | None = None) -> tuple[str, str, list[str]]:
        page.write_text(source or render(sample_report()), encoding="utf-8")
        log = tmp_path / "net.json"
        done = subprocess.run(
            [
                *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *("--disable-component-update", "--hide-scrollbars", "--enable-logging=stderr"),
                *(f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}"),
                *("--host-resolver-rules=MAP * ~NOTFOUND", *flags, page.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout, done.stderr, addresses(log)

    return run


def addresses(log: Path) -> list[str]:
    """Addresses that the page asked for, from the browser's network log.

    The browser has questions of its own (its version, the time): they have no origin.
    """
    found = json.loads(log.read_text(encoding="utf-8"))
    events = [event.get("params") or {} for event in found["events"]]
    return [p["url"] for p in events if "url" in p and p.get("initiator", OWN) != OWN]


def test_the_page_shows_the_verdict_and_runs_nothing(browse):
    dom, errors, asked = browse("--dump-dom")
    assert "<title>tiny: FAILED – slide-deploy</title>" in dom
    assert '<strong id="verdict">Failed</strong>' in dom
    assert "first block whose error exceeds the noise" in dom
    assert dom.count("<svg") > 4
    assert "<script" not in dom
    assert "CONSOLE" not in errors, errors
    assert not [address for address in asked if not address.startswith(("file:", "data:"))]


def test_a_page_that_asks_or_stumbles_would_be_seen(browse):
    source = '<img src="http://example.invalid/x.png"><script>nothing.there()</script>'
    _, errors, asked = browse("--dump-dom", source=source)
    assert "http://example.invalid/x.png" in asked
    assert "CONSOLE" in errors


def test_light_and_dark_are_two_pages_for_the_eye(browse, tmp_path):
    image = pytest.importorskip("PIL.Image")
    # Where to keep the pictures for people to look at.
    folder = Path(os.environ.get("SLIDE_DEPLOY_SCREENSHOTS", tmp_path))
    shades = {}
    for scheme, flag in (("light", "1"), ("dark", "0")):
        picture = folder / f"report-{scheme}.png"
        _, errors, _ = browse(
            f"--screenshot={picture}",
            "--window-size=1200,2400",
            f"--blink-settings=preferredColorScheme={flag}",
        )
        assert "CONSOLE" not in errors, errors
        with image.open(picture) as shot:
            assert shot.size == (1200, 2400)
            grey = shot.convert("L")
            shades[scheme] = grey.getpixel((5, 5))
            # Drawn on, not blank: text and charts leave many shades.
            assert len(np.unique(np.asarray(grey))) > 50
    assert shades["light"] > 230
    assert shades["dark"] < 40


def test_on_a_phone_verdicts_are_seen_at_once_and_what_scrolls_has_a_shadow(browse, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = Path(os.environ.get("SLIDE_DEPLOY_SCREENSHOTS", tmp_path))
    picture, page = folder / "report-phone.png", tmp_path / "page.html"
    page.write_text(render(sample_report()), encoding="utf-8")
    # A window cannot be as narrow as a phone; a frame in it can.
    frame = f'<iframe src="{page.as_uri()}" width="390" height="844" style="border:0"></iframe>'
    browse(f"--screenshot={picture}", "--window-size=500,844", source=frame)
    with image.open(picture) as shot:
        red, green, blue = np.asarray(shot.convert("RGB")).astype(int)[:, :390].transpose(2, 0, 1)
    pink = (red > 240) & (red - green > 12) & (abs(green - blue) < 12)
    assert pink[:250].sum() > 20_000  # the banner
    assert pink[500:].sum() > 500  # "FAILED" in the table of artifacts
    edge = red[500:, 368:382]  # where the table's frame ends
    assert ((np.diff(edge, axis=1) <= 0).all(axis=1) & (edge[:, 0] - edge[:, -1] > 20)).sum() > 50


def test_nothing_sticks_out_of_a_narrow_window(browse, tmp_path):
    # Seen in the picture, as the page runs no scripts: the margin at the right stays empty.
    image = pytest.importorskip("PIL.Image")
    picture = tmp_path / "narrow.png"
    browse(f"--screenshot={picture}", "--window-size=500,3000")
    with image.open(picture) as shot:
        grey = shot.convert("L")
        margin = grey.crop((grey.width - 8, 0, grey.width, grey.height))
        assert len(np.unique(np.asarray(margin))) == 1


def test_the_page_forbids_itself_to_load_anything():
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render(sample_report()))
    assert policy is not None
    assert policy[1] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
