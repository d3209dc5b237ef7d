"""The comparison networks against torchvision's modules: every stage, logits, statistics, gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_twins as twins
from pairs import NUM_CLASSES, TOLERANCE, assert_gradients, make_pair
from torch_reference import torchvision_models

from wbc_jax.errors import UsageError
from wbc_jax.models import create_model
from wbc_jax.models.zoo.vit import VisionTransformer, resize_positions
from wbc_jax.weights.merge import flatten
from wbc_jax.weights.naming import tables
from wbc_jax.weights.naming.vit import ViTForm


class Case(NamedTuple):
    """A network of torchvision, the image size it is compared at, and which of its modules end our stages."""

    stages: dict[str, str]
    size_px: int


CASES: dict[str, Case] = {
    "alexnet": Case(
        {"features.1": "stem"} | {f"features.{i}": f"stage{s}" for s, i in enumerate((4, 7, 9, 11), 2)}, 80
    ),
    "vgg16": Case({f"features.{i}": f"stage{s}" for s, i in enumerate((3, 8, 15, 22, 29), start=1)}, 80),
    "vgg19": Case({f"features.{i}": f"stage{s}" for s, i in enumerate((3, 8, 17, 26, 35), start=1)}, 97),
}


def test_gradients_of_alexnet() -> None:
    """Dropout off; the whole network, which is shallow."""
    module = torchvision_models().alexnet(num_classes=NUM_CLASSES, dropout=0.0)
    model = create_model("alexnet", num_classes=NUM_CLASSES, dropout_rate=0.0)
    assert_gradients(
        make_pair("alexnet", module, model, CASES["alexnet"].stages, size_px=80), True, size_px=80
    )


@pytest.mark.parametrize("arch", CASES)
def test_evaluation(arch: str) -> None:
    case = CASES[arch]
    module = twins.randomise(getattr(torchvision_models(), arch)(num_classes=NUM_CLASSES), size_px=80)
    images = twins.images(case.size_px)
    theirs = twins.run(module, case.stages, images, train=False)
    model = create_model(arch, num_classes=NUM_CLASSES)
    variables = twins.variables_of(arch, module)

    @jax.jit
    def evaluate(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, train=False)

    logits, endpoints = evaluate(variables, images)
    assert_close({**endpoints, "logits": logits}, {**theirs.endpoints, "logits": theirs.logits})


def assert_close(ours: dict[str, Any], theirs: dict[str, np.ndarray]) -> None:
    differences = {name: twins.largest_difference(ours[name], value) for name, value in theirs.items()}
    assert max(differences.values()) <= TOLERANCE, differences
    for name, reference in theirs.items():  # of order one, or the tolerance would mean nothing
        assert 0.1 < np.abs(reference).max() < 30, name


def tokens_to_maps(endpoints: dict[str, np.ndarray], side: int) -> dict[str, np.ndarray]:
    """What the hooks saw of a transformer's blocks, (T, C, B) by the hooks' transposition, as (B, H, W, C)."""
    maps = {}
    for name, tokens in endpoints.items():
        batch, _, channels = tokens.shape
        maps[name] = tokens[:, 1:].reshape(batch, side, side, channels)
    return maps


def run_transformer(module: Any, images: np.ndarray, depth: int) -> dict[str, np.ndarray]:
    """Every block's tokens, (B, T, C), and the logits."""
    seen: dict[str, np.ndarray] = {}
    handles = [
        module.encoder.layers[index].register_forward_hook(
            lambda _, __, output, name=f"block{index + 1}": seen.update({name: output.detach().numpy()})
        )
        for index in range(depth)
    ]
    with torch.no_grad():
        logits = module.eval()(twins.to_nchw(images)).numpy()
    for handle in handles:
        handle.remove()
    side = images.shape[1] // 16
    return {**tokens_to_maps(seen, side), "logits": logits}


def test_vision_transformer() -> None:
    module = twins.randomise(torchvision_models().vit_b_16(num_classes=NUM_CLASSES), size_px=224)
    module.class_token.data.normal_(generator=torch.Generator().manual_seed(3))
    images = twins.images(224)
    theirs = run_transformer(module, images, depth=12)
    model = create_model("vit_b_16", num_classes=NUM_CLASSES)
    variables = twins.variables_of("vit_b_16", module)
    logits, endpoints = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    assert_close({**endpoints, "logits": logits}, theirs)


def test_gradients_of_a_small_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    form = ViTForm(width=24, depth=2, mlp_width=32, tokens=10)
    monkeypatch.setitem(tables.TABLES, "vit_short", form.leaves)
    module = torchvision_models().VisionTransformer(48, 16, 2, 3, 24, 32, num_classes=NUM_CLASSES)
    twins.randomise(module, size_px=48)
    images = twins.images(48)
    logits = module.eval()(twins.to_nchw(images))
    (logits * torch.from_numpy(twins.cotangent((2, NUM_CLASSES)))).sum().backward()
    expected = twins.gradients_of("vit_short", module, NUM_CLASSES)
    model = VisionTransformer(NUM_CLASSES, features=24, depth=2, heads=3, mlp_features=32, image_size_px=48)

    @jax.jit
    @jax.grad
    def gradient(params: Any) -> jax.Array:
        ours, _ = model.apply({"params": params}, images, train=True)
        return jnp.sum(ours * twins.cotangent(ours.shape))

    found = flatten({"params": gradient(twins.variables_of("vit_short", module)["params"])})
    assert found.keys() == expected.keys()
    for path, grad in expected.items():
        assert np.abs(grad).max() > 1e-3, path
        assert twins.largest_difference(found[path], grad) <= TOLERANCE * max(1.0, np.abs(grad).max()), path


def test_position_embedding_follows_the_image_size() -> None:
    """Its own size leaves it alone; enlarged, a ramp stays the same ramp away from the borders."""
    rows, columns = np.meshgrid(np.arange(6.0), np.arange(6.0), indexing="ij")
    grid = np.stack([rows, columns], axis=-1).reshape(36, 2)
    embedding = jnp.asarray(np.concatenate([[[7.0, 8.0]], grid])[None], jnp.float32)
    assert resize_positions(embedding, 6, 6) is embedding
    larger = np.asarray(resize_positions(embedding, 12, 18))
    np.testing.assert_array_equal(larger[0, 0], [7.0, 8.0])
    found = larger[0, 1:].reshape(12, 18, 2)[4:8, 6:12]
    np.testing.assert_allclose(found[:, 0, 0], (np.arange(4, 8) + 0.5) / 2 - 0.5, atol=1e-5)
    np.testing.assert_allclose(found[0, :, 1], (np.arange(6, 12) + 0.5) / 3 - 0.5, atol=1e-5)


def test_transformer_takes_other_image_sizes() -> None:
    model = VisionTransformer(3, features=8, depth=1, heads=2, mlp_features=16, image_size_px=48)
    variables = model.init(jax.random.key(0), twins.images(48), train=False)
    logits, endpoints = model.apply(variables, twins.images(80), train=False)
    assert (logits.shape, endpoints["block1"].shape) == ((2, 3), (2, 5, 5, 8))
    with pytest.raises(UsageError, match="patch size, 16 px"):
        model.apply(variables, twins.images(72), train=False)
