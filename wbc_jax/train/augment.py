"""Augmentation of uint8 batches on the device, inside the training step.

The order is: one geometric resampling to the size that the network sees, then colour, then normalisation. Flip,
rotation, zoom, shift and crop are one affine map, so an image is interpolated once; stain and colour are two affine
maps with a logarithm and an exponential between. Every image draws its own values; all of them follow from the key,
whatever devices the batch lies on.

Geometry: at zoom 1 an output pixel is a store pixel, so a store larger than the network's image is cropped, not
shrunk: the window lies on the store's centre, moved by the random shift. A store of 256 px with images of 224 px and
a translation of 1/14 is the classic random crop. A store smaller than the image is enlarged to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from wbc_jax.train.colour import (
    apply_affine,
    colour_matrix,
    from_optical_density,
    optical_density,
    stain_matrix,
)
from wbc_jax.train.geometry import affine_sample, centre_crop, inverse_affine

Array = jax.Array

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """Strengths of the augmentation; the defaults change nothing.

    Attributes:
        image_size_px: side of the output, px.
        flip: mirror top to bottom and left to right, each with probability 0.5.
        rotation_deg: range of the rotation, degrees, counter-clockwise.
        translation: largest shift either way along each axis, share of `image_size_px`.
        scale: range of the zoom, drawn evenly in its logarithm; above 1 shows a smaller part.
        crop_area: range of the area, drawn evenly, of a part at a random place that is stretched to the whole image;
            share of what evaluation shows. None: no such crop.
        crop_ratio: range of that part's width over its height, drawn evenly in its logarithm; no side is longer
            than the whole.
        brightness: largest change either way, share of full scale.
        contrast: largest change of contrast about mid-grey either way, share.
        saturation: largest change of saturation either way, share.
        hue: largest rotation of the hue either way, turns.
        colour_probability: share of the images that each of the four changes above is made to, drawn apart.
        stain: largest change of each stain's amount either way, share, and largest added amount either way, in
            units of optical density.
        exact_share: share of the images that are moved without interpolation: by quarter turns within
            `rotation_deg`, mirrors and whole pixels, uncropped. Evaluation never interpolates, and a network that
            has only seen interpolated images meets sharper ones there.
    """

    image_size_px: int
    flip: bool = False
    rotation_deg: tuple[float, float] = (0.0, 0.0)
    translation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    crop_area: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    colour_probability: float = 1.0
    stain: float = 0.0
    exact_share: float = 0.0

    @property
    def resamples(self) -> bool:
        """Whether images are interpolated rather than cropped and mirrored."""
        return self.reshapes or self.translation != 0.0

    @property
    def reshapes(self) -> bool:
        """Whether images are turned, zoomed or stretched, which takes interpolation."""
        return self.rotation_deg != (0.0, 0.0) or self.scale != (1.0, 1.0) or self.crop_area is not None

    @property
    def recolours(self) -> bool:
        """Whether any linear colour change is on."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))


@struct.dataclass
class AugmentDraw:
    """What was drawn for each of B images.

    Attributes:
        mirror: float32 `(B, 2)`, -1 or 1, top to bottom and left to right.
        angle_rad: float32 `(B,)`.
        zoom: float32 `(B,)`.
        shift_px: float32 `(B, 2)`, down and right.
        brightness, contrast, saturation, hue_turns: float32 `(B,)`, as `colour.colour_matrix` takes them.
        stain_factors, stain_shifts: float32 `(B, 3)`, as `colour.stain_matrix` takes them.
        window: float32 `(B, 4)`, as `geometry.inverse_affine` takes it, or None.
    """

    mirror: Array
    angle_rad: Array
    zoom: Array
    shift_px: Array
    brightness: Array
    contrast: Array
    saturation: Array
    hue_turns: Array
    stain_factors: Array
    stain_shifts: Array
    window: Array | None = None


def draw(key: Array, batch_size: int, spec: AugmentSpec) -> AugmentDraw:
    """Draw the changes for a batch; under pmap draw for the whole batch and take each device's part."""
    # One call of the generator for all that is drawn: several would each take a share of a second to compile.
    count = 17 if spec.crop_area is None and spec.colour_probability == 1.0 else 25
    unit = jax.random.uniform(key, (batch_size, count), jnp.float32, -1.0, 1.0)
    low, high = (float(np.log(bound)) for bound in spec.scale)
    shift = unit[:, 2:4] * (spec.translation * spec.image_size_px)
    first, last = (float(np.deg2rad(bound)) for bound in spec.rotation_deg)
    angle = (first + last) / 2 + unit[:, 4] * ((last - first) / 2)
    zoom = jnp.exp((low + high) / 2 + unit[:, 5] * ((high - low) / 2))
    exact = unit[:, 16] < 2.0 * spec.exact_share - 1.0
    if not spec.reshapes:
        exact = jnp.ones_like(exact)  # a pure shift by whole pixels blurs nothing
    quarter = float(np.pi / 2)
    turns = math.ceil(spec.rotation_deg[0] / 90), math.floor(spec.rotation_deg[1] / 90)
    chosen = jnp.ones((batch_size, 4), jnp.float32)  # brightness, contrast, saturation, hue
    if spec.colour_probability < 1.0:
        chosen = (unit[:, 21:25] < 2.0 * spec.colour_probability - 1.0).astype(jnp.float32)
    colour = unit[:, 6:10] * chosen
    return AugmentDraw(
        mirror=jnp.where((unit[:, 0:2] < 0.0) & spec.flip, -1.0, 1.0).astype(jnp.float32),
        shift_px=jnp.where(exact[:, None], jnp.round(shift), shift),
        angle_rad=jnp.where(exact, jnp.clip(jnp.round(angle / quarter), *turns) * quarter, angle),
        zoom=jnp.where(exact, 1.0, zoom),
        brightness=colour[:, 0] * spec.brightness,
        contrast=1.0 + colour[:, 1] * spec.contrast,
        saturation=1.0 + colour[:, 2] * spec.saturation,
        hue_turns=colour[:, 3] * spec.hue,
        stain_factors=1.0 + unit[:, 10:13] * spec.stain,
        stain_shifts=unit[:, 13:16] * spec.stain,
        window=None if spec.crop_area is None else _window(unit[:, 17:21], exact, spec),
    )


def _window(unit: Array, exact: Array, spec: AugmentSpec) -> Array:
    """Parts to be stretched, float32 `(B, 4)`, from `(B, 4)` numbers in [-1, 1); the whole where `exact`."""
    low, high = spec.crop_area or (1.0, 1.0)
    area = (low + high) / 2 + unit[:, 0] * ((high - low) / 2)
    narrow, wide = (float(np.log(bound)) for bound in spec.crop_ratio)
    ratio = jnp.exp((narrow + wide) / 2 + unit[:, 1] * ((wide - narrow) / 2))
    sides = jnp.sqrt(jnp.stack([area / ratio, area * ratio], axis=-1))  # (B, 2), height and width
    sides = jnp.where(exact[:, None], 1.0, jnp.minimum(sides, 1.0))
    centre = unit[:, 2:4] * (1.0 - sides) * (spec.image_size_px / 2)
    return jnp.concatenate([sides, centre], axis=-1)


def augment(key: Array, images_u8: Array, spec: AugmentSpec) -> Array:
    """Return randomly changed, normalised images.

    Args:
        key: random key; the same key gives the same images.
        images_u8: uint8 `(B, S, S, 3)`, RGB.
        spec: how strongly to change them, static under jit.

    Returns:
        float32 `(B, H, H, 3)`, H = `spec.image_size_px`, normalised as `normalize` does.
    """
    return apply_draw(images_u8, draw(key, images_u8.shape[0], spec), spec)


def apply_draw(images_u8: Array, drawn: AugmentDraw, spec: AugmentSpec) -> Array:
    """Carry out `drawn` on uint8 `(B, S, S, 3)`; steps whose strength in `spec` is 0 are left out altogether."""
    if spec.resamples:
        images = _resample(images_u8, drawn, spec.image_size_px)  # (B, H, H, 3)
    else:
        images = _flip(_to_size(images_u8, spec.image_size_px), drawn.mirror)  # (B, H, H, 3)
    if spec.stain or spec.recolours:
        images = _recolour(_unit_range(images), drawn, spec)
    return normalize(images)


def _resample(images_u8: Array, drawn: AugmentDraw, size_px: int) -> Array:
    margin = images_u8.shape[1] - size_px
    # The middle of an odd margin lies between two pixels: take centre_crop's side, so that no change means no blur.
    shift = drawn.shift_px + (0.5 if margin > 0 and margin % 2 else 0.0)
    base_scale = min(1.0, images_u8.shape[1] / size_px)
    maps = inverse_affine(
        drawn.angle_rad, drawn.zoom, shift, drawn.mirror, drawn.window, base_scale=base_scale
    )

    def sample(images_u8: Array, maps: Array) -> Array:
        return affine_sample(images_u8, maps, size_px)

    def sample_apart(images_u8: Array, maps: Array) -> Array:
        # XLA:CPU fuses the colour's logarithms into the gather's loop, where they run one by one, and drops
        # optimization_barrier before that. Nothing is fused across a conditional: 38,000 img/s against 8,000 with
        # colour on (96 to 64 px, 2 cores of an AMD EPYC, November 2026). The other branch is never taken.
        shape = (images_u8.shape[0], size_px, size_px, images_u8.shape[3])
        return jax.lax.cond(
            jnp.all(drawn.zoom > 0.0),
            sample,
            lambda *_: jnp.full(shape, jnp.nan, jnp.float32),
            images_u8,
            maps,
        )

    return jax.lax.platform_dependent(images_u8, maps, cpu=sample_apart, default=sample)


def _recolour(images: Array, drawn: AugmentDraw, spec: AugmentSpec) -> Array:
    colours = images.reshape(images.shape[0], -1, 3)  # (B, P, 3)
    if spec.stain:
        matrix, offset = stain_matrix(drawn.stain_factors, drawn.stain_shifts)
        colours = from_optical_density(apply_affine(optical_density(colours), matrix, offset))
    if spec.recolours:
        matrix, offset = colour_matrix(drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue_turns)
        colours = apply_affine(colours, matrix, offset)
    return jnp.clip(colours, 0.0, 1.0).reshape(images.shape)


def _flip(images: Array, mirror: Array) -> Array:
    vertical, horizontal = (mirror[:, axis, None, None, None] < 0.0 for axis in (0, 1))
    images = jnp.where(vertical, images[:, ::-1], images)
    return jnp.where(horizontal, images[:, :, ::-1], images)


def _to_size(images: Array, size_px: int) -> Array:
    if images.shape[1] >= size_px:
        return centre_crop(images, size_px)
    # As training enlarges them, so that both see images of one sharpness.
    one = jnp.ones((images.shape[0],), jnp.float32)
    pair = jnp.ones((images.shape[0], 2), jnp.float32)
    maps = inverse_affine(0.0 * one, one, 0.0 * pair, pair, base_scale=images.shape[1] / size_px)
    return affine_sample(images, maps, size_px)


def _unit_range(images: Array) -> Array:
    """uint8 -> float32 in [0, 1]; float32 is taken to be there already."""
    return images.astype(jnp.float32) * (1.0 / 255.0) if images.dtype == jnp.uint8 else images


def normalize(images: Array) -> Array:
    """Map uint8 `(..., 3)`, or float32 in [0, 1], to float32 less ImageNet's channel means, over its deviations."""
    mean, std = (
        jnp.asarray(v, jnp.float32).reshape((1,) * (images.ndim - 1) + (3,))
        for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (_unit_range(images) - mean) / std


def center(images_u8: Array, image_size_px: int) -> Array:
    """Prepare images for evaluation: uint8 `(B, S, S, 3)` -> float32 `(B, H, H, 3)`, normalised, nothing random.

    The centre at native scale when S >= H (all of it when equal), enlarged by cubic convolution when S < H.
    """
    return normalize(_to_size(images_u8, image_size_px))


def mixup(key: Array, images: Array, soft_labels: Array, alpha: float) -> tuple[Array, Array, Array]:
    """Mix each sample with a partner from the same batch (Zhang et al. 2018; mixup-cifar10: one weight a batch).

    Args:
        key: random key.
        images: float `(B, H, W, C)`.
        soft_labels: float `(B, K)`.
        alpha: parameter of Beta(alpha, alpha), static; 0 or less changes nothing.

    Returns:
        mixed images, mixed labels, and lambda, float32 `()`: each sample's own share.
    """
    if alpha <= 0.0:
        return images, soft_labels, jnp.float32(1.0)
    weight_key, partner_key = jax.random.split(key)
    lam = jax.random.beta(weight_key, alpha, alpha, dtype=jnp.float32)
    partner = jax.random.permutation(partner_key, images.shape[0])

    def mix(values: Array) -> Array:
        share = lam.astype(values.dtype).reshape((1,) * values.ndim)
        return share * values + (1 - share) * values.at[partner].get(mode="promise_in_bounds")

    return mix(images), mix(soft_labels), lam
