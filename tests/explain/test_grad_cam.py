"""Grad-CAM against maps known in closed form, finite differences and a NumPy oracle of its conventions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from wbc_jax.explain.grad_cam import feature_maps, grad_cam, raw_grad_cam
from wbc_jax.explain.overlay import explanation_figure, overlay
from wbc_jax.models import create_model
from wbc_jax.models.endpoints import Endpoints, record, tap_variables


class OneConv(nn.Module):
    """A 1x1 convolution, global mean, linear head: the map's weights are the head's columns over its area."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, Endpoints]:
        endpoints: Endpoints = {}
        x = record(self, endpoints, "map", nn.Conv(4, (1, 1), name="conv")(images))
        gate = jax.nn.sigmoid(x[..., :1])
        endpoints["gate"] = gate
        pooled = record(self, endpoints, "pooled", x.mean(axis=(1, 2)))
        return nn.Dense(self.num_classes, use_bias=False, name="head")(pooled), endpoints


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (3, 6, 5, 3))


@pytest.fixture(scope="module")
def net(images: jax.Array) -> tuple[OneConv, Any]:
    model = OneConv()
    return model, model.init(jax.random.key(1), images, train=False)


def known_map(variables: Any, images: jax.Array, classes: list[int]) -> np.ndarray:
    kernel = np.asarray(variables["params"]["conv"]["kernel"])[0, 0]
    features = np.asarray(images) @ kernel + np.asarray(variables["params"]["conv"]["bias"])
    head = np.asarray(variables["params"]["head"]["kernel"])  # (4, K)
    area = images.shape[1] * images.shape[2]
    maps = [features[i] @ (head[:, k] / area) for i, k in enumerate(classes)]
    return np.maximum(np.stack(maps), 0)


def test_the_map_of_one_convolution_is_known(net: tuple[OneConv, Any], images: jax.Array) -> None:
    model, variables = net
    for k in range(3):
        found = raw_grad_cam(model, variables, images, "map", k)
        np.testing.assert_allclose(found, known_map(variables, images, [k] * 3), rtol=1e-5, atol=1e-7)


def test_without_a_class_each_image_explains_its_own_prediction(
    net: tuple[OneConv, Any], images: jax.Array
) -> None:
    model, variables = net
    predicted = np.asarray(model.apply(variables, images, train=False)[0].argmax(axis=-1))
    assert len(set(predicted.tolist())) > 1, "the images should differ in their class"
    expected = known_map(variables, images, predicted.tolist())
    np.testing.assert_allclose(raw_grad_cam(model, variables, images, "map"), expected, rtol=1e-5, atol=1e-7)
    chosen = grad_cam(model, variables, images, "map", jnp.asarray(predicted))
    np.testing.assert_array_equal(grad_cam(model, variables, images, "map"), chosen)


def test_scaling_follows_the_convention(net: tuple[OneConv, Any], images: jax.Array) -> None:
    """Minimum to 0, then divided by 1e-7 + maximum, per image; map and image have one size here."""
    model, variables = net
    raw = known_map(variables, images, [2, 2, 2])
    shifted = raw - raw.min(axis=(1, 2), keepdims=True)
    expected = shifted / (1e-7 + shifted.max(axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(grad_cam(model, variables, images, "map", 2), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def scam() -> tuple[Any, Any, jax.Array]:
    """SCAM over the small ResNet; its weights are drawn here, as compiling the initialisers takes longer."""
    model = create_model("scam_tiny", num_classes=4, branches="resnet")
    images = jax.random.normal(jax.random.key(2), (2, 32, 32, 3))
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    random = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> jax.Array:
        if path[-1].key in ("scale", "var"):
            return jnp.ones(leaf.shape)
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        return jnp.asarray(random.normal(0, fan_in**-0.5, leaf.shape), jnp.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes), images


@pytest.mark.parametrize("endpoint", ["attended", "fused", "resnet/stage2"])
def test_the_weights_are_finite_differences(scam: tuple[Any, Any, jax.Array], endpoint: str) -> None:
    """Channel weights: how the logit answers when the whole channel is lifted a little, over its area."""
    model, variables, images = scam
    shape = feature_maps(model, variables, images)[endpoint]
    channels = [0, 3, shape[-1] - 1]

    @jax.jit
    def logits(lift: jax.Array) -> tuple[jax.Array, jax.Array]:
        lifted = jnp.broadcast_to(lift[None, None, None, :], shape)
        out, endpoints = model.apply({**variables, **tap_variables(endpoint, lifted)}, images, train=False)
        return out[:, 1], endpoints[endpoint]

    def score(offset: jax.Array) -> jax.Array:
        out, _ = model.apply({**variables, **tap_variables(endpoint, offset)}, images, train=False)
        return out[:, 1].sum()

    gradient = jax.jit(jax.grad(score))(jnp.zeros(shape))
    weights = np.asarray(gradient.mean(axis=(1, 2)))
    scale = np.abs(weights[:, channels]).max()
    assert scale > 1e-4, "well above the rounding of the logits"
    step = 1e-2
    area = shape[1] * shape[2]
    for channel in channels:
        lift = jnp.zeros(shape[-1]).at[channel].set(step)
        difference = np.asarray(logits(lift)[0] - logits(-lift)[0]) / (2 * step) / area
        np.testing.assert_allclose(weights[:, channel], difference, rtol=0.02, atol=0.02 * scale)
    features = np.asarray(logits(jnp.zeros(shape[-1]))[1])
    expected = np.maximum((weights[:, None, None, :] * features).sum(axis=-1), 0)
    found = raw_grad_cam(model, variables, images, endpoint, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_maps_have_the_size_of_the_images_and_do_not_mix(scam: tuple[Any, Any, jax.Array]) -> None:
    model, variables, images = scam
    explain = jax.jit(lambda v, x: grad_cam(model, v, x, "attended", 0))
    both, alone = explain(variables, images), explain(variables, images[1:])
    assert both.shape == (2, 32, 32)
    assert float(both.min()) >= 0
    assert float(both.max()) <= 1
    np.testing.assert_allclose(both[1:], alone, atol=1e-4)


def test_only_feature_maps_can_be_explained(net: tuple[OneConv, Any], images: jax.Array) -> None:
    model, variables = net
    assert feature_maps(model, variables, images) == {"map": (3, 6, 5, 4)}
    for name in ("pooled", "gate", "mop"):
        with pytest.raises(ValueError, match=f"no feature map '{name}'; there are map"):
            grad_cam(model, variables, images, name)


def test_feature_maps_come_in_the_order_of_computation(scam: tuple[Any, Any, jax.Array]) -> None:
    names = list(feature_maps(*scam))
    assert names[-2:] == ["fused", "attended"]
    assert names.index("resnet/stem") < names.index("resnet/stage4") < names.index("project_resnet")


def test_overlay_is_half_image_half_jet() -> None:
    from matplotlib import colormaps

    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    heat = np.linspace(0, 1, 20).reshape(4, 5)
    jet = np.asarray(colormaps["jet"](np.floor(255 * heat).astype(int)))[..., :3]
    mixed = 0.5 * image / 255 + 0.5 * jet
    expected = np.floor(255 * mixed / mixed.max())
    found = overlay(image, heat)
    assert found.dtype == np.uint8
    assert found.max() == 255
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_figure_is_written_for_one_and_for_many(tmp_path) -> None:
    image, heat = np.zeros((8, 8, 3), np.uint8), np.linspace(0, 1, 64).reshape(8, 8)
    for count in (1, 5):
        path = explanation_figure(
            [image] * count, [heat] * count, ["a\nb"] * count, tmp_path / f"{count}.png", endpoint="attended"
        )
        with Image.open(path) as figure:
            assert figure.size[0] > figure.size[1]
