"""Twins compute what our networks compute, the comparison refuses what does not, and its CSV says what was measured."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wbc_jax.bench.compare import CompareOptions, check_same_start, run_compare
from wbc_jax.bench.subject import Case
from wbc_jax.bench.torch_subject import TorchSubject
from wbc_jax.bench.torch_twin import build_twin
from wbc_jax.cli import main
from wbc_jax.errors import UsageError
from wbc_jax.models import create_model

torch = pytest.importorskip("torch")


def random_variables(model: Any, size_px: int) -> dict[str, Any]:
    """Every array drawn anew, norms and statistics too: equal results then mean that each found its place."""
    images = jax.ShapeDtypeStruct((1, size_px, size_px, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda key, x: model.init(key, x, train=False), keys, images)
    rng = np.random.default_rng(7)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)
        low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.2, 0.2)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def test_scam_twin_has_our_logits_in_train_mode() -> None:
    """With a small ResNet in the place of the large one; the rest is SCAM's own, narrower."""
    model = create_model(
        "scam",
        num_classes=5,
        resnet_name="resnet18",
        projection_features=64,
        hidden_features=32,
        dropout_rate=0.0,
    )
    variables = random_variables(model, 64)
    twin = build_twin(model, "scam", variables).train()
    images = np.random.default_rng(1).normal(size=(3, 64, 64, 3)).astype(np.float32)

    def forward(variables: Any, images: Any) -> Any:
        (logits, _), _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits

    ours = np.asarray(jax.jit(forward)(variables, images))
    with torch.no_grad():
        theirs = twin(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.ptp(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())
    parameters = sum(p.numel() for p in twin.parameters())
    assert parameters == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("resnet18", "train", 2, 64, 5, jnp.float32)


def test_comparison_writes_a_complete_row(tmp_path: Path, case: Case) -> None:
    out = tmp_path / "compare.csv"
    line = "--models resnet18 --mode train --batch-size 2 --image-size-px 64 --repeats 1 --timed-steps 1"
    assert main(["benchmark", "compare", *line.split(), "--warmup-steps", "0", "--out", str(out)]) == 0
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["model"], row["mode"], row["batch_size"], row["image_size_px"]) == (
        "resnet18",
        "train",
        "2",
        "64",
    )
    assert row["peer"] == f"torch {torch.__version__} eager"
    number = {name: float(row[name]) for name in row if row[name].replace(".", "", 1).isdigit()}
    assert number["ratio"] == pytest.approx(number["images_per_s"] / number["peer_images_per_s"], rel=1e-4)
    assert number["images_per_s"] == pytest.approx(2e3 / number["step_ms"], rel=1e-4)
    assert {
        "compile_s",
        "peak_memory_gib",
        "gflop_per_image",
        "mb_per_image",
        "traffic_limit_percent",
    } <= set(number)
    # The first loss is that of torchvision's own module on the same pixels; afterwards both have learnt alike.
    assert number["loss_first"] == pytest.approx(torchvision_loss(case), abs=1e-3)
    assert number["loss_after"] < number["loss_first"]
    assert number["peer_loss_after"] == pytest.approx(number["loss_after"], rel=0.05)


def twin_of(case: Case) -> Any:
    variables = {"params": case.initial.params, "batch_stats": case.initial.batch_stats}
    return build_twin(case.model, case.model_name, variables).train()


def torchvision_loss(case: Case) -> float:
    twin, batch = twin_of(case), case.batch()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((torch.from_numpy(batch.images).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(twin(images), torch.from_numpy(batch.labels).long()))


def test_inference_twin_normalises_and_predicts(capsys: pytest.CaptureFixture[str]) -> None:
    options = CompareOptions(
        models=("resnet18",),
        mode="infer",
        batch_size=2,
        image_size_px=32,
        warmup_steps=0,
        timed_steps=1,
        repeats=1,
    )
    assert run_compare(options) == 0
    assert "ratio" in capsys.readouterr().out


@pytest.mark.parametrize("theirs", [1.61, float("nan")])
def test_networks_that_differ_are_not_timed(theirs: float) -> None:
    case: Any = SimpleNamespace(mode="train", dtype=np.float32, model_name="resnet18")
    ours = SimpleNamespace(run=lambda steps: None, first_loss=1.6)
    peer = SimpleNamespace(run=lambda steps: None, first_loss=theirs)
    with pytest.raises(RuntimeError, match="first losses"):
        check_same_start(case, ours, {"twin": peer})
    peer.first_loss = 1.6001
    check_same_start(case, ours, {"twin": peer})


def test_twin_trains_as_an_optimiser_step_by_hand_would(case: Case) -> None:
    """RAdam's first update is the bias-corrected momentum step: exactly lr times the gradient."""
    twin = twin_of(case)
    subject = TorchSubject(twin, case, device="cpu", compile_mode=None)
    before = twin.fc.weight.detach().clone()
    subject.run(1)
    moved = before - twin.fc.weight.detach()
    np.testing.assert_allclose(moved.numpy(), 1e-4 * twin.fc.weight.grad.numpy(), atol=1e-7)
    assert subject.first_loss == subject.last_loss


def test_networks_without_twin_and_missing_torch_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no PyTorch twin of scam_tiny, resnet_tiny"):
        run_compare(CompareOptions(models=("scam_tiny", "resnet18", "resnet_tiny")))
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UsageError, match=r"pip install 'wbc-jax\[test\]'"):
        run_compare(CompareOptions(models=("resnet18",)))
