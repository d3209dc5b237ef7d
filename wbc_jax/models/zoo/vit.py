"""Vision Transformer (Dosovitskiy et al. 2021) as torchvision builds it (`models/vision_transformer.py`)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike

from wbc_jax.errors import UsageError
from wbc_jax.models.endpoints import Endpoints, record
from wbc_jax.models.initialisers import normal, torch_default
from wbc_jax.models.layers import Conv, Linear, check_images

_xavier = nn.initializers.xavier_uniform()
_patch_init = variance_scaling(1.0, "fan_in", "truncated_normal")


def _layer_norm(x: jax.Array, name: str) -> jax.Array:
    """Over channels, in float32."""
    return nn.LayerNorm(epsilon=1e-6, name=name)(x.astype(jnp.float32))


class _EncoderBlock(nn.Module):
    """x + attention(norm(x)), then + MLP(norm(x)); (B, T, C) -> (B, T, C)."""

    heads: int
    mlp_features: int
    dropout_rate: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        batch, tokens, channels = x.shape

        def dense(y: jax.Array, name: str, features: int, **inits: Any) -> jax.Array:
            return nn.Dense(features, dtype=self.dtype, name=name, **inits)(y)

        def norm(y: jax.Array, name: str) -> jax.Array:
            return _layer_norm(y, name).astype(self.dtype)

        def drop(y: jax.Array) -> jax.Array:
            return nn.Dropout(self.dropout_rate)(y, deterministic=not train)

        qkv = dense(norm(x, "norm1"), "qkv", 3 * channels, kernel_init=_xavier)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, channels // self.heads)
        query, key, value = (qkv[:, :, part] for part in range(3))  # (B, T, heads, C / heads)
        scores = jnp.einsum("bqhc,bkhc->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = nn.softmax(scores / math.sqrt(channels // self.heads), axis=-1).astype(self.dtype)
        mixed = jnp.einsum("bhqk,bkhc->bqhc", weights, value).reshape(batch, tokens, channels)
        x = x + drop(dense(mixed, "attended", channels, kernel_init=torch_default))
        mlp = {"kernel_init": _xavier, "bias_init": normal(1e-6)}
        hidden = nn.gelu(dense(norm(x, "norm2"), "mlp1", self.mlp_features, **mlp), approximate=False)
        return x + drop(dense(drop(hidden), "mlp2", channels, **mlp))


class VisionTransformer(nn.Module):
    """Patches, class token, position embedding, encoder blocks, norm, linear head on the class token.

    Shapes at 224 px for vit_b_16: stem and block1 ... block12 (B, 14, 14, 768), the patches' tokens laid out as a
    map; pooled and pre_logits float32 (B, 768), the class token. The head reads the class token alone, so the map
    of the last block has no gradient: Grad-CAM takes the one before it.
    """

    num_classes: int | None
    """None: endpoints only, up to `pre_logits`."""
    patch_size: int = 16
    features: int = 768
    depth: int = 12
    heads: int = 12
    mlp_features: int = 3072
    image_size_px: int = 224
    """Side of the image that the position embedding is made for; for another it is resized bicubically."""
    dropout_rate: float = 0.0
    dtype: DTypeLike = jnp.float32
    """Activation dtype; parameters, attention's softmax and logits are float32."""
    bn_axis_name: str | None = None
    """For the interface that all networks share; there is no BatchNorm here."""

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, use_running_average: bool | None = None
    ) -> tuple[jax.Array, Endpoints] | Endpoints:
        """Map float (B, H, W, 3) to (logits float32 (B, num_classes), endpoints).

        `use_running_average` is for the interface that all networks share.

        Raises:
            UsageError: an image smaller than a patch, or whose sides are no multiples of it.
        """
        check_images(images)
        self._check_size(images)
        endpoints: Endpoints = {}
        patches = Conv(
            self.features,
            self.patch_size,
            self.patch_size,
            use_bias=True,
            bias_init=nn.initializers.zeros,
            kernel_init=_patch_init,
            dtype=self.dtype,
            name="patches",
        )
        grid = record(self, endpoints, "stem", patches(images))  # (B, H / 16, W / 16, C)
        batch, rows, columns, channels = grid.shape
        token = self.param("class_token", nn.initializers.zeros, (1, 1, channels), jnp.float32)
        first = jnp.broadcast_to(token.astype(self.dtype), (batch, 1, channels))
        x = jnp.concatenate([first, grid.reshape(batch, rows * columns, channels)], axis=1)
        x = x + self._positions(rows, columns).astype(self.dtype)
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)  # (B, 1 + patches, C)
        for index in range(1, self.depth + 1):
            block = _EncoderBlock(
                self.heads, self.mlp_features, self.dropout_rate, self.dtype, name=f"block{index}"
            )
            x = block(x, train=train)
            grid = x[:, 1:].reshape(batch, rows, columns, channels)
            grid = record(self, endpoints, f"block{index}", grid)
            x = jnp.concatenate([x[:, :1], grid.reshape(batch, rows * columns, channels)], axis=1)
        x = record(self, endpoints, "pooled", _layer_norm(x[:, 0], "norm"))  # (B, C)
        x = record(self, endpoints, "pre_logits", x)
        if self.num_classes is None:
            return endpoints
        # torchvision starts this layer at 0, which gives all the others no gradient in the first step.
        return Linear(self.num_classes, name="classifier")(x), endpoints

    def _positions(self, rows: int, columns: int) -> jax.Array:
        """float32 (1, 1 + rows * columns, C); the class token's own position comes first."""
        side = self.image_size_px // self.patch_size
        shape = (1, 1 + side * side, self.features)
        embedding = self.param("position_embedding", normal(0.02), shape, jnp.float32)
        return resize_positions(embedding, rows, columns)

    def _check_size(self, images: jax.Array) -> None:
        height, width = images.shape[1:3]
        if height < self.patch_size or height % self.patch_size or width % self.patch_size:
            raise UsageError(
                f"images of {height}x{width} px",
                expected=f"sides that are multiples of the patch size, {self.patch_size} px",
                where="VisionTransformer",
                remedy="choose such an image size, for example 224",
            )


def resize_positions(embedding: jax.Array, rows: int, columns: int) -> jax.Array:
    """(1, 1 + n * n, C) -> (1, 1 + rows * columns, C): the grid's part bicubically, the class token's as it is."""
    side, channels = math.isqrt(embedding.shape[1] - 1), embedding.shape[-1]
    if (rows, columns) == (side, side):
        return embedding
    grid = embedding[:, 1:].reshape(1, side, side, channels)
    grid = jax.image.resize(grid, (1, rows, columns, channels), "bicubic")
    return jnp.concatenate([embedding[:, :1], grid.reshape(1, rows * columns, channels)], axis=1)


VITS: dict[str, dict[str, Any]] = {"vit_b_16": {}}
