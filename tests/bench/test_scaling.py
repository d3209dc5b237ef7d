"""The model of scaling against sums by hand, and steps that one, two and four devices share."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import pytest

from wbc_jax.bench.scaling import (
    ScalingModelOptions,
    ScalingOptions,
    model_lines,
    run_scaling,
    run_scaling_model,
)
from wbc_jax.bench.scaling_model import Cluster, Network, network_of, scale
from wbc_jax.errors import UsageError
from wbc_jax.models import create_model

RESNET50 = Network("resnet50", 102_000_000, 53)
CLUSTER = Cluster(link_gb_per_s=400, network_gb_per_s=50, efficiency=0.5)


def test_gradients_by_hand() -> None:
    """8 devices: 2 * 7/8 * 102 MB over 200 GB/s; 256: besides, 2 * 31/32 of an eighth over 25 GB/s."""
    assert CLUSTER.gradient_s(1, 102_000_000) == 0
    inside = 2 * 7 / 8 * 0.102 / 200
    assert CLUSTER.gradient_s(8, 102_000_000) == pytest.approx(inside)
    assert CLUSTER.gradient_s(256, 102_000_000) == pytest.approx(inside + 2 * 31 / 32 * 0.01275 / 25)


def test_small_sums_are_latency() -> None:
    assert CLUSTER.small_sum_s(1) == 0
    assert CLUSTER.small_sum_s(8) == pytest.approx(15.2e-6)
    assert CLUSTER.small_sum_s(256) == pytest.approx(65.2e-6)


def test_a_step_is_its_parts() -> None:
    step = scale(RESNET50, CLUSTER, devices=256, batch_per_device=256, images_per_s=6400, overhead_s=0.002)
    assert step.compute_s == pytest.approx(0.042)
    assert step.exposed_gradient_s == 0  # 1.9 ms hide behind 0.8 of 28 ms
    assert step.norm_s == pytest.approx(106 * 65.2e-6)
    assert step.images_per_s == pytest.approx(256 * 256 / (0.042 + 106 * 65.2e-6))
    small = scale(RESNET50, CLUSTER, devices=256, batch_per_device=1, images_per_s=6400, global_norm=False)
    assert small.norm_s == 0
    assert small.exposed_gradient_s == pytest.approx(
        CLUSTER.gradient_s(256, RESNET50.gradient_bytes) - 0.8 * 2 / 3 / 6400
    )
    alone = scale(RESNET50, CLUSTER, devices=1, batch_per_device=256, images_per_s=6400)
    assert alone.images_per_s == pytest.approx(6400)


def test_networks_are_counted_from_their_shapes() -> None:
    """18 residual norms and the stem's: torchvision's resnet18 has 20 with its three projections'."""
    network = network_of("resnet18", create_model("resnet18", num_classes=1000), 64)
    assert network == Network("resnet18", 4 * 11_689_512, 20)


def test_table_says_what_was_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    options = ScalingModelOptions(models=("resnet_tiny",), devices=(1, 256), images_per_s=5000.0)
    assert run_scaling_model(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == list(model_lines(options))
    assert "| 5,000 | 1 | 100% | 100% |" in lines[2]
    weak, ghost, strong, strong_ghost = (float(c.strip().rstrip("%")) for c in lines[3].split("|")[6:10])
    assert strong < strong_ghost < ghost <= 100
    assert strong < weak < ghost
    with pytest.raises(UsageError, match=r"(?s)batch-per-device 0.*--devices 0"):
        run_scaling_model(ScalingModelOptions(batch_per_device=0, devices=(0,)))
    with pytest.raises(UsageError, match="one of H200, H100"):
        list(model_lines(ScalingModelOptions(models=("resnet_tiny",), device="A100")))


def test_devices_share_a_batch_and_learn_as_one_does(tmp_path: Path) -> None:
    out = tmp_path / "scaling.csv"
    quick = {"warmup_steps": 1, "timed_steps": 1, "repeats": 2, "batch_size": 4, "image_size_px": 32}
    assert jax.device_count() >= 2
    assert run_scaling(ScalingOptions(devices=(2,), out=out, **quick)) == 0
    with out.open(newline="") as file:
        alone, two = csv.DictReader(file)
    assert [(row["devices"], row["batch_size"]) for row in (alone, two)] == [("1", "4"), ("2", "8")]
    assert alone["ratio"] == ""
    per_device = float(two["images_per_s"]) / 2 / float(alone["images_per_s"])
    assert float(two["ratio"]) == pytest.approx(per_device * 2, rel=1e-3)
    assert float(two["loss_after"]) < float(two["loss_first"])
    with pytest.raises(UsageError, match="--devices 0"):
        run_scaling(ScalingOptions(devices=(0,), **quick))
