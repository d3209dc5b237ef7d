"""Sealed directories: an interruption before any system call of a replacement leaves a valid directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wbc_jax.runtime import sealed


class Interruption(BaseException):
    """Stands for the end of the process."""


def prepare(target: Path, text: str) -> Path:
    prepared = sealed.partial_path(target)
    (prepared / "sub").mkdir()
    (prepared / "sub" / "data").write_text(text)
    sealed.seal(prepared)
    return prepared


def contents(target: Path) -> list[str]:
    found = []
    for path in sealed.candidates(target):
        sealed.verify(path)
        found.append((path / "sub" / "data").read_text())
    return found


@pytest.mark.parametrize("calls", range(8))
def test_interrupted_replacement_keeps_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    target = tmp_path / "best"
    sealed.publish(prepare(target, "old"), target)
    prepared = prepare(target, "new")
    left = [calls]

    def counted(original):
        def call(*arguments, **options):
            if left[0] == 0:
                raise Interruption
            left[0] -= 1
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
        try:
            sealed.publish(prepared, target)
            interrupted = False
        except Interruption:
            interrupted = True
    assert interrupted == (calls < 5)
    seen = contents(target)
    assert seen[0] in ("old", "new")
    sealed.tidy(tmp_path)
    assert contents(target) == seen[:1]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_vanished_parent_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sealed.partial_path(tmp_path / "gone" / "best")


def test_files_of_the_machine_are_no_damage(tmp_path: Path) -> None:
    target = tmp_path / "best"
    sealed.publish(prepare(target, "x"), target)
    (target / "sub" / ".DS_Store").touch()
    sealed.verify(target)
    (target / "sub" / "extra").touch()
    with pytest.raises(sealed.DamagedError, match="sub/extra does not belong there"):
        sealed.verify(target)
