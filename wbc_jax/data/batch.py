"""The unit that moves from the loaders to the steps."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import struct

Array = jax.Array | np.ndarray


@struct.dataclass
class Batch:
    """B samples. Arrays may live on the host (numpy) or on devices; a loader decides, the steps do not care.

    Attributes:
        images: uint8 `(B, S, S, 3)`, RGB, at the store's size; the steps augment and normalise them.
        labels: int32 `(B,)`, task labels.
        attributes: int32 `(B, 11)`, value indices in `catalog.ATTRIBUTES` order, -1 where not annotated.
        mask: float32 `(B,)`, 1 for a sample that counts, 0 for padding.
        ids: int32 `(B,)`, row in the packed store.
        attribute_weights: float32 `(B,)`, weight of a sample's attributes in the loss; None: 1 each.
    """

    images: Any
    labels: Any
    attributes: Any
    mask: Any
    ids: Any
    attribute_weights: Any = None
