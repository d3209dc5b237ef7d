"""Per-image colour matrices: brightness, contrast, saturation, hue, and stain in optical-density space.

Every change is affine, either in RGB or in optical density, so that all of them together are two 3x3 matrices with an
offset per image. Matrices act on colour columns: `new = matrix @ old + offset`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

# Rec. 601 luma, and the RGB -> YIQ matrix that the hue rotation uses.
_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])

# Optical density of unit amounts of haematoxylin and eosin in R, G, B (Ruifrok and Johnston 2001, Anal Quant Cytol
# Histol 23:291), the third stain being what is orthogonal to both. Romanowsky smears are stained with azure B and
# eosin Y: the blue-violet vector stands for azure B here.
_HAEMATOXYLIN, _EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


STAIN_TO_OD = np.stack(
    [_unit(_HAEMATOXYLIN), _unit(_EOSIN), _unit(np.cross(_HAEMATOXYLIN, _EOSIN))], axis=1
).astype(np.float32)
"""float32 `(3, 3)`: column s is the optical density of stain s in R, G, B."""

OD_TO_STAIN = np.linalg.inv(STAIN_TO_OD.astype(np.float64)).astype(np.float32)

# One grey level of 256: keeps the density of black finite, and density 0 at white.
_DARK = 1.0 / 256.0


def optical_density(rgb: Array) -> Array:
    """Return `-ln` of the transmitted share of light; `rgb` in [0, 1], float32 of any shape."""
    return -jnp.log(rgb * (1.0 - _DARK) + _DARK)


def from_optical_density(density: Array) -> Array:
    """Invert `optical_density`; densities of lighter than white give values above 1."""
    return (jnp.exp(-density) - _DARK) / (1.0 - _DARK)


def stain_matrix(factors: Array, shifts: Array) -> tuple[Array, Array]:
    """Return the change in optical density when each stain's amount is multiplied and shifted.

    Args:
        factors: float32 `(B, 3)`, of haematoxylin, eosin and the rest; 1 leaves a stain as it is.
        shifts: float32 `(B, 3)`, added amounts; 0 leaves a stain as it is (Tellez et al. 2018, IEEE TMI 37:2126).

    Returns:
        float32 `(B, 3, 3)` and `(B, 3)`.
    """
    to_od, to_stain = jnp.asarray(STAIN_TO_OD), jnp.asarray(OD_TO_STAIN)
    matrix = jnp.sum(to_od[None, :, :, None] * factors[:, None, :, None] * to_stain[None, None, :, :], axis=2)
    return matrix, jnp.sum(to_od[None, :, :] * shifts[:, None, :], axis=2)


def colour_matrix(
    brightness: Array, contrast: Array, saturation: Array, hue_turns: Array
) -> tuple[Array, Array]:
    """Return the change in RGB of, in this order, saturation and hue, contrast about mid-grey, brightness.

    Args:
        brightness: float32 `(B,)`, added, share of full scale.
        contrast: float32 `(B,)`, factor of the distance from mid-grey.
        saturation: float32 `(B,)`, factor of the distance from the pixel's own grey.
        hue_turns: float32 `(B,)`, rotation of the chrominance in the YIQ plane, turns.

    Returns:
        float32 `(B, 3, 3)` and `(B, 3)`.
    """
    angle = 2.0 * np.pi * hue_turns
    cos, sin = saturation * jnp.cos(angle), saturation * jnp.sin(angle)
    zero, one = jnp.zeros_like(angle), jnp.ones_like(angle)
    chroma = jnp.stack(
        [
            jnp.stack([one, zero, zero], axis=-1),
            jnp.stack([zero, cos, -sin], axis=-1),
            jnp.stack([zero, sin, cos], axis=-1),
        ],
        axis=-2,
    )  # (B, 3, 3), in YIQ
    to_yiq = jnp.asarray(_YIQ, jnp.float32)
    to_rgb = jnp.asarray(np.linalg.inv(_YIQ), jnp.float32)
    in_yiq = jnp.sum(chroma[:, :, :, None] * to_yiq[None, None, :, :], axis=2)
    matrix = jnp.sum(to_rgb[None, :, :, None] * in_yiq[:, None, :, :], axis=2)
    offset = 0.5 * (1.0 - contrast) + brightness
    return contrast[:, None, None] * matrix, jnp.broadcast_to(offset[:, None], (*offset.shape, 3))


def apply_affine(colours: Array, matrix: Array, offset: Array) -> Array:
    """Map each colour of each image: `(B, P, 3)`, `(B, 3, 3)`, `(B, 3)` -> `(B, P, 3)`, float32.

    Written as sums because a matrix product with an inner side of 3 is several times slower on a CPU.
    """
    mapped = offset[:, None, :]
    for k in range(3):
        mapped = mapped + colours[:, :, k : k + 1] * matrix[:, None, :, k]
    return mapped
