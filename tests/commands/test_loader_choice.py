"""`wbc-jax train` decides by the memory there is whether the images live on the devices, and trains the same."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from tiny_run import CLASSES, save_pictures
from toy_training import ToyNet

from wbc_jax.commands import parts as parts_module
from wbc_jax.commands.train import RunRequest, train
from wbc_jax.config import Config, DataConfig, EvalConfig, LogConfig, ModelConfig, RuntimeConfig, TrainConfig
from wbc_jax.errors import EXIT_OK


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Twelve images, three steps an epoch, augmentation and mixup on."""
    for part, count in (("train", 4), ("val", 1), ("test", 1)):
        save_pictures(tmp_path / "images" / part, CLASSES, count, seed=len(part))
    return Config(
        data=DataConfig(
            dataset="image_folder",
            raw_dir=str(tmp_path / "images"),
            cache_dir=str(tmp_path / "cache"),
            image_size_px=20,
            store_size_px=24,
        ),
        train=TrainConfig(epochs=2, batch_size=4),
        eval=EvalConfig(batch_size=4, bootstrap_samples=0),
        log=LogConfig(every_steps=1),
        runtime=RuntimeConfig(num_devices=1),
    )


def test_images_that_do_not_fit_are_streamed_and_train_the_same(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(_: ModelConfig, num_classes: int, **fields: Any) -> ToyNet:
        return ToyNet(num_classes=num_classes, dropout_rate=0.3, **fields)

    monkeypatch.setattr(parts_module, "build_model", build)
    rows = {}
    for kind, free in (("live on the devices", 1 << 30), ("are streamed", 4096)):
        memory = SimpleNamespace(available=free, total=1 << 34)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        path = tmp_path / kind.replace(" ", "_")
        assert train(RunRequest(config=config, recipe="toy", run_dir=path)) == EXIT_OK
        assert f"images {kind}: " in capsys.readouterr().out
        rows[kind] = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    resident, streamed = rows.values()
    assert len(resident) == len(streamed) > 6
    for left, right in zip(resident, streamed, strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)
