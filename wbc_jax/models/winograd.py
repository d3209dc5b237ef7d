"""3x3 convolution by Winograd's minimal filtering F(2x2, 3x3): 16 products for four outputs in place of 36.

Kernel and map are taken to a domain of 4x4 tiles, where a convolution is 16 matrix products, one for each place in a
tile; the tiles of the map overlap by two pixels. Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
CVPR 2016, section 4.1. The numbers in the transforms are 0, 1, 1/2 and their negatives, so that little is lost in
float32: `tests/models/test_winograd.py` compares with float64.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from wbc_jax.models.native import Pads
from wbc_jax.models.stored import stored

_CHANNELS = 128
"""Inputs and outputs from which the products saved are more work than the transforms."""

_BLOCK_SIZE = 2**20
"""Numbers in the tiles of a map that stay in a CPU's caches between transform and products."""


def suits(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int) -> bool:
    """Whether the convolution of `x` gains: float32, 3x3, wide, and with fewer channels than twice its tiles."""
    if (kernel.shape[:2], stride, pads, groups) != ((3, 3), 1, (1, 1), 1) or x.dtype != jnp.float32:
        return False
    batch, height, width, channels = x.shape
    if not isinstance(batch, int):  # a program that is exported for batches of any size
        return False
    tiles = batch * _halves(height) * _halves(width)
    narrowest, widest = min(channels, kernel.shape[3]), max(channels, kernel.shape[3])
    return narrowest >= _CHANNELS and 2 * tiles >= widest


@jax.custom_vjp
def winograd_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """(B, H, W, C), (3, 3, C, F) -> (B, H, W, F): stride 1, a border of one zero."""
    return _convolution(x, _kernel_tiles(kernel), "ijnc,ijcf->ijnf")


def _forward(x: jax.Array, kernel: jax.Array):
    return winograd_convolution(x, kernel), (x, kernel)


def _backward(kept, cotangent: jax.Array):
    """The map's gradient is a convolution by the turned kernel; the kernel's has the same tiles, summed over pixels."""
    x, kernel = kept
    d_x = _convolution(cotangent, _kernel_tiles(kernel[::-1, ::-1]), "ijnf,ijcf->ijnc")
    count = _images_at_once(x, max(kernel.shape[2:]))

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        tiles = _map_tiles(block[0]), _output_tiles(block[1])
        return total + jnp.einsum("ijnc,ijnf->ijcf", *tiles), None

    blocks = _in_blocks(x, count), _in_blocks(cotangent, count)
    zeros = jnp.zeros((4, 4, *kernel.shape[2:]), kernel.dtype)
    return d_x, _kernel(jax.lax.scan(add, zeros, blocks)[0])


winograd_convolution.defvjp(_forward, _backward)


def _convolution(x: jax.Array, kernel_tiles: jax.Array, products: str) -> jax.Array:
    count = _images_at_once(x, max(kernel_tiles.shape[2:]))

    def of_block(x: jax.Array) -> jax.Array:
        return _outputs(jnp.einsum(products, _map_tiles(x), kernel_tiles), x.shape[:3])

    y = jax.lax.map(of_block, _in_blocks(x, count))
    return y.reshape(-1, *y.shape[2:])


def _images_at_once(x: jax.Array, channels: int) -> int:
    """Enough for products that are worth reading the kernel for, or more where all tiles stay in the caches."""
    batch, height, width, _ = x.shape
    if jax.device_count() > 1:  # a batch that lies on several devices is not taken apart
        return batch
    tiles = _halves(height) * _halves(width)
    dividing = [n for n in range(1, batch + 1) if batch % n == 0]
    enough = min(n for n in dividing if 2 * n * tiles >= channels or n == batch)
    return max(n for n in dividing if n <= enough or 16 * n * tiles * channels <= _BLOCK_SIZE)


def _in_blocks(x: jax.Array, count: int) -> jax.Array:
    return x.reshape(-1, count, *x.shape[1:])


def _halves(size: int) -> int:
    return -(-size // 2)


def _map_tiles(x: jax.Array) -> jax.Array:
    """B^T x B for each 4x4 tile, two pixels apart: (B, H, W, C) -> (4, 4, B H/2 W/2, C)."""
    _, height, width, channels = x.shape
    x = stored(jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0))))
    rows = stored(_filtered(*_shifts(x, 1), axis=0))  # (4, B, H / 2, W + 2, C)
    tiles = _filtered(*_shifts(rows, 3), axis=1)  # (4, 4, B, H / 2, W / 2, C)
    return stored(tiles.reshape(4, 4, -1, channels))


def _shifts(x: jax.Array, axis: int) -> list[jax.Array]:
    """Every second of the places along an axis of 2 n + 2, from the first, second, third and fourth on."""
    last = x.shape[axis] - 3
    return [jax.lax.slice_in_dim(x, first, first + last, 2, axis) for first in range(4)]


def _filtered(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array, axis: int) -> jax.Array:
    return jnp.stack([a - c, b + c, c - b, b - d], axis)


def _kernel_tiles(kernel: jax.Array) -> jax.Array:
    """G kernel G^T: (3, 3, C, F) -> (4, 4, C, F)."""
    rows = stored(_spread(*kernel, axis=0))
    return stored(_spread(rows[:, 0], rows[:, 1], rows[:, 2], axis=1))


def _spread(a: jax.Array, b: jax.Array, c: jax.Array, axis: int) -> jax.Array:
    return jnp.stack([a, 0.5 * (a + b + c), 0.5 * (a - b + c), c], axis)


def _kernel(tiles: jax.Array) -> jax.Array:
    """The transpose of `_kernel_tiles`: (4, 4, C, F) -> (3, 3, C, F)."""
    rows = stored(_gathered(*tiles, axis=0))
    return _gathered(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], axis=1)


def _gathered(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array, axis: int) -> jax.Array:
    return jnp.stack([a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d], axis)


def _outputs(tiles: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """A^T tile A, the 2x2 outputs of each tile: (4, 4, B H/2 W/2, F) -> (B, H, W, F); `sizes` are (B, H, W)."""
    batch, height, width = sizes
    tiles = stored(tiles).reshape(4, 4, batch, _halves(height), _halves(width), -1)
    rows = _summed(*tiles)
    columns = [jnp.stack(_summed(*row), axis=3) for row in rows]
    y = jnp.stack(columns, axis=2)  # (B, H / 2, 2, W / 2, 2, F)
    return stored(y.reshape(batch, 2 * y.shape[1], 2 * y.shape[3], -1)[:, :height, :width])


def _summed(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
    return [a + b + c, b - c - d]


def _output_tiles(y: jax.Array) -> jax.Array:
    """The transpose of `_outputs`: (B, H, W, F) -> (4, 4, B H/2 W/2, F)."""
    batch, height, width, features = y.shape
    y = jnp.pad(y, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    y = stored(y.reshape(batch, _halves(height), 2, _halves(width), 2, features))
    rows = stored(_repeated(y[:, :, 0], y[:, :, 1], axis=0))  # (4, B, H / 2, W / 2, 2, F)
    tiles = _repeated(rows[:, :, :, :, 0], rows[:, :, :, :, 1], axis=1)  # (4, 4, B, H / 2, W / 2, F)
    return stored(tiles.reshape(4, 4, -1, features))


def _repeated(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    return jnp.stack([a, a + b, a - b, -b], axis)
