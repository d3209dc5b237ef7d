"""Contributions of attributes: against a network whose answer is known, one occlusion at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from wbc_jax.catalog import ABSENT, ATTRIBUTES
from wbc_jax.explain.attributes import (
    attribute_contributions,
    decides_by_attributes,
    occlude_each,
    uniform_prior,
    value_frequencies,
)
from wbc_jax.explain.cell_figure import AttributeReading, cell_figure, signed
from wbc_jax.models.attribute_groups import group_softmax

SIZES = [len(attribute.values) for attribute in ATTRIBUTES]
BATCH = 4


class LinearDecoder(nn.Module):
    """Class logits that are linear in the attribute probabilities, plus something of the image."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, *, train: bool, attribute_logits=None):
        means = images.mean(axis=(1, 2))  # (B, 3)
        if attribute_logits is None:
            attribute_logits = nn.Dense(31, name="predictor")(means)
        seen = nn.Dense(self.num_classes, name="semantic")(means)
        weights = self.param("decoder", nn.initializers.normal(1.0), (31, self.num_classes))
        return seen + group_softmax(attribute_logits) @ weights, {"attribute_logits": attribute_logits}


class Blind(nn.Module):
    """Predicts attributes, but no class by them."""

    @nn.compact
    def __call__(self, images, *, train: bool):
        return images.mean(axis=(1, 2)), {}


@pytest.fixture(scope="module")
def case() -> tuple[Any, Any, jax.Array, jax.Array]:
    model = LinearDecoder()
    images = jax.random.normal(jax.random.key(0), (BATCH, 6, 6, 3))
    variables = model.init(jax.random.key(1), images, train=False)
    endpoints: Any = model.apply(variables, images, train=False)[1]
    return model, variables, images, 3.0 * endpoints["attribute_logits"]


def test_contributions_are_those_of_a_linear_decoder(case) -> None:
    model, variables, images, logits = case
    prior = jnp.asarray(np.concatenate([np.random.default_rng(0).dirichlet(np.ones(n)) for n in SIZES]))
    prior = prior.astype(jnp.float32)
    classes = jnp.array([0, 2, 1, 2])
    found = attribute_contributions(model, variables, images, logits, prior, classes)
    weights = np.asarray(variables["params"]["decoder"], np.float64)  # (31, K)
    difference = np.asarray(group_softmax(logits) - prior[None], np.float64)  # (B, 31)
    ends = np.cumsum(SIZES)
    for row, chosen in enumerate(classes):
        for column, (size, end) in enumerate(zip(SIZES, ends, strict=True)):
            part = slice(end - size, end)
            expected = difference[row, part] @ weights[part, int(chosen)]
            assert float(found[row, column]) == pytest.approx(expected, abs=1e-5)


def test_only_one_attribute_is_taken_away_at_a_time(case) -> None:
    logits = case[3]
    occluded = occlude_each(logits, jnp.asarray(uniform_prior()))
    assert occluded.shape == (11, BATCH, 31)
    ends = np.cumsum(SIZES)
    for column, (size, end) in enumerate(zip(SIZES, ends, strict=True)):
        changed = np.zeros(31, bool)
        changed[end - size : end] = True
        np.testing.assert_array_equal(occluded[column][:, ~changed], logits[:, ~changed])
        np.testing.assert_allclose(
            group_softmax(occluded[column])[:, changed], np.full((BATCH, size), 1 / size), rtol=1e-6
        )


def test_an_impossible_value_stays_impossible_and_finite(case) -> None:
    prior = np.zeros(31, np.float32)
    prior[np.cumsum([0, *SIZES[:-1]])] = 1.0  # the first value of each attribute
    occluded = occlude_each(case[3], jnp.asarray(prior))
    assert np.isfinite(occluded).all()
    np.testing.assert_allclose(group_softmax(occluded[2])[:, 4:10], [[1, 0, 0, 0, 0, 0]] * BATCH, atol=1e-6)


def test_the_image_is_looked_at_once(case) -> None:
    """Twelve decoders, but the layer that reads the image is not repeated."""
    model, variables, images, logits = case
    traced = jax.make_jaxpr(
        lambda images: attribute_contributions(
            model, variables, images, logits, jnp.asarray(uniform_prior()), jnp.zeros(BATCH, jnp.int32)
        )
    )(images)
    assert f"f32[11,{BATCH},6,6,3]" not in str(traced)
    assert f"f32[11,{BATCH},31]" in str(traced)


def test_which_networks_decide_by_attributes() -> None:
    assert decides_by_attributes(LinearDecoder())
    assert not decides_by_attributes(Blind())


def test_value_frequencies_are_shares_of_the_annotated() -> None:
    attributes = np.zeros((5, 11), np.int32)
    attributes[:, 2] = [5, 5, 1, ABSENT, ABSENT]
    shares = value_frequencies(attributes)
    assert shares is not None
    np.testing.assert_allclose(shares[4:10], [0, 1 / 3, 0, 0, 0, 2 / 3])
    assert shares.sum() == pytest.approx(11)
    assert uniform_prior().sum() == pytest.approx(11)
    attributes[:, 0] = ABSENT
    assert value_frequencies(attributes) is None


@pytest.mark.parametrize("contribution", [None, -0.4])
def test_the_figure_of_a_cell_is_drawn(tmp_path: Path, contribution: float | None) -> None:
    random = np.random.default_rng(0)
    readings = [
        AttributeReading(name=a.name, value=a.values[-1], confidence=0.7, contribution=contribution)
        for a in ATTRIBUTES
    ]
    path = cell_figure(
        random.integers(0, 256, (20, 20, 3), dtype=np.uint8),
        random.random((20, 20)),
        {"eosinophil": 0.9, "monocyte": 0.1},
        readings,
        tmp_path / "cell.png",
        title="a.png: eosinophil 90.0 %",
        explained="eosinophil",
        endpoint="stage4",
    )
    with Image.open(path) as figure:
        assert figure.size[0] > (1700 if contribution else 1300)
        assert np.asarray(figure.convert("L")).std() > 5


def test_signed_numbers_never_show_a_signed_nothing() -> None:
    assert [signed(value, 2) for value in (0.314, -0.314, 0.004, -0.004)] == [
        "+0.31",
        "\N{MINUS SIGN}0.31",
        "0",
        "0",
    ]
