"""Shares, parts, resumption: whatever happens on the way, each image is classified once and none is lost."""

from __future__ import annotations

import csv
import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wbc_jax.commands import predict as predict_module
from wbc_jax.commands.image_files import walk_images
from wbc_jax.commands.predict import PredictOptions, predict
from wbc_jax.commands.prediction_parts import PredictionParts, writing
from wbc_jax.commands.predictor import Predictor
from wbc_jax.commands.shards import Shard, find_shard, survey
from wbc_jax.errors import EXIT_DATA, EXIT_OK, DataError, UsageError
from wbc_jax.evaluate.prediction_formats import FORMATS
from wbc_jax.train.steps import Prediction


@pytest.fixture
def colour_network(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In place of a network: an image's class is its brightest colour. Returns the batch sizes it was called with."""
    calls: list[int] = []

    def answer(images: np.ndarray) -> Prediction:
        calls.append(len(images))
        shares = images.reshape(len(images), -1, 3).mean(axis=1) + 1.0
        return Prediction((shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), None)

    predictor = Predictor(
        class_names=("red", "green", "blue"),
        framing="squash",
        size_px=8,
        place=lambda images: images,
        predict=answer,
        digest="one",
    )
    monkeypatch.setattr(predict_module, "load_predictor", lambda source, precision: predictor)
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eleven pictures and two files that are none, in folders."""
    from tiny_run import save_picture

    for number in range(11):
        save_picture(tmp_path / "images" / "abc"[number % 3] / f"{number}.png", number)
    (tmp_path / "images" / "a" / "broken.png").write_bytes(b"")
    (tmp_path / "images" / "text.jpg").write_text("none")
    return tmp_path / "images"


def paths_in(out: Path) -> list[str]:
    with out.open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


def run(folder: Path, out: Path, **options: object) -> int:
    return predict(folder, (folder,), PredictOptions(out=out, batch_size=2, **options))  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("colour_network")
@pytest.mark.parametrize("part_images", [1, 4, 100])
def test_parts_change_nothing(folder: Path, tmp_path: Path, part_images: int) -> None:
    run(folder, tmp_path / "whole.csv")
    run(folder, tmp_path / "parts.csv", part_images=part_images)
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(paths_in(tmp_path / "whole.csv")) == 11
    assert len((tmp_path / "parts.skipped.csv").read_text().splitlines()) == 3
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.usefixtures("colour_network")
def test_shares_hold_each_image_once(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "whole.csv")
    for index in range(3):
        assert run(folder, tmp_path / "p.csv", shard=f"{index}/3") == EXIT_OK
    outs = sorted(tmp_path.glob("p-0000?-of-00003.csv"))
    assert len(outs) == 3
    assert sorted(path for out in outs for path in paths_in(out)) == sorted(paths_in(tmp_path / "whole.csv"))
    skipped = [len(out.read_text().splitlines()) - 1 for out in tmp_path.glob("p-*.skipped.csv")]
    assert sum(skipped) == 2


def test_finished_share_is_left_alone_until_its_images_change(
    folder: Path, tmp_path: Path, colour_network: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, tmp_path / "p.csv", shard="1/2")
    before, calls = (tmp_path / "p-00001-of-00002.csv").stat().st_mtime_ns, len(colour_network)
    run(folder, tmp_path / "p.csv", shard="1/2")
    assert "is finished" in capsys.readouterr().out
    assert len(colour_network) == calls
    assert (tmp_path / "p-00001-of-00002.csv").stat().st_mtime_ns == before
    (folder / "a" / "0.png").write_bytes((folder / "b" / "1.png").read_bytes())  # of the other share
    run(folder, tmp_path / "p.csv", shard="1/2")
    assert len(colour_network) == calls
    (folder / "a" / "3.png").write_bytes((folder / "b" / "1.png").read_bytes())
    run(folder, tmp_path / "p.csv", shard="1/2")
    assert len(colour_network) > calls


class Stopped(Exception):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """As if the process ended in the middle of a part."""
    whole: Callable[..., object] = predict_module.predict_part

    def predict_part(*arguments: object, **seen: object) -> object:
        if arguments[-1] == part:
            parts = arguments[-2]
            assert isinstance(parts, PredictionParts)
            parts.rows_file(part).write_text("half a li")
            raise Stopped
        return whole(*arguments, **seen)

    monkeypatch.setattr(predict_module, "predict_part", predict_part)


def test_stopped_prediction_goes_on_behind_its_last_complete_part(
    folder: Path,
    tmp_path: Path,
    colour_network: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(folder, tmp_path / "whole.csv", part_images=4)
    everything = sum(colour_network)
    colour_network.clear()
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Stopped):
            run(folder, tmp_path / "p.csv", part_images=4)
    assert not (tmp_path / "p.csv").exists()
    run(folder, tmp_path / "p.csv", part_images=4)
    assert "8 of 13 images were classified before, in 2 complete parts" in capsys.readouterr().out
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sum(colour_network) == everything
    assert [path.name for path in tmp_path.glob("p.csv*")] == ["p.csv"]


def test_damaged_part_and_parts_of_other_images_are_not_used(
    folder: Path, tmp_path: Path, colour_network: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        with monkeypatch.context() as patch:
            stop_at(patch, 2)
            with pytest.raises(Stopped):
                run(folder, tmp_path / "p.csv", part_images=4)

    run(folder, tmp_path / "whole.csv", part_images=4)
    interrupt()
    (tmp_path / "p.csv.parts" / "part-000000.csv").write_text("cut")
    colour_network.clear()
    run(folder, tmp_path / "p.csv", part_images=4)
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    interrupt()
    (folder / "a" / "0.png").unlink()
    run(folder, tmp_path / "p.csv", part_images=4)
    assert len(paths_in(tmp_path / "p.csv")) == 10


@pytest.mark.usefixtures("colour_network")
def test_parts_behind_a_gap_survive_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's actors finish parts in any order: the first may be missing while others are whole."""
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Stopped):
            run(folder, tmp_path / "p.csv", part_images=4)
    (tmp_path / "p.csv.parts" / "note-000000.json").unlink()
    with monkeypatch.context() as patch:
        stop_at(patch, 0)
        with pytest.raises(Stopped):
            run(folder, tmp_path / "p.csv", part_images=4)
    assert (tmp_path / "p.csv.parts" / "note-000001.json").is_file()


@pytest.mark.usefixtures("colour_network")
def test_nothing_is_left_of_a_call_that_made_no_part(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 0)
    with pytest.raises(Stopped):
        run(folder, tmp_path / "p.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.usefixtures("colour_network")
def test_full_disk_is_explained_and_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, rows: Iterable[dict[str, str]]) -> int:
        if path.name.startswith("part-000002"):
            path.write_text("half a li")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_csv(path, rows)

    write_csv = FORMATS[".csv"].write
    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, ".csv", replace(FORMATS[".csv"], write=full))
        with pytest.raises(
            DataError, match=r"No space left on device[\s\S]*bytes[\s\S]*p\.csv\.parts[\s\S]*goes on"
        ):
            run(folder, tmp_path / "p.csv", part_images=4)
    assert not list((tmp_path / "p.csv.parts").glob("*.part"))
    run(folder, tmp_path / "whole.csv")
    run(folder, tmp_path / "p.csv", part_images=4)
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.usefixtures("colour_network")
def test_one_call_at_a_time_writes_an_output(folder: Path, tmp_path: Path) -> None:
    with writing(tmp_path / "p.csv"):
        with pytest.raises(
            UsageError, match=r"another process is writing these predictions[\s\S]*--shard K/N"
        ):
            run(folder, tmp_path / "p.csv")
        assert run(folder, tmp_path / "p.csv", shard="0/2") == EXIT_OK
    assert run(folder, tmp_path / "p.csv") == EXIT_OK
    assert not list(tmp_path.glob("*.lock"))


@pytest.mark.usefixtures("colour_network")
def test_call_cut_off_while_it_concludes_only_concludes(
    folder: Path, tmp_path: Path, colour_network: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(predict_module, "mark_finished", stop)
        with pytest.raises(Stopped):
            run(folder, tmp_path / "p.csv", shard="0/2", part_images=4)
    colour_network.clear()
    assert run(folder, tmp_path / "p.csv", shard="0/2", part_images=4) == EXIT_OK
    assert colour_network == []
    assert (tmp_path / "p-00000-of-00002.csv.done.json").is_file()


def test_killed_prediction_goes_on(run_dir: Path, tmp_path: Path) -> None:
    """SIGKILL between parts: the same command concludes with the rows of one that nothing stopped."""
    from tiny_run import save_picture

    for number in range(60):
        save_picture(tmp_path / "images" / f"{number:02d}.png", number)
    words = ["predict", run_dir, tmp_path / "images", "--part-images", "1", "--batch-size", "1"]
    line = [sys.executable, "-m", "wbc_jax", *map(str, words)]
    subprocess.run(
        [*line, "--out", str(tmp_path / "whole.csv")], check=True, capture_output=True, timeout=300
    )
    out = tmp_path / "p.csv"
    with subprocess.Popen([*line, "--out", str(out)], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not (tmp_path / "p.csv.parts" / "note-000002.json").exists():
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    done = subprocess.run([*line, "--out", str(out)], check=True, capture_output=True, text=True, timeout=300)
    assert "of 60 images were classified before" in done.stdout
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not list(tmp_path.glob("p.csv.*"))


def test_devices_share_batches(run_dir: Path, pictures: Path, tmp_path: Path) -> None:
    def command(name: str, devices: int) -> list[dict[str, str]]:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        line = [sys.executable, "-m", "wbc_jax", "predict", run_dir, pictures, "--batch-size", "5"]
        line += ["--out", tmp_path / name]
        environment = {**os.environ, "XLA_FLAGS": flags}
        subprocess.run([str(word) for word in line], check=True, capture_output=True, env=environment)
        return list(csv.DictReader((tmp_path / name).read_text().splitlines()))

    alone, shared = command("one.csv", 1), command("three.csv", 3)
    assert [row["path"] for row in shared] == [row["path"] for row in alone]
    for ours, theirs in zip(shared, alone, strict=True):
        assert float(ours["confidence"]) == pytest.approx(float(theirs["confidence"]), abs=2e-6)


def test_bfloat16_on_request(run_dir: Path, pictures: Path, tmp_path: Path) -> None:
    def confidences(precision: str) -> list[float]:
        out = tmp_path / f"{precision}.csv"
        predict(run_dir, (pictures,), PredictOptions(out=out, precision=precision))  # pyright: ignore[reportArgumentType]
        return [float(row["confidence"]) for row in csv.DictReader(out.read_text().splitlines())]

    full, short = confidences("float32"), confidences("bfloat16")
    assert full != short
    np.testing.assert_allclose(short, full, atol=0.05)


@pytest.mark.usefixtures("colour_network")
def test_parquet_comes_out_of_the_command(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run(folder, tmp_path / "p.parquet", part_images=3)
    run(folder, tmp_path / "p.json")
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert rows == json.loads((tmp_path / "p.json").read_text())


def test_ray_gives_the_rows_of_the_local_engine(
    run_dir: Path, pictures: Path, folder: Path, tmp_path: Path
) -> None:
    """With Ray's local cluster; Ray is an optional extra, so the test is skipped, and counted, where it is missing."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")

    def command(name: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        # A process of its own: Ray warns of itself and leaves helpers, neither of which is this test's subject.
        line = [sys.executable, "-m", "wbc_jax", "predict", run_dir, *options, "--out", tmp_path / name]
        return subprocess.run([str(word) for word in line], capture_output=True, text=True, timeout=300)

    assert command("local.csv", pictures, folder).returncode == EXIT_OK
    done = command("ray.csv", pictures, folder, "--engine", "ray", "--part-images", "8")
    assert done.returncode == EXIT_OK, done.stderr
    local, spread = (
        list(csv.DictReader((tmp_path / name).read_text().splitlines())) for name in ("local.csv", "ray.csv")
    )
    assert [row["path"] for row in spread] == [row["path"] for row in local]
    assert len(local) == 26
    for ours, theirs in zip(local, spread, strict=True):
        assert float(ours["confidence"]) == pytest.approx(float(theirs["confidence"]), abs=2e-6)
        assert ours["predicted"] == theirs["predicted"]
    skipped = [(tmp_path / f"{name}.skipped.csv").read_text() for name in ("local", "ray")]
    assert skipped[0] == skipped[1]
    assert not list(tmp_path.glob("*.parts"))
    stopped = command("stop.csv", folder, "--engine", "ray", "--on-bad-image", "stop")
    assert stopped.returncode == EXIT_DATA
    assert "broken.png: empty file" in stopped.stderr


def test_ray_that_is_missing_names_the_extra(
    run_dir: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'wbc-jax\[ray\]'"):
        predict(run_dir, (pictures,), PredictOptions(out=tmp_path / "p.csv", engine="ray"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="shares the images out itself"):
        predict(run_dir, (pictures,), PredictOptions(engine="ray", shard="0/2"))


def test_walk_is_the_sorted_list(folder: Path) -> None:
    expected = sorted(p for p in folder.rglob("*") if p.suffix in (".png", ".jpg"))
    assert list(walk_images([folder])) == expected
    assert list(walk_images([folder, folder / "a", expected[0]])) == expected
    counted = survey([folder], Shard(2, 5))
    assert (counted.count, counted.here) == (13, len(list(Shard(2, 5).take(iter(expected)))))


@pytest.mark.parametrize("text", ["3/3", "x", "1/0", "-1/2", "1/2/3", ""])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="K/N with K from 0"):
        find_shard(text, {})


def test_launchers_tell_the_share() -> None:
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}
    assert find_shard("auto", array) == Shard(2, 4)
    assert find_shard("auto", {"RANK": "1", "WORLD_SIZE": "8"}) == Shard(1, 8)
    step = {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_STEP_NODELIST": "n[1-3]"}
    assert find_shard("auto", step) == Shard(2, 3)
    assert find_shard("auto", {**array, **step}) == Shard(8, 12)  # tasks of array elements
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    assert find_shard("auto", {**array, **batch_script}) == Shard(2, 4)
    with pytest.raises(UsageError, match="batch script's own"):
        find_shard("auto", batch_script)
    assert find_shard("auto", {**batch_script, "RANK": "0", "WORLD_SIZE": "2"}) == Shard(0, 2)
    assert find_shard("3/16", {}) == Shard(3, 16)
    with pytest.raises(UsageError, match="no launcher's variables"):
        find_shard("auto", {})
    with pytest.raises(UsageError, match="consecutive"):
        find_shard("auto", {**array, "SLURM_ARRAY_TASK_MIN": "1"})
