"""Convolution by oneDNN, the library that PyTorch computes with: jaxlib's CPU builds hold it, but leave it unused.

What that gains, gradients included: `python benchmarks/levers.py --levers library`. A weight gradient is not on offer,
except as a matrix product for a 1x1: XLA computes the others, in their forms.

The call is between XLA and its own runtime, with no promise of stability: one that a release does not understand ends
the process. So it is made only to releases that are known to understand it; the others go without.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
from jax.custom_batching import custom_vmap

from wbc_jax.models.kernel_rows import is_narrow
from wbc_jax.models.native import Edges, Pads
from wbc_jax.models.strided import strided_map_gradient

JAXLIB_RELEASES = ("0.10.1", "0.12.0.1")
"""Those that `tests/models/test_onednn.py` has passed with."""

_UNTYPED_CALL = 2
_FEW_PIXELS = 2**10
"""B H W below which a 1x1 to more channels than it reads is sooner done by XLA: its kernel is most of the work."""
_FEW_OUTPUTS = 8
"""Outputs of a narrow group below which `kernel_rows` is sooner done."""

ByXla = Callable[[jax.Array, jax.Array, int, Pads, int], jax.Array]
"""(x, kernel, stride, pads, groups) -> y."""


def serves(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether oneDNN is to convolve `x` here: float32 of known size, on the one device of a known release."""
    sizes = (*x.shape, *kernel.shape)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return False
    widens = kernel.shape[:2] == (1, 1) and kernel.shape[3] > kernel.shape[2]
    if widens and x.size // x.shape[-1] < _FEW_PIXELS:
        return False
    return (
        jaxlib.version.__version__ in JAXLIB_RELEASES
        and (platform.system(), platform.machine()) == ("Linux", "x86_64")
        and jax.device_count() == 1  # between devices the call would not be divided
        and not _programs_are_kept()
        and x.dtype == kernel.dtype == jnp.float32
    )


def _programs_are_kept() -> bool:
    """Whether jax writes what it compiles to a cache: of a program with a call, jaxlib 0.10.1 writes nonsense."""
    config: Any = jax.config
    return bool(config.jax_enable_compilation_cache and config.jax_compilation_cache_dir)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def onednn_convolution(
    x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int, by_xla: ByXla
) -> jax.Array:
    """(B, H, W, C), (kh, kw, C / groups, F) -> (B, H', W', F).

    Args:
        x: what `serves` accepts.
        kernel: in its grouped form.
        stride: pixels, both axes.
        pads: zeros on each side, (height, width).
        groups: channel groups.
        by_xla: the same convolution, whose weight gradient is taken.
    """
    if is_narrow(kernel, groups) and kernel.shape[3] // groups < _FEW_OUTPUTS:
        return by_xla(x, kernel, stride, pads, groups)
    return _convolution(x, kernel, ((pads[0], pads[0]), (pads[1], pads[1])), stride, groups)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int, by_xla: ByXla):
    return onednn_convolution(x, kernel, stride, pads, groups, by_xla), (x, kernel)


def _backward(stride: int, pads: Pads, groups: int, by_xla: ByXla, kept, cotangent: jax.Array):
    x, kernel = kept
    if stride > 1:
        d_x = strided_map_gradient(
            cotangent, kernel, stride, pads, x.shape[1:3], partial(_turned, groups=groups)
        )
    else:
        height, width = (size - 1 - pad for size, pad in zip(kernel.shape[:2], pads, strict=True))
        d_x = _turned(cotangent, kernel, ((height, height), (width, width)), groups)
    if kernel.shape[:2] == (1, 1) and pads == (0, 0) and (stride, groups) == (1, 1):
        return d_x, _pixel_products(x, cotangent)[None, None]
    _, pull_kernel = jax.vjp(lambda kernel: by_xla(x, kernel, stride, pads, groups), kernel)
    return d_x, *pull_kernel(cotangent)


onednn_convolution.defvjp(_forward, _backward)


def _turned(y: jax.Array, kernel: jax.Array, edges: Edges, groups: int) -> jax.Array:
    """Convolution from the outputs of a kernel (kh, kw, C / groups, F) to its inputs, rows and columns reversed:
    (B, H', W', F) -> (B, H, W, C)."""
    height, width, inputs, outputs = kernel.shape
    kernel = kernel[::-1, ::-1]
    if groups == 1:  # oneDNN lays kernels out anew in any case
        return _convolution(y, kernel, edges, 1, 1, outputs_last=False)
    apart = kernel.reshape(height, width, inputs, groups, outputs // groups).transpose(0, 1, 4, 3, 2)
    return _convolution(y, apart.reshape(height, width, outputs // groups, groups * inputs), edges, 1, groups)


def _convolution(
    x: jax.Array, kernel: jax.Array, edges: Edges, stride: int, groups: int, *, outputs_last: bool = True
) -> jax.Array:
    """
    Args:
        x: (B, H, W, C).
        kernel: (kh, kw, C / groups, F), or (kh, kw, F, C).
        edges: zeros (before, after) along (height, width); less than none cuts pixels off.
        stride: pixels, both axes.
        groups: channel groups.
        outputs_last: whether the kernel's last axis is that of its outputs.
    """
    cuts = [(min(edge[0], 0), min(edge[1], 0), 0) for edge in edges]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *cuts, (0, 0, 0)])
    sizes = [
        (side + max(before, 0) + max(after, 0) - window) // stride + 1
        for side, window, (before, after) in zip(x.shape[1:3], kernel.shape, edges, strict=False)
    ]
    config = _config(kernel.shape[:2], edges, stride, groups, outputs_last)
    features = kernel.shape[3 if outputs_last else 2]
    y = jax.ShapeDtypeStruct((x.shape[0], *sizes, features), x.dtype)
    call = custom_vmap(partial(_call, "convolution", y, config))

    @call.def_vmap
    def of_many(count: int, batched: list[bool], x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, bool]:
        if batched[1]:
            return _one_by_one(call, count, batched, x, kernel), True
        y = _convolution(
            x.reshape(-1, *x.shape[2:]), kernel, edges, stride, groups, outputs_last=outputs_last
        )
        return y.reshape(count, -1, *y.shape[1:]), True

    return call(x, kernel)


def _pixel_products(x: jax.Array, y: jax.Array) -> jax.Array:
    """(B, H, W, C), (B, H, W, F) -> (C, F), summed over all pixels."""
    product = jax.ShapeDtypeStruct((x.shape[-1], y.shape[-1]), x.dtype)
    config = json.dumps({"onednnMatmulConfig": {"transposeA": True, "transposeB": False}})
    call = custom_vmap(partial(_call, "matmul", product, config))

    @call.def_vmap
    def of_many(count: int, batched: list[bool], x: jax.Array, y: jax.Array) -> tuple[jax.Array, bool]:
        return _one_by_one(call, count, batched, x, y), True

    return call(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]))


def _call(target: str, result: jax.ShapeDtypeStruct, config: str, *arrays: jax.Array) -> jax.Array:
    call = jax.ffi.ffi_call(
        f"__onednn${target}", result, custom_call_api_version=_UNTYPED_CALL, legacy_backend_config=config
    )
    return call(*arrays)


def _one_by_one(
    call: Callable[..., jax.Array], count: int, batched: list[bool], *arrays: jax.Array
) -> jax.Array:
    many = [
        a if own else jnp.broadcast_to(a, (count, *a.shape)) for a, own in zip(arrays, batched, strict=True)
    ]
    return jax.lax.map(lambda each: call(*each), many)


def _config(window: tuple[int, ...], edges: Edges, stride: int, groups: int, outputs_last: bool) -> str:
    """What the call says beside its arrays."""
    data = {"dims": 4, "data": {"batchDim": 0, "featureDim": 3, "spatialDims": [1, 2]}}
    inputs, outputs = (2, 3) if outputs_last else (3, 2)
    weights = {"inputFeatureDim": inputs, "outputFeatureDim": outputs, "spatialDims": [0, 1]}
    return json.dumps(
        {
            "onednnConvConfig": {
                "dims": 4,
                "input": data,
                "kernel": {"dims": 4, "filter": weights},
                "output": data,
                "window": {
                    "size": list(window),
                    "padLeft": [max(before, 0) for before, _ in edges],
                    "padRight": [max(after, 0) for _, after in edges],
                    "strides": [stride, stride],
                    "windowDilations": [1, 1],
                },
                "featureGroups": groups,
            }
        }
    )
