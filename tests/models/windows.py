"""Windows of convolutions that every form has to get right: strides, odd sides, kernels larger than their map."""

from __future__ import annotations

import pytest

WINDOWS = [
    # map, kernel, stride, padding
    pytest.param((15, 17), (3, 3), 1, 1, id="3x3"),
    pytest.param((15, 16), (3, 3), 2, 1, id="stride 2, odd and even sides"),
    pytest.param((16, 14), (5, 5), 2, 2, id="5x5, stride 2"),
    pytest.param((7, 7), (9, 9), 1, 4, id="larger than the map"),
    pytest.param((13, 14), (9, 9), 2, 4, id="9x9, stride 2"),
    pytest.param((9, 8), (7, 7), 3, 3, id="stride 3"),
    pytest.param((9, 8), (2, 2), 3, 0, id="pixels that no window reads"),
    pytest.param((8, 9), (4, 4), 2, 0, id="no padding"),
    pytest.param((12, 12), (3, 5), 2, (1, 2), id="oblong"),
    pytest.param((12, 9), (5, 3), 1, (0, 2), id="wide padding"),
]
