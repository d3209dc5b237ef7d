"""Convolution with XLA's forward pass and input gradient, and a weight gradient as matrix products.

On a CPU XLA takes two to eight times as long for the weight gradient as for the forward pass of the same
convolution; matrix products of the same size do not. Three ways lead there, chosen by shape: Winograd's F(2x2, 3x3)
for 3x3 kernels on larger maps, patches of the input elsewhere, and for a stem, whose three channels make poor
patches, patches of the image folded by two in each direction.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Pads = tuple[int, int]

_WORTH_PRODUCTS = 2**25
"""Multiply-accumulates from which the products pay for their preparation, and for the time it takes to compile."""
_LEAST_FEATURES = 32
"""Of narrower results a product is no faster than the convolution."""
_WINOGRAD_SIDE = 14
"""Shorter side of the map from which Winograd's form beats patches: on smaller ones too much of it is padding."""
_FEW_CHANNELS = 4


def native_convolution(
    x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int = 1
) -> jax.Array:
    """XLA's convolution: (B, H, W, C), (kh, kw, C / groups, F) -> (B, H', W', F)."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(pads[0], pads[0]), (pads[1], pads[1])],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def dense_convolution(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """(B, H, W, C), (kh, kw, C, F) -> (B, H', W', F); the weight gradient as matrix products."""
    return native_convolution(x, kernel, stride, pads)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads):
    return native_convolution(x, kernel, stride, pads), (x, kernel)


def _backward(stride: int, pads: Pads, kept, cotangent: jax.Array):
    x, kernel = kept
    _, pull_x = jax.vjp(lambda x: native_convolution(x, kernel, stride, pads), x)
    return *pull_x(cotangent), weight_gradient(x, kernel, cotangent, stride, pads)


dense_convolution.defvjp(_forward, _backward)


def weight_gradient(
    x: jax.Array, kernel: jax.Array, cotangent: jax.Array, stride: int, pads: Pads
) -> jax.Array:
    """Gradient of the kernel, in its shape and dtype."""
    size = kernel.shape[0], kernel.shape[1]
    multiplications = cotangent.size * kernel[..., 0].size
    if multiplications < _WORTH_PRODUCTS or kernel.shape[-1] < _LEAST_FEATURES:
        _, pull = jax.vjp(lambda kernel: native_convolution(x, kernel, stride, pads), kernel)
        return pull(cotangent)[0]
    if size == (3, 3) and stride == 1 and pads == (1, 1) and min(x.shape[1:3]) >= _WINOGRAD_SIDE:
        return _by_winograd(x, cotangent)
    padded = jnp.pad(x, ((0, 0), (pads[0], pads[0]), (pads[1], pads[1]), (0, 0)))
    if stride == 2 and x.shape[-1] <= _FEW_CHANNELS:
        return _by_folded_patches(padded, cotangent, size)
    return _by_patches(padded, cotangent, size, stride).reshape(kernel.shape)


def _by_patches(padded: jax.Array, cotangent: jax.Array, size: tuple[int, int], stride: int) -> jax.Array:
    """(kh kw C, F) from the padded map."""
    height, width = cotangent.shape[1:3]
    shifted = [
        padded[:, row : row + stride * height : stride, column : column + stride * width : stride]
        for row in range(size[0])
        for column in range(size[1])
    ]
    patches = jnp.concatenate(shifted, axis=-1)  # (B, H', W', kh kw C)
    rows, d_rows = (m.reshape(-1, m.shape[-1]) for m in (patches, cotangent))
    return jax.lax.dot_general(rows, d_rows, (((0,), (0,)), ((), ())))


def _by_folded_patches(padded: jax.Array, cotangent: jax.Array, size: tuple[int, int]) -> jax.Array:
    """(kh, kw, C, F) of a stride of 2: on pixels folded by two it is 1, and the kernel half as large."""
    batch, _, _, channels = padded.shape
    height, width = cotangent.shape[1:3]
    halves = (size[0] + 1) // 2, (size[1] + 1) // 2
    rows, columns = height + halves[0] - 1, width + halves[1] - 1
    missing = (max(2 * n - side, 0) for n, side in zip((rows, columns), padded.shape[1:3], strict=True))
    padded = jnp.pad(padded, ((0, 0), *((0, n) for n in missing), (0, 0)))[:, : 2 * rows, : 2 * columns]
    pixels = padded.reshape(batch, rows, 2, columns, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    folded = pixels.reshape(batch, rows, columns, 4 * channels)  # (B, H' + kh/2 - 1, W' + kw/2 - 1, 4 C)
    gradient = _by_patches(folded, cotangent, halves, 1).reshape(*halves, 2, 2, channels, -1)
    whole = gradient.transpose(0, 2, 1, 3, 4, 5).reshape(2 * halves[0], 2 * halves[1], channels, -1)
    return whole[: size[0], : size[1]]


# Lavin & Gray 2016 (arXiv:1509.09308), F(2x2, 3x3): y = A^T [(G w G^T) * (B^T d B)] A on tiles of 4x4.
_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = np.asarray([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_OUTPUT = ((1, 0), (1, 1), (1, -1), (0, -1))


def _by_winograd(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """(3, 3, C, F): 16 products over tiles in place of 9 over pixels, which are four times as many."""
    height, width = x.shape[1:3]
    rows, columns = -(-height // 2), -(-width // 2)
    lower, right = 2 * rows - height, 2 * columns - width
    around = jnp.pad(x, ((0, 0), (1, 1 + lower), (1, 1 + right), (0, 0)))
    tiles = [[_every_second(around, r, c, rows, columns) for c in range(4)] for r in range(4)]
    inside = jnp.pad(cotangent, ((0, 0), (0, lower), (0, right), (0, 0)))
    d_tiles = [[_every_second(inside, r, c, rows, columns) for c in range(2)] for r in range(2)]
    points, d_points = _transformed(tiles, _INPUT), _transformed(d_tiles, _OUTPUT)  # (16, B H W / 4, C or F)
    d_kernel = jax.lax.dot_general(points, d_points, (((1,), (1,)), ((0,), (0,))))  # (16, C, F)
    d_kernel = d_kernel.reshape(4, 4, *d_kernel.shape[1:])
    kernel_transform = jnp.asarray(_KERNEL, d_kernel.dtype)
    return jnp.einsum("ui,vj,uvcf->ijcf", kernel_transform, kernel_transform, d_kernel)


def _every_second(x: jax.Array, row: int, column: int, rows: int, columns: int) -> jax.Array:
    """(B rows columns, C): the pixel at (row, column) of each tile; tiles lie two pixels apart."""
    part = x[:, row : row + 2 * rows - 1 : 2, column : column + 2 * columns - 1 : 2]
    return part.reshape(-1, x.shape[-1])


def _transformed(tiles: list[list[jax.Array]], matrix: tuple[tuple[int, ...], ...]) -> jax.Array:
    """(16, T, C): M t M^T of each tile t, element by element, so that zeros and ones cost nothing."""
    by_rows = [_combined([row[c] for row in tiles], matrix) for c in range(len(tiles[0]))]  # [column][u]
    points = [_combined([column[u] for column in by_rows], matrix) for u in range(len(matrix))]
    return jnp.stack([point for row in points for point in row])


def _combined(parts: list[jax.Array], matrix: tuple[tuple[int, ...], ...]) -> list[jax.Array]:
    """Matrix times a column of arrays; its elements are -1, 0 and 1."""
    sums = []
    for row in matrix:
        terms = [part if sign > 0 else -part for sign, part in zip(row, parts, strict=True) if sign]
        sums.append(sum(terms[1:], terms[0]))
    return sums
