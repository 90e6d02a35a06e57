"""Outputs are replaced atomically, and errors leave earlier files unchanged."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.errors import OutputError
from slide_deploy.utils import staging
from slide_deploy.utils.files import remove, size_of
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.utils.staging import staged, staged_folder


def write(path: Path, kind: str, text: str) -> None:
    if kind == "folder":
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "file").write_text(text)
    else:
        path.write_text(text)


def read(path: Path) -> str:
    return (path / "inner" / "file" if path.is_dir() else path).read_text()


kinds = pytest.mark.parametrize("kind", ["file", "folder"])


@kinds
def test_a_new_output_appears(tmp_path: Path, kind: str) -> None:
    with staged(tmp_path / "out") as scratch:
        write(scratch, kind, "new")
        assert not (tmp_path / "out").exists()
    assert read(tmp_path / "out") == "new"
    assert os.listdir(tmp_path) == ["out"]


@kinds
def test_an_earlier_output_is_replaced(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "out", kind, "old")
    with staged(tmp_path / "out") as scratch:
        write(scratch, kind, "new")
        assert read(tmp_path / "out") == "old"
    assert read(tmp_path / "out") == "new"
    assert os.listdir(tmp_path) == ["out"]


@kinds
def test_folders_are_replaced_where_the_system_cannot_exchange_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(staging.sys, "platform", "plan9")
    write(tmp_path / "out", kind, "old")
    with staged(tmp_path / "out") as scratch:
        write(scratch, kind, "new")
    assert read(tmp_path / "out") == "new"
    assert os.listdir(tmp_path) == ["out"]


@kinds
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_any_error_leaves_the_earlier_output(
    tmp_path: Path, kind: str, error: type[BaseException]
) -> None:
    write(tmp_path / "out", kind, "old")

    def fail() -> None:
        with staged(tmp_path / "out") as scratch:
            write(scratch, kind, "half")
            raise error

    with pytest.raises(error):
        fail()
    assert read(tmp_path / "out") == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_of_the_system_becomes_an_output_error(tmp_path: Path) -> None:
    def fail() -> None:
        with staged(tmp_path / "out") as scratch:
            scratch.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="no space left on device") as refused:
        fail()
    assert "--output" in refused.value.hint
    assert os.listdir(tmp_path) == []


def test_a_link_is_replaced_and_what_it_points_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").symlink_to("mine")
    with staged(tmp_path / "out") as scratch:
        scratch.write_text("new")
    assert ((tmp_path / "out").read_text(), (tmp_path / "mine").read_text()) == ("new", "mine")


def test_folders_above_are_made(tmp_path: Path) -> None:
    with staged(tmp_path / "a" / "b" / "out") as scratch:
        scratch.write_text("new")
    assert (tmp_path / "a" / "b" / "out").read_text() == "new"


def test_a_file_cannot_be_written_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    def fail() -> None:
        with staged(tmp_path / "file" / "out"):
            pass

    with pytest.raises(OutputError, match="file"):
        fail()


def test_a_folder_that_was_made_in_vain_is_gone(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_folder(tmp_path / "out") as scratch:
            (scratch / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == []


def test_folders_above_that_were_made_in_vain_are_gone(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_folder(tmp_path / "a" / "b" / "out"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == []


def test_all_parts_of_a_folder_take_their_places_together(tmp_path: Path) -> None:
    write(tmp_path / "one", "file", "old")
    write(tmp_path / "two", "folder", "old")
    write(tmp_path / "other", "file", "mine")
    with staged_folder(tmp_path) as scratch:
        write(scratch / "one", "file", "new")
        write(scratch / "two", "folder", "new")
        assert (read(tmp_path / "one"), read(tmp_path / "two")) == ("old", "old")
    assert {name: read(tmp_path / name) for name in os.listdir(tmp_path)} == {
        "one": "new",
        "two": "new",
        "other": "mine",
    }


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    with staged_folder(tmp_path) as scratch:
        name = scratch.name
    (tmp_path / name).mkdir()
    (tmp_path / name / "half").write_text("x")
    with staged_folder(tmp_path) as scratch:
        (scratch / "new").write_text("x")
    assert os.listdir(tmp_path) == ["new"]


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    write(tmp_path / "out", "folder", "mine")

    def fail() -> None:
        with staged(tmp_path / "out") as scratch:
            scratch.write_text("new")

    with pytest.raises(OutputError):
        fail()
    assert read(tmp_path / "out") == "mine"


def test_the_hash_of_a_folder_depends_on_names_and_content(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> str:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return sha256_of(tmp_path / name)

    hashes = [
        folder("a", x="1", y="2"),
        folder("b", x="2", y="1"),
        folder("c", x="1", z="2"),
        folder("d", x="1", y="2", z=""),
    ]
    assert len(set(hashes)) == 4
    assert folder("e", y="2", x="1") == hashes[0]


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_a_folders_size_is_that_of_its_files(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("sizes")
    for index, size in enumerate(sizes):
        (folder / str(index)).mkdir()
        (folder / str(index) / "file").write_bytes(b"x" * size)
    assert size_of(folder) == sum(sizes)
    assert size_of(folder / "0" / "file") == sizes[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: write(path, "file", ""),
        lambda path: write(path, "folder", ""),
        lambda path: path.symlink_to("nowhere"),
        lambda path: None,
    ],
    ids=["file", "folder", "dangling-link", "nothing"],
)
def test_remove(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    remove(tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_what_is_superseded_goes_after_the_swap(tmp_path: Path) -> None:
    write(tmp_path / "old", "file", "old")

    def superseded(scratch: Path, output: Path) -> list[Path]:
        assert os.listdir(scratch) == ["new"]
        return [output / "old", output / "never-there"]

    with staged_folder(tmp_path, superseded) as scratch:
        write(scratch / "new", "file", "new")
        assert (tmp_path / "old").exists()
    assert os.listdir(tmp_path) == ["new"]


def test_a_signal_does_not_come_between_two_swaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = staging._swap_in

    def signalled(scratch: Path, path: Path) -> None:
        signal.raise_signal(signal.SIGTERM)
        swap(scratch, path)

    def stop(number: int, frame: object) -> None:
        raise InterruptedError

    def export() -> None:
        with staged_folder(tmp_path) as scratch:
            write(scratch / "one", "file", "new")
            write(scratch / "two", "file", "new")

    monkeypatch.setattr(staging, "_swap_in", signalled)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(OutputError):
            export()
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]
