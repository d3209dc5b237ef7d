"""The gates against a plain restatement in torch, with random weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wbc_jax.errors import UsageError
from wbc_jax.models.attention import Attention, SpatialGate, eca_kernel_size
from wbc_jax.models.resnet import _Block

SIZES = [(2, 7, 7, 32), (3, 5, 9, 64)]
KINDS = ("none", "cam", "sam", "parallel", "csam", "scam", "se", "eca")


def random_like(tree: Any, seed: int) -> Any:
    """Random values everywhere, positive where they are variances."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.Array) -> jax.Array:
        values = rng.normal(0.0, 0.5, leaf.shape).astype(np.float32)
        return jnp.asarray(np.abs(values) + 0.5 if path[-1].key == "var" else values)

    return jax.tree_util.tree_map_with_path(draw, tree)


def to_torch(x: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(x))


class Restated:
    """Every arm, from the definitions of blocks.md 5 and 7, on NCHW tensors."""

    def __init__(self, variables: Any) -> None:
        self.params = jax.tree.map(to_torch, variables["params"])
        self.statistics = jax.tree.map(to_torch, variables.get("batch_stats", {}))

    def mlp(self, gate: str, pooled: torch.Tensor) -> torch.Tensor:
        squeeze, excite = self.params[gate]["squeeze"], self.params[gate]["excite"]
        hidden = F.relu(F.linear(pooled, squeeze["kernel"].T, squeeze["bias"]))
        return F.linear(hidden, excite["kernel"].T, excite["bias"])

    def cam(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.mlp("channel_gate", x.mean((2, 3))) + self.mlp("channel_gate", x.amax((2, 3)))
        return x * torch.sigmoid(logits)[:, :, None, None]

    def sam(self, x: torch.Tensor) -> torch.Tensor:
        maps = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)
        gate = self.params["spatial_gate"]
        mixed = F.conv2d(maps, gate["conv"]["kernel"].permute(3, 2, 0, 1), padding=3)
        running = self.statistics["spatial_gate"]["bn"]
        bn = gate["bn"]
        mixed = F.batch_norm(mixed, running["mean"], running["var"], bn["scale"], bn["bias"], eps=1e-5)
        return x * torch.sigmoid(mixed)

    def se(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.mlp("se", x.mean((2, 3))))[:, :, None, None]

    def eca(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.params["eca"]["kernel"]
        mixed = F.conv1d(x.mean((2, 3))[:, None, :], kernel.permute(2, 1, 0), padding=kernel.shape[0] // 2)
        return x * torch.sigmoid(mixed[:, 0, :, None, None])

    def __call__(self, kind: str, x: torch.Tensor) -> torch.Tensor:
        match kind:
            case "none":
                return x
            case "parallel":
                return self.sam(x) + self.cam(x)
            case "csam":
                return self.sam(self.cam(x))
            case "scam":
                return self.cam(self.sam(x))
        return getattr(self, kind)(x)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_arm_equals_its_restatement(kind: Any, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).normal(0.2, 1.0, shape).astype(np.float32)
    model = Attention(kind)
    variables = {"params": {}, **model.init(jax.random.key(0), x, use_running_average=True)}
    variables = random_like(variables, seed=2)

    def ours(x: jax.Array) -> jax.Array:
        return model.apply(variables, x, use_running_average=True)[0]

    weights = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    gated, pull = jax.vjp(ours, x)
    theirs_in = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    theirs = Restated(variables)(kind, theirs_in).permute(0, 2, 3, 1)
    (theirs * torch.tensor(weights)).sum().backward()
    assert theirs_in.grad is not None
    np.testing.assert_allclose(gated, theirs.detach().numpy(), atol=2e-6)
    np.testing.assert_allclose(pull(weights)[0], theirs_in.grad.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_the_two_orders_differ() -> None:
    """Otherwise the ablation between them would compare a network with itself."""
    x = np.random.default_rng(1).normal(size=SIZES[0]).astype(np.float32)
    variables = random_like(Attention("scam").init(jax.random.key(0), x, use_running_average=True), seed=2)
    out = [
        Attention(k).apply(variables, x, use_running_average=True)[0] for k in ("scam", "csam", "parallel")
    ]
    assert all(np.abs(a - b).max() > 1e-2 for a, b in ((out[0], out[1]), (out[0], out[2]), (out[1], out[2])))


@pytest.mark.parametrize(
    ("kind", "leaves"),
    [
        ("cam", {"channel_gate/squeeze/kernel", "channel_gate/squeeze/bias", "channel_gate/excite/kernel",
                 "channel_gate/excite/bias"}),
        ("sam", {"spatial_gate/conv/kernel", "spatial_gate/bn/scale", "spatial_gate/bn/bias"}),
        ("se", {"se/squeeze/kernel", "se/squeeze/bias", "se/excite/kernel", "se/excite/bias"}),
        ("eca", {"eca/kernel"}),
    ],
)  # fmt: skip
def test_gate_parameters(kind: Any, leaves: set[str]) -> None:
    """The channel MLP is shared and has biases; the spatial convolution has none."""
    variables = Attention(kind).init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)), use_running_average=True)
    paths = jax.tree_util.tree_leaves_with_path(variables["params"])
    assert {"/".join(k.key for k in path) for path, _ in paths} == leaves


def test_spatial_gate_reads_maximum_then_mean() -> None:
    """A kernel that reads only the first map must see the maximum, one that reads the second the mean."""
    x = np.random.default_rng(4).normal(size=(1, 6, 6, 8)).astype(np.float32)
    gate = SpatialGate()
    variables = gate.init(jax.random.key(0), x, use_running_average=True)
    for index, expected in ((0, x.max(-1)), (1, x.mean(-1))):
        kernel = jnp.zeros((7, 7, 2, 1)).at[3, 3, index, 0].set(1.0)
        params = {**variables["params"], "conv": {"kernel": kernel}}
        out = gate.apply({**variables, "params": params}, x, use_running_average=True)
        np.testing.assert_allclose(jax.scipy.special.logit(out[..., 0]), expected, rtol=1e-3, atol=1e-4)


def test_gradient_through_a_maximum_survives_other_roundings() -> None:
    """At this level XLA computes the gated map twice, rounded differently: `jnp.max` has a gradient of 0 / 0 here."""
    random = np.random.default_rng(2)
    x = jnp.asarray(random.normal(0.2, 1.0, (2, 10, 9, 24)), jnp.float32)
    block = _Block(64, 1, bottleneck=False, spatial_gate=True)
    variables = jax.tree.map(
        lambda a: jnp.asarray(
            random.uniform(0.5, 1.5, a.shape) if a.ndim == 1 else random.normal(0, 0.1, a.shape), jnp.float32
        ),
        block.init(jax.random.key(0), x, use_running_average=True),
    )
    weights = random.normal(size=(2, 10, 9, 64)).astype(np.float32)

    def loss(x: jax.Array) -> jax.Array:
        return (block.apply(variables, x, use_running_average=True) * weights).sum()

    quick = jax.jit(jax.grad(loss), compiler_options={"xla_backend_optimization_level": 0})(x)
    np.testing.assert_allclose(quick, jax.jit(jax.grad(loss))(x), atol=1e-4)


def test_spatial_gate_is_alive_at_the_start_and_averages_slowly() -> None:
    x = jnp.asarray(np.random.default_rng(5).normal(size=(2, 6, 6, 8)), jnp.float32)
    gate = SpatialGate()
    variables = gate.init(jax.random.key(0), x, use_running_average=True)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        out, updated = gate.apply(
            {**variables, "params": params}, x, use_running_average=False, mutable=["batch_stats"]
        )
        return (out * x.mean(-1, keepdims=True)).sum(), updated["batch_stats"]

    gradient, statistics = jax.grad(loss, has_aux=True)(variables["params"])
    assert np.abs(gradient["conv"]["kernel"]).min() > 0.0
    maps = torch.tensor(np.stack([x.max(-1), x.mean(-1)], 1))
    kernel = torch.tensor(np.asarray(variables["params"]["conv"]["kernel"])).permute(3, 2, 0, 1)
    mixed = F.conv2d(maps, kernel, padding=3)
    np.testing.assert_allclose(statistics["bn"]["mean"], [0.01 * mixed.mean()], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(statistics["bn"]["var"], [0.99 + 0.01 * mixed.var(correction=0)], rtol=1e-5)


@pytest.mark.parametrize(("channels", "size"), [(64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_eca_kernel_size(channels: int, size: int) -> None:
    assert eca_kernel_size(channels) == size


def test_unknown_arm_is_refused() -> None:
    model = Attention("cbam")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="csam"):
        model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)), use_running_average=True)
