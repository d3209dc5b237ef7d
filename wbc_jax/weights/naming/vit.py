"""Vision Transformer under torchvision's names (`models/vision_transformer.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wbc_jax.weights.naming.leaf import Leaf, conv, layer_norm, linear, vector


@dataclass(frozen=True)
class ViTForm:
    """Sizes of one transformer."""

    patch_size: int = 16
    width: int = 768
    depth: int = 12
    mlp_width: int = 3072
    tokens: int = 197
    """Patches of a 224 px image and the class token."""

    def leaves(self, num_classes: int | None) -> Iterator[Leaf]:
        """Every array in torchvision's order."""
        width = self.width
        yield Leaf("class_token", "params/class_token", (1, 1, width), "vector")
        yield from conv("conv_proj", "patches", self.patch_size, 3, width, bias=True)
        position = "position_embedding"
        yield Leaf("encoder.pos_embedding", f"params/{position}", (1, self.tokens, width), "vector")
        for index in range(self.depth):
            theirs, ours = f"encoder.layers.encoder_layer_{index}", f"block{index + 1}"
            yield from layer_norm(f"{theirs}.ln_1", f"{ours}/norm1", width)
            # One parameter of the attention, not a layer of its own: hence the underscore.
            name = f"{theirs}.self_attention.in_proj"
            yield Leaf(f"{name}_weight", f"params/{ours}/qkv/kernel", (width, 3 * width), "linear")
            yield vector(f"{name}_bias", f"params/{ours}/qkv/bias", 3 * width)
            yield from linear(f"{theirs}.self_attention.out_proj", f"{ours}/attended", width, width)
            yield from layer_norm(f"{theirs}.ln_2", f"{ours}/norm2", width)
            yield from linear(f"{theirs}.mlp.0", f"{ours}/mlp1", width, self.mlp_width)
            yield from linear(f"{theirs}.mlp.3", f"{ours}/mlp2", self.mlp_width, width)
        yield from layer_norm("encoder.ln", "norm", width)
        if num_classes is not None:
            yield from linear("heads.head", "classifier", width, num_classes)


VITS: dict[str, ViTForm] = {"vit_b_16": ViTForm()}
