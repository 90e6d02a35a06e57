"""slide-deploy profiles, and export --for."""

from __future__ import annotations

from pathlib import Path

import pytest

from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.cli.profiles import chosen_for
from slide_deploy.errors import UnknownName, UsageError
from slide_deploy.packaging.profiles import PROFILES, profile_named

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "slide_swin_digits.pth"


def chosen(name, targets=None, precision=None, preprocess=None, batch=1, half=False, dynamic=False):
    return chosen_for(name, targets, precision, preprocess, batch, half=half, dynamic=dynamic)


@pytest.mark.parametrize("profile", [p for p in PROFILES if not p.missing], ids=lambda p: p.name)
def test_a_profile_chooses_and_gives_its_reasons(profile) -> None:
    found = chosen(profile.name)
    assert found.targets == [profile.target.value]
    assert found.precision == profile.precision.value
    assert found.dynamic == (profile.batch.value == "any")
    assert found.notes == profile.lines()


def test_an_option_overrides_a_choice_and_its_reason() -> None:
    found = chosen("iphone", targets=["onnx"], precision="float32", preprocess="none", batch=2)
    assert (found.targets, found.precision, found.preprocess) == (["onnx"], "float32", "none")
    assert [note.partition(":")[2].split()[0] for note in found.notes] == ["no"]
    assert chosen("server", half=True).precision == "float16"
    assert not chosen("server", batch=4).dynamic


def test_a_profile_that_cannot_be_used_yet_says_why() -> None:
    with pytest.raises(UsageError, match="no programs for Ethos-U"):
        profile_named("ethos-u")
    with pytest.raises(UnknownName, match="unknown profile 'iphon'"):
        profile_named("iphon")
    with pytest.raises(UsageError, match="neither --target nor --for"):
        chosen(None)


def test_export_for_a_phone(run_cli, tmp_path: Path) -> None:
    done = run_cli("export", DIGITS, "--for", "iphone", "-t", "torchscript", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    manifest = find_manifest(tmp_path / "out")
    assert manifest is not None
    (record,) = manifest.artifacts
    assert (record.target, record.precision) == ("torchscript", "float16")
    assert record.inputs[0].is_picture
    assert "the Neural Engine computes in float16" in done.err + done.out


def test_the_list_names_every_profile(run_cli) -> None:
    shown = run_cli("profiles").out
    assert all(profile.name in shown for profile in PROFILES)
