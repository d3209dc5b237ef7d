"""Convolution to few channels: all rows of the kernel in one convolution, their results shifted and added.

A convolution of k rows gathers k k C numbers for each pixel and uses each of them for its few outputs only. With the
rows of the kernel side by side as k times as many outputs of a kernel of one row, it gathers k C numbers for each and
does the same multiplications. A CPU spends most of a narrow convolution on gathering.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from wbc_jax.models.grouped import merge_narrow_groups, split_groups
from wbc_jax.models.native import Pads
from wbc_jax.models.stored import stored

_OUTPUTS = 32
"""Channels from which a group's outputs are many."""
_INPUTS = 8
"""Least inputs of a merged group."""
_GRADIENT_ROWS = 5
"""Rows from which the weight gradient gains as well."""


def is_narrow(kernel: jax.Array, groups: int) -> bool:
    """Whether a convolution by `kernel` (kh, kw, C / groups, F) makes few channels of at least twice as many."""
    outputs = kernel.shape[3] // groups
    return kernel.shape[0] > 1 and outputs <= _OUTPUTS and kernel.shape[2] >= 2 * outputs


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def rows_convolution(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int) -> jax.Array:
    """(B, H, W, C), (kh, kw, C / groups, F) -> (B, H', W', F)."""
    outputs = (x.shape[1] + 2 * pads[0] - kernel.shape[0]) // stride + 1
    y = None
    for phase, wide in _wide_kernels(kernel, stride, pads, groups).items():
        parts = _parts(x[:, phase::stride], wide)
        offsets = _offsets(kernel.shape[0], phase, stride, pads)
        by_part = jnp.concatenate([_one_row(*part, stride, pads) for part in parts], axis=-1)
        by_row = by_part.reshape(
            *by_part.shape[:3], len(parts), len(offsets), -1
        )  # (B, H / s, W', parts, rows, f)
        for index, offset in enumerate(offsets):
            own = by_row[..., index, :].reshape(*by_part.shape[:3], -1)  # (B, H / s, W', F)
            moved = _moved(own, -offset, outputs)  # (B, H', W', F)
            y = moved if y is None else y + moved
    assert y is not None
    return stored(y)  # not to be added up anew by each reader


def _forward(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int):
    return rows_convolution(x, kernel, stride, pads, groups), (x, kernel)


def _backward(stride: int, pads: Pads, groups: int, kept, cotangent: jax.Array):
    """The map's gradient has many channels and needs no rows."""
    x, kernel = kept
    x, cotangent = stored((x, cotangent))  # each part and each row reads them
    by_groups = partial(split_groups, stride=stride, pads=pads, groups=groups)
    if kernel.shape[0] < _GRADIENT_ROWS:
        return jax.vjp(by_groups, x, kernel)[1](cotangent)
    (d_x,) = jax.vjp(lambda x: by_groups(x, kernel), x)[1](cotangent)
    wide_kernels = partial(_wide_kernels, stride=stride, pads=pads, groups=groups)
    wides, pull_kernel = jax.vjp(wide_kernels, kernel)
    gradients = {}
    for phase, wide in wides.items():
        parts = _parts(x[:, phase::stride], wide)
        offsets = _offsets(kernel.shape[0], phase, stride, pads)
        moved = [_moved(cotangent, offset, parts[0][0].shape[1]) for offset in offsets]
        by_row = [y.reshape(*y.shape[:3], len(parts), -1) for y in moved]
        by_part = jnp.concatenate(by_row, axis=-1)  # (B, H / s, W', parts, rows f)
        gradients[phase] = jnp.concatenate(
            [
                jax.vjp(partial(_one_row, own, stride=stride, pads=pads), row_kernels)[1](
                    by_part[..., part, :]
                )[0]
                for part, (own, row_kernels) in enumerate(parts)
            ],
            axis=-1,
        )
    return d_x, *pull_kernel(gradients)


rows_convolution.defvjp(_forward, _backward)


def _wide_kernels(kernel: jax.Array, stride: int, pads: Pads, groups: int) -> dict[int, jax.Array]:
    """By r: the rows that read the map's rows r, r + stride, ... side by side, (1, kw, C / parts, parts rows f)."""
    channels = kernel.shape[2] * groups
    kernel = merge_narrow_groups(kernel, groups, inputs=_INPUTS, outputs=1)
    height, width, inputs, features = kernel.shape
    parts = channels // inputs
    wides = {}
    for phase in range(stride):
        if rows := len(_offsets(height, phase, stride, pads)):
            own = kernel[(pads[0] + phase) % stride :: stride].reshape(rows, width * inputs, parts, -1)
            wides[phase] = own.transpose(1, 2, 0, 3).reshape(1, width, inputs, rows * features)
    return wides


def _offsets(height: int, phase: int, stride: int, pads: Pads) -> list[int]:
    """Of each row of a kernel that reads the map's rows `phase` + stride n: n for the first row of the result."""
    first = (pads[0] + phase) % stride
    return [(row - pads[0] - phase) // stride for row in range(first, height, stride)]


def _parts(x: jax.Array, wide: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Channels of the map and of the kernel that belong together."""
    parts = x.shape[-1] // wide.shape[2]
    return list(zip(jnp.split(x, parts, axis=-1), jnp.split(wide, parts, axis=-1), strict=True))


def _one_row(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, stride),
        padding=[(0, 0), (pads[1], pads[1])],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _moved(x: jax.Array, down: int, height: int) -> jax.Array:
    """The map `down` rows lower, cut or filled with zeros to `height` rows."""
    edges = [(0, 0, 0), (down, height - x.shape[1] - down, 0), (0, 0, 0), (0, 0, 0)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
