"""Batched affine resampling of images, and the matrices that augmentation resamples with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def inverse_affine(
    angle_rad: Array,
    zoom: Array,
    shift_px: Array,
    mirror: Array,
    window: Array | None = None,
    *,
    base_scale: float = 1.0,
) -> Array:
    """Return the map from output pixels to source pixels of "mirror, turn, crop, zoom, shift", both about the centres.

    Args:
        angle_rad: float32 `(B,)`, turn of the image content, counter-clockwise as displayed.
        zoom: float32 `(B,)`, above 1 enlarges the content.
        shift_px: float32 `(B, 2)`, shift of the content down and right, output pixels.
        mirror: float32 `(B, 2)`, -1 mirrors the source top to bottom or left to right, 1 does not.
        window: float32 `(B, 4)`, a part of the turned image that is stretched to all of it: its height and width,
            share of the whole, and its centre down and right, output pixels; None: the whole.
        base_scale: source pixels per output pixel at zoom 1.

    Returns:
        float32 `(B, 2, 3)`: source (y, x) relative to its centre = matrix @ (y, x, 1) relative to the output's centre.
    """
    cos, sin = jnp.cos(angle_rad), jnp.sin(angle_rad)
    turn = jnp.stack([jnp.stack([cos, sin], axis=-1), jnp.stack([-sin, cos], axis=-1)], axis=-2)  # (B, 2, 2)
    linear = turn * (base_scale / zoom)[:, None, None] * mirror[:, :, None]
    centre = (
        0.0 if window is None else jnp.sum(linear * window[:, None, 2:], axis=-1, keepdims=True)
    )  # (B, 2, 1)
    stretched = linear if window is None else linear * window[:, None, :2]
    offset = centre - jnp.sum(stretched * shift_px[:, None, :], axis=-1, keepdims=True)  # (B, 2, 1)
    return jnp.concatenate([stretched, offset], axis=-1)


def affine_sample(images: Array, matrices: Array, size_px: int) -> Array:
    """Resample each image once, by cubic convolution, at the places that its inverse map names.

    Cubic (Keys 1981, a = -0.75, as OpenCV and torch have it) and not bilinear: at 64 px a bilinear turn blurs a cell
    so much that a network trained on turned images meets sharper ones in evaluation.

    Beyond its border an image goes on as its mirror about the centres of the outermost pixels (scipy's `mirror`,
    torch's `reflection` with aligned corners), so that a turned image has no black corners.

    Args:
        images: `(B, S, S, C)`, float32, or uint8, which is read as shares of 255.
        matrices: float32 `(B, 2, 3)`, as `inverse_affine` returns them.
        size_px: side of the output, px.

    Returns:
        float32 `(B, size_px, size_px, C)`; for uint8 images held to [0, 1], where a cubic can overshoot.
    """
    batch, side, _, channels = images.shape
    y, x = _source_coordinates(matrices, side, size_px)  # (B, P) each, P = size_px ** 2
    top, left = jnp.floor(y), jnp.floor(x)
    weights_y, weights_x = _cubic_weights(y - top), _cubic_weights(x - left)
    # Neighbours beyond the border are mirrored one by one: a tap may lie two pixels outside.
    rows = [_mirror(top + offset, side).astype(jnp.int32) * side for offset in _TAPS]
    columns = [_mirror(left + offset, side).astype(jnp.int32) for offset in _TAPS]
    pixels = images.reshape(batch, side * side, channels)

    # One gather of whole pixels per tap: a pixel packed into a word, or map_coordinates, is slower on CPU.
    def tap(index: Array) -> Array:
        taken = jax.vmap(lambda image, places: image.at[places].get(mode="promise_in_bounds"))(pixels, index)
        return taken.astype(jnp.float32)  # (B, P, C)

    sampled = jnp.zeros((batch, size_px * size_px, channels), jnp.float32)
    for row, weight_y in zip(rows, weights_y, strict=True):
        line = jnp.zeros_like(sampled)
        for column, weight_x in zip(columns, weights_x, strict=True):
            line = line + tap(row + column) * weight_x[:, :, None]
        sampled = sampled + line * weight_y[:, :, None]
    if images.dtype == jnp.uint8:
        sampled = jnp.clip(sampled * (1.0 / 255.0), 0.0, 1.0)
    return sampled.reshape(batch, size_px, size_px, channels)


_TAPS = (-1.0, 0.0, 1.0, 2.0)
_KEYS_A = -0.75


def _cubic_weights(t: Array) -> tuple[Array, Array, Array, Array]:
    """Weights of the taps at -1, 0, 1, 2 for a place `t` in [0, 1) right of tap 0; they add up to 1."""

    def near(d: Array) -> Array:  # d in [0, 1]
        return ((_KEYS_A + 2.0) * d - (_KEYS_A + 3.0)) * d * d + 1.0

    def far(d: Array) -> Array:  # d in [1, 2]
        return ((_KEYS_A * d - 5.0 * _KEYS_A) * d + 8.0 * _KEYS_A) * d - 4.0 * _KEYS_A

    return far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)


def _source_coordinates(matrices: Array, side: int, size_px: int) -> tuple[Array, Array]:
    along = jnp.arange(size_px, dtype=jnp.float32) - (size_px - 1) / 2
    y, x = (c.reshape(1, -1) for c in jnp.meshgrid(along, along, indexing="ij"))  # (1, P)

    def coordinate(row: Array) -> Array:  # (B, 3) -> (B, P)
        centred = row[:, 0:1] * y + row[:, 1:2] * x + row[:, 2:3]
        return _mirror(centred + (side - 1) / 2, side)

    return coordinate(matrices[:, 0]), coordinate(matrices[:, 1])


def _mirror(coordinate: Array, side: int) -> Array:
    """Fold any coordinate into [0, side - 1]."""
    last = float(side - 1)
    period = max(2.0 * last, 1.0)
    phase = jnp.abs(coordinate)
    phase = phase - period * jnp.floor(phase / period)
    return jnp.maximum(last - jnp.abs(phase - last), 0.0)


def centre_crop(images: Array, size_px: int) -> Array:
    """Cut the middle `(B, size_px, size_px, C)` out of `(B, S, S, C)`, S >= size_px.

    An odd margin leaves its odd pixel below and to the right.
    """
    start = (images.shape[1] - size_px) // 2
    return images[:, start : start + size_px, start : start + size_px, :]
