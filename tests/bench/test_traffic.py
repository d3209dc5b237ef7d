"""Work and traffic against figures counted by other means (performance.md 4.2, and sums done by hand)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from wbc_jax.bench.limits import Limits, device_limits, known_bandwidth, measure_copy_bandwidth
from wbc_jax.bench.schema import Machine
from wbc_jax.bench.traffic import Traffic, count_traffic
from wbc_jax.models import create_model, list_models
from wbc_jax.models.attention import SqueezeExcite, scale_channels
from wbc_jax.models.layers import BatchNorm, Conv, avg_pool, max_pool
from wbc_jax.models.psa import PyramidSqueezeAttention

MB = 1e6


@pytest.mark.parametrize(
    ("name", "gmacs", "train_gflop", "conv_mb", "norm_mb", "other_mb", "infer_mb"),
    [
        ("resnet50", 4.09, 24.3, 129, 178, 39, 55),
        ("densenet121", 2.83, 16.8, 129, 82, 202, 86),
    ],
)
def test_counts_of_the_trunks_at_224_px_in_bfloat16(
    name: str,
    gmacs: float,
    train_gflop: float,
    conv_mb: float,
    norm_mb: float,
    other_mb: float,
    infer_mb: float,
) -> None:
    model = create_model(name, num_classes=1000)
    train = count_traffic(model, 224, "train", 2)
    assert train.forward_macs / 1e9 == pytest.approx(gmacs, abs=0.006)
    assert train.flops / 1e9 == pytest.approx(train_gflop, rel=0.005)
    assert train.conv_bytes / MB == pytest.approx(conv_mb, rel=0.03)
    assert train.norm_bytes / MB == pytest.approx(norm_mb, rel=0.03)
    assert train.other_bytes / MB == pytest.approx(other_mb, rel=0.03)
    infer = count_traffic(model, 224, "infer", 2)
    assert infer.flops == 2 * train.forward_macs
    assert infer.total_bytes / MB == pytest.approx(infer_mb, rel=0.06)


@pytest.mark.parametrize(
    ("name", "gmacs", "train_gflop", "total_mb"),
    [
        ("resnet50", 4.09, 24.3, 346),
        ("densenet121", 2.83, 16.8, 413),
        ("resnext50_32x4d", 4.23, 25.1, 438),
        ("se_resnext50_32x4d", 4.23, 25.1, 493),
        ("epsanet50", 3.60, 21.4, 399),
    ],
)
def test_totals_of_a_training_step_follow_the_table(
    name: str, gmacs: float, train_gflop: float, total_mb: float
) -> None:
    """Gates of SE and of the pyramid included; within 1 %, of which the table's rounding is a third."""
    train = count_traffic(create_model(name, num_classes=1000), 224, "train", 2)
    assert train.forward_macs / 1e9 == pytest.approx(gmacs, rel=0.003)
    assert train.flops / 1e9 == pytest.approx(train_gflop, rel=0.005)
    assert train.total_bytes / MB == pytest.approx(total_mb, rel=0.01)


class Small(nn.Module):
    """Every counted operation once, on maps whose sizes are easily summed."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool):
        x = Conv(4, 3, padding=1, use_bias=True)(images)  # (B, 8, 8, 4): 256 elements, from 192
        x = nn.relu(BatchNorm()(x, use_running_average=not train))
        x = x + nn.relu(x)
        x = max_pool(x)  # (B, 4, 4, 4): 64
        x = nn.relu(BatchNorm()(x, use_running_average=not train))  # not a convolution's output
        return avg_pool(x), {}  # (B, 2, 2, 4): 16


def test_every_rule_by_hand() -> None:
    train = count_traffic(Small(), 8, "train", 4)
    assert train.forward_macs == 256 * 27
    assert train.flops == 2 * 2 * 256 * 27  # forward and the weights' gradient; the images need none
    assert train.conv_bytes == 4 * 3 * (192 + 256)
    assert train.norm_bytes == 4 * 8 * 256
    assert train.other_bytes == 4 * (3 * 256 + (3 * 256 + 2 * 64) + 9 * 64 + 2 * (64 + 16))
    infer = count_traffic(Small(), 8, "infer", 4)
    assert infer.total_bytes == 4 * ((192 + 256) + 256 + (256 + 64) + 2 * 64 + (64 + 16))


class Gated(nn.Module):
    """A gate on a map of 256 elements; its product goes into a sum, or does not."""

    into_sum: bool

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool):
        x = Conv(4, 3, padding=1)(images)  # (B, 8, 8, 4)
        y = scale_channels(x, SqueezeExcite()(x))
        return (nn.relu(y + x) if self.into_sum else y), {}


@pytest.mark.parametrize(
    ("network", "passes", "passes_of_inference"),
    [(Gated(False), 7, 3), (Gated(True), 5 + 3, 3 + 1)],
)
def test_passes_of_a_gate_by_hand(network: nn.Module, passes: int, passes_of_inference: int) -> None:
    assert count_traffic(network, 8, "train", 4).other_bytes == 4 * passes * 256
    assert count_traffic(network, 8, "infer", 4).other_bytes == 4 * passes_of_inference * 256


def test_a_pyramid_is_a_gate_with_a_norm_behind_it() -> None:
    class Pyramid(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool):
            x = Conv(16, 3, padding=1)(images)  # (B, 8, 8, 16): 1024 elements
            y = PyramidSqueezeAttention(groups=(1, 1, 2, 4))(x)
            return BatchNorm()(y, use_running_average=not train), {}

    train, infer = (count_traffic(Pyramid(), 8, mode, 4) for mode in ("train", "infer"))
    assert (train.other_bytes, train.norm_bytes) == (4 * 7 * 1024, 4 * 8 * 1024)
    assert (infer.other_bytes, infer.norm_bytes) == (4 * 3 * 1024, 0)


def test_bytes_follow_the_element_and_every_small_network_counts() -> None:
    for name in (n for n in list_models() if n.endswith("_tiny")):
        model = create_model(name, num_classes=5, dtype=jnp.bfloat16)
        half, whole = (count_traffic(model, 64, "train", size) for size in (2, 4))
        assert 0 < 2 * half.total_bytes == whole.total_bytes
        assert half.flops == whole.flops > 0


def _machine(device: str, backend: str) -> Machine:
    return Machine(
        date="",
        commit=None,
        device=device,
        device_detail="",
        backend=backend,
        threads=2,
        load_average=0.1,
        xla_flags="",
        versions="",
    )


def test_known_accelerators_have_limits_and_unknown_ones_none() -> None:
    traffic = Traffic(
        forward_macs=0, flops=24_300_000_000, conv_bytes=346_000_000, norm_bytes=0, other_bytes=0
    )
    h200 = device_limits(_machine("NVIDIA H200", "gpu"), "bfloat16")
    assert h200.traffic_percent(12_428, traffic) == pytest.approx(100, rel=1e-3)
    assert h200.mfu_percent(32_510, traffic) == pytest.approx(100, rel=1e-3)
    assert device_limits(_machine("NVIDIA H200", "gpu"), "float32").flops_per_s is None
    h100 = device_limits(_machine("NVIDIA H100 80GB HBM3", "gpu"), "bfloat16")
    assert h100.bytes_per_s == known_bandwidth("H100") < known_bandwidth("H200") == h200.bytes_per_s


@pytest.mark.parametrize(
    "device",
    [
        "Some GPU",
        "NVIDIA GH200 480GB",
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    ],
)
def test_a_device_that_only_sounds_alike_has_no_limits(device: str) -> None:
    traffic = Traffic(forward_macs=0, flops=1, conv_bytes=1, norm_bytes=0, other_bytes=0)
    unknown = device_limits(_machine(device, "gpu"), "bfloat16")
    assert unknown == Limits(None, None)
    assert unknown.traffic_percent(1.0, traffic) is None
    assert unknown.mfu_percent(1.0, traffic) is None


def test_bandwidth_of_this_machine_is_that_of_a_computer() -> None:
    assert 1e8 < measure_copy_bandwidth(1) < 1e13
