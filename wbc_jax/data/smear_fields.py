"""Images of one smear field found among many: likely pairs by shared keypoint words, each proven by geometry.

A word is 14 of a descriptor's 256 bits; eight such words of each keypoint make an image a bag of words, and rare words
that two images share make them a likely pair (TF-IDF, cosine). Only likely pairs are matched keypoint by keypoint, and
none whose images are already known to belong together, so that the work grows little faster than the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer

from wbc_jax.data.keypoints import BITS, SAME_FIELD_INLIERS, Field, View, agreeing_keypoints

_TABLES, _WORD_BITS = 8, 14
_CANDIDATES = 12
_ROWS_AT_ONCE = 512


def group_fields(
    fields: Sequence[Field],
    *,
    agree: Callable[[Field, Field], int] = agreeing_keypoints,
    on_progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """Which images show the same field, directly or by way of others.

    Args:
        fields: N images' keypoints.
        agree: number of keypoints that fit one map between two images.
        on_progress: called with the likely pairs looked at and their number.

    Returns:
        int64 `(N,)`, the lowest index in each image's group.
    """
    if not fields:
        return np.zeros(0, np.int64)
    first, second = likely_pairs(fields)
    parents = np.arange(len(fields))
    for done, (a, b) in enumerate(zip(first, second, strict=True), start=1):
        if on_progress is not None:
            on_progress(done, len(first))
        root_a, root_b = _root(parents, a), _root(parents, b)
        if root_a != root_b and agree(fields[a], fields[b]) >= SAME_FIELD_INLIERS:
            parents[max(root_a, root_b)] = min(root_a, root_b)
    return np.asarray([_root(parents, index) for index in range(len(fields))], np.int64)


def likely_pairs(fields: Sequence[Field]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images that share rare words, the likeliest first.

    Returns:
        int64 `(P,)` twice, the lower index first; each image is in its own `_CANDIDATES` likeliest pairs at least.
    """
    counts = _bags([field.plain for field in fields])
    weighting = TfidfTransformer().fit(counts)
    plain: Any = weighting.transform(counts)
    mirrored: Any = weighting.transform(_bags([field.mirrored for field in fields]))
    columns = plain.T.tocsc()
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(fields), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        alike = np.maximum((plain[rows] @ columns).toarray(), (mirrored[rows] @ columns).toarray())
        alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = 0.0
        best = np.argpartition(-alike, min(_CANDIDATES, len(fields) - 1), axis=1)[:, :_CANDIDATES]
        for row, others in enumerate(best):
            for other in others[alike[row, others] > 0]:
                pair = (min(start + row, int(other)), max(start + row, int(other)))
                found[pair] = max(found.get(pair, 0.0), float(alike[row, other]))
    ordered = sorted(found, key=lambda pair: (-found[pair], pair))
    pairs = np.asarray(ordered, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _bags(views: Sequence[View]) -> Any:
    """How often each image has each word, sparse float32 `(N, words)`."""
    chosen = np.random.default_rng(0).permutation(BITS)[: _TABLES * _WORD_BITS].reshape(_TABLES, _WORD_BITS)
    places = 2 ** np.arange(_WORD_BITS)
    words, images = [], []
    for image, view in enumerate(views):
        numbers = view.descriptors[:, chosen] @ places + 2**_WORD_BITS * np.arange(_TABLES)  # (n, tables)
        words.append(numbers.ravel())
        images.append(np.full(numbers.size, image))
    columns, rows = np.concatenate(words), np.concatenate(images)
    shape = (len(views), _TABLES * 2**_WORD_BITS)
    return sparse.coo_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape).tocsr()


def _root(parents: np.ndarray, index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return int(index)
