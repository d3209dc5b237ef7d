"""Twins compute what our networks compute, the comparison refuses what does not, and its CSV says what was measured."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from wbc_jax.bench import compare, torch_subject
from wbc_jax.bench.compare import (
    CompareOptions,
    check_same_end,
    check_same_learning,
    check_same_start,
    make_peers,
    run_compare,
)
from wbc_jax.bench.mismatch import MismatchError
from wbc_jax.bench.subject import Case, TrainSubject
from wbc_jax.bench.torch_subject import TorchSubject
from wbc_jax.bench.twins import build_twin
from wbc_jax.bench.twins.library import torchvision_models
from wbc_jax.bench.twins.networks import network
from wbc_jax.bench.twins.trunks import ResNet
from wbc_jax.cli import main
from wbc_jax.errors import UsageError
from wbc_jax.models import create_model


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


TINY = [
    ("scam_tiny", True),
    ("daffnet_tiny", True),
    ("amnet_tiny", True),
    ("amnet_tiny", False),
    ("map_tiny", False),
]
FIELDS: dict[str, dict[str, Any]] = {
    "scam_tiny": {"dropout_rate": 0.0},
    "amnet_tiny": {"dropout_rate": 0.0},
    "daffnet_tiny": {"freeze_map": False},
}


@pytest.mark.parametrize(("name", "train"), TINY)
def test_twins_have_our_outputs(name: str, train: bool) -> None:
    """Class logits and, where there are any, the attributes' logits, with batch and with running statistics."""
    model: Any = create_model(name, num_classes=5, **FIELDS.get(name, {}))
    variables = random_variables(model, 32)
    twin = build_twin(model, name, variables).train(train)
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 3)).astype(np.float32)

    def forward(variables: Any, images: Any) -> Any:
        (logits, ends), _ = model.apply(variables, images, train=train, mutable=["batch_stats"])
        return (logits, ends["attribute_logits"]) if "attribute_logits" in ends else logits

    ours = jax.tree.leaves(jax.jit(forward)(variables, images))
    with torch.no_grad():
        theirs = jax.tree.leaves(twin(torch.from_numpy(images).permute(0, 3, 1, 2)))
    assert len(ours) == len(theirs) == (2 if name in ("daffnet_tiny", "map_tiny") else 1)
    for our, their in zip(ours, theirs, strict=True):
        assert np.ptp(their.numpy()) > 0.1
        np.testing.assert_allclose(our, their.numpy(), atol=2e-3 * float(their.abs().max()))
    parameters = sum(p.numel() for p in twin.parameters())
    assert parameters == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", ["scam", "daffnet", "amnet"])
def test_full_twins_have_as_many_parameters(name: str) -> None:
    """Built without memory behind the arrays: names and shapes alone are compared."""
    model: Any = create_model(name, num_classes=5)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda key, x: model.init(key, x, train=False), keys, images)
    with torch.device("meta"):
        twin = network(model, shapes["params"])
    assert sum(p.numel() for p in twin.parameters()) == sum(
        leaf.size for leaf in jax.tree.leaves(shapes["params"])
    )


def test_our_resnet_twin_is_torchvisions() -> None:
    """The class behind the SE and EPSA twins, asked for a plain ResNet."""
    theirs = torchvision_models().resnet18(weights=None, num_classes=5).eval()
    ours = ResNet(create_model("resnet18", num_classes=5)).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


def test_variables_that_do_not_fit_are_named() -> None:
    model: Any = create_model("resnet_tiny", num_classes=5)
    variables = random_variables(model, 32)
    moved = {**variables, "params": {**variables["params"], "fd": variables["params"]["fc"]}}
    with pytest.raises(ValueError, match="params/fd/bias"):
        build_twin(model, "resnet_tiny", moved)
    with pytest.raises(ValueError, match="attention='se'"):
        build_twin(create_model("scam", num_classes=5, attention="se"), "scam", variables)


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


def test_each_peer_gets_a_row_the_faster_one_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two eager twins stands for a compiled one; it takes at least 50 ms a step."""

    class Slow(TorchSubject):
        def run(self, steps: int) -> None:
            super().run(steps)
            time.sleep(0.05 * steps)

    def both(case: Case, torch_compile: str) -> dict[str, Any]:
        (eager,) = make_peers(case).values()
        variables = {"params": case.initial.params, "batch_stats": case.initial.batch_stats}
        twin = build_twin(case.model, case.model_name, variables)
        return {"eager": eager, torch_compile: Slow(twin, case, device="cpu", compile_mode=None)}

    monkeypatch.setattr(compare, "make_peers", both)
    out = tmp_path / "compare.csv"
    options = CompareOptions(
        models=("resnet_tiny",), mode="infer", torch_compile="max-autotune", out=out,
        batch_size=2, image_size_px=32, warmup_steps=0, timed_steps=1, repeats=1,
    )  # fmt: skip
    assert run_compare(options) == 0
    with out.open(newline="") as file:
        slow, fast = csv.DictReader(file)
    assert (slow["peer"], fast["peer"]) == ("max-autotune", "eager")
    assert slow["images_per_s"] == fast["images_per_s"]
    assert float(slow["ratio"]) > float(fast["ratio"])


@pytest.mark.parametrize("theirs", [1.61, float("nan")])
def test_networks_that_differ_are_not_timed(theirs: float) -> None:
    case: Any = SimpleNamespace(mode="train", dtype=np.float32, model_name="resnet18")
    ours = SimpleNamespace(run=lambda steps: None, first_loss=1.6)
    peer = SimpleNamespace(run=lambda steps: None, first_loss=theirs)
    with pytest.raises(MismatchError, match="first losses"):
        check_same_start(case, ours, {"twin": peer})
    peer.first_loss = 1.6001
    check_same_start(case, ours, {"twin": peer})


def test_contenders_that_learn_differently_are_refused() -> None:
    case: Any = SimpleNamespace(mode="train", dtype=np.float32, model_name="resnet18")
    ours = SimpleNamespace(first_loss=1.6, last_loss=0.4)
    check_same_end(case, ours, {"twin": SimpleNamespace(last_loss=0.41)})
    with pytest.raises(MismatchError, match="our loss is"):
        check_same_end(case, ours, {"twin": SimpleNamespace(last_loss=0.9)})


@pytest.mark.parametrize(("dtype", "near", "far"), [(np.float32, 1.25, 1.37), (jnp.bfloat16, 1.2, 1.5)])
def test_an_early_loss_must_agree(dtype: Any, near: float, far: float) -> None:
    """Far is within what the end of a measurement allows."""
    case: Any = SimpleNamespace(mode="train", dtype=dtype, model_name="resnet18")
    runs: list[int] = []
    ours = SimpleNamespace(run=runs.append, first_loss=1.6, last_loss=1.3)
    peer = SimpleNamespace(run=runs.append, last_loss=near)
    check_same_learning(case, ours, {"twin": peer})
    assert runs == [7, 7]
    peer.last_loss = far
    check_same_end(case, ours, {"twin": peer})
    with pytest.raises(MismatchError, match="after 8 steps our loss is"):
        check_same_learning(case, ours, {"twin": peer})


def test_a_twin_that_does_not_learn_is_reported_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its optimiser's learning rate is 0."""
    monkeypatch.setattr(torch_subject, "LEARNING_RATE", 0.0)
    line = (
        "--models resnet_tiny --batch-size 4 --image-size-px 32 --repeats 1 --timed-steps 1 --warmup-steps 0"
    )
    assert main(["benchmark", "compare", *line.split()]) == 2
    error = capsys.readouterr().err
    assert "resnet_tiny: after 8 steps our loss is" in error
    assert "remedy: trust no time of these" in error
    assert "Traceback" not in error


def test_attribute_network_learns_as_its_twin_does() -> None:
    """First loss, with the attributes' share in it, and the loss after eight steps."""
    case = Case("map_tiny", "train", 4, 32, 5, jnp.float32)
    ours, peers = TrainSubject(case), make_peers(case)
    check_same_start(case, ours, peers)
    check_same_learning(case, ours, peers)
    check_same_end(case, ours, peers)
    (peer,) = peers.values()
    assert ours.first_loss == pytest.approx(peer.first_loss, abs=1e-4)
    assert ours.last_loss == pytest.approx(peer.last_loss, rel=0.01)
    assert ours.last_loss < ours.first_loss


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
    with pytest.raises(UsageError, match=r"no PyTorch twin of inception_v4, lenet"):
        run_compare(CompareOptions(models=("inception_v4", "resnet18", "lenet")))
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UsageError, match=r"pip install 'wbc-jax\[test\]'"):
        run_compare(CompareOptions(models=("resnet18",)))
