"""Which rows of a benchmark's file are drawn."""

from __future__ import annotations

import csv
from pathlib import Path

from wbc_jax.bench.plot import draw_comparison, newest_rows

COLUMNS = (
    "model", "mode", "variant", "device", "precision", "batch_size", "image_size_px",
    "images_per_s", "peer", "peer_images_per_s", "ratio",
)  # fmt: skip


def write(path: Path, *rows: dict[str, str]) -> Path:
    common = {
        "model": "resnet50", "mode": "train", "device": "CPU", "precision": "float32", "batch_size": "8",
        "image_size_px": "224", "images_per_s": "4", "peer": "torch", "peer_images_per_s": "5", "ratio": "0.8",
    }  # fmt: skip
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({**common, **row} for row in rows)
    return path


def test_the_newest_of_alike_rows_is_drawn_in_the_files_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "compare.csv",
        {"ratio": "0.7"},
        {"model": "scam", "ratio": "0.9"},
        {"ratio": "0.8"},
        {"batch_size": "16", "ratio": "1.1"},
        {"mode": "infer", "ratio": "1.2"},
        {"variant": "beside torch.compile default", "ratio": "1.3"},
        {"device": "GPU", "ratio": "1.4"},
        {"model": "alone", "peer": "", "ratio": ""},
    )
    found = [(row["model"], row["ratio"]) for row in newest_rows(path)]
    assert found == [
        ("resnet50", "0.8"),
        ("scam", "0.9"),
        ("resnet50", "1.1"),
        ("resnet50", "1.2"),
        ("resnet50", "1.3"),
        ("resnet50", "1.4"),
    ]


def test_files_of_earlier_columns_are_drawn_and_those_without_a_peer_are_not(tmp_path: Path) -> None:
    old = tmp_path / "old.csv"
    old.write_text("model,mode,device,images_per_s,peer,peer_images_per_s,ratio,precision,batch_size\n"
                   "scam,train,CPU,2,torch,4,0.5,float32,8\nscam,train,CPU,3,torch,4,0.75,float32,8\n")  # fmt: skip
    assert [row["ratio"] for row in newest_rows(old)] == ["0.75"]
    picture = draw_comparison(old)
    assert picture == tmp_path / "old.png"
    assert picture.read_bytes()[1:4] == b"PNG"
    assert draw_comparison(write(tmp_path / "alone.csv", {"peer": ""})) is None
