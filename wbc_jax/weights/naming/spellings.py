"""Other publishers' spellings of a state dict, brought to the one that our tables list.

Read: torchvision's DenseNet before 2018 and Vision Transformer before 2022, the SE networks of Cadene's
pretrained-models.pytorch and of PaddlePaddle/models v1.7. Wrappers of DataParallel and torch.compile are removed.

Shapes do not tell all: see `objection` and `remark` for Cadene's networks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np

_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put in front of every name

_RENAMED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(\.denselayer\d+\.)(norm|relu|conv)\.([12])\."), r"\1\2\3."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp\.)linear_1\."), r"\g<1>0."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp\.)linear_2\."), r"\g<1>3."),
    (re.compile(r"^layer0\.(conv1|bn1)\."), r"\1."),
    (re.compile(r"\.se_module\."), ".se."),
    (re.compile(r"^last_linear\."), "fc."),
)

_PADDLE_BLOCK = re.compile(r"^conv(\d+)_(\d+)_(x[123]|prj)_(bn_)?(\w+)$")
_PADDLE_STEM = re.compile(r"^conv1_(bn_)?(weights|scale|offset|mean|variance)$")
_PADDLE_GATE = re.compile(r"^fc(\d+)_(\d+)_(sqz|exc)_(weights|offset)$")
_PADDLE_HEAD = re.compile(r"^fc6_(weights|offset)$")
_PADDLE_LEAF = {
    "weights": "weight",
    "scale": "weight",
    "offset": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}


def canonical_torch_name(name: str, listed: Collection[str] = ()) -> str | None:
    """The spelling of our tables of a state-dict key, or None for a counter that has no place here.

    A name that is `listed`, by the table of the network in question, is right as it is.
    """
    stripped = True
    while stripped:
        stripped = False
        for wrapper in _WRAPPERS:
            if name.startswith(wrapper):
                name, stripped = name[len(wrapper) :], True
    if name.endswith("num_batches_tracked"):
        return None
    if name in listed:
        return name
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return _from_paddle(name) or name


def canonical_state(
    state: Mapping[str, np.ndarray], listed: Collection[str] = ()
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """A state dict under the names and layouts of our tables, and the names that occurred under two spellings."""
    named: dict[str, np.ndarray] = {}
    repeated = []
    for raw, array in state.items():
        name = canonical_torch_name(raw, listed)
        if name is None:
            continue
        if name in named:
            repeated.append(name)
        named[name] = _paddle_matrix(raw, array)
    return named, tuple(repeated)


def objection(arch: str, names: Iterable[str]) -> str | None:
    """Why weights that fit by name and shape are still not that network's; None: they are."""
    if arch == "se_resnet50" and _cadenes(names):
        return (
            "Cadene's SE-ResNet50 (timm: legacy_seresnet50): it strides in the first 1x1 convolution of a block, "
            "this network in the 3x3"
        )
    return None


def remark(arch: str, names: Iterable[str]) -> str | None:
    """What a user of these weights should know; None: nothing."""
    if arch == "se_resnext50_32x4d" and _cadenes(names):
        return (
            "Cadene's network pools its stem without padding (ceil mode), this one pads by 1: every map lies one pixel "
            "aside, so its published accuracy is reached only after fine-tuning"
        )
    return None


def _cadenes(names: Iterable[str]) -> bool:
    return any(".se_module." in name for name in names)


def _from_paddle(name: str) -> str | None:
    """timm's name of an array of Paddle's SE-ResNeXt; None: not one of them."""
    if found := _PADDLE_STEM.match(name):
        return f"{'bn1' if found[1] else 'conv1'}.{_PADDLE_LEAF[found[2]]}"
    if (found := _PADDLE_BLOCK.match(name)) and found[5] in _PADDLE_LEAF:
        if found[3] == "prj":
            layer = f"downsample.{1 if found[4] else 0}"
        else:
            layer = f"{'bn' if found[4] else 'conv'}{found[3][1]}"
        return f"{_paddle_block(found[1], found[2])}.{layer}.{_PADDLE_LEAF[found[5]]}"
    if found := _PADDLE_GATE.match(name):
        layer = {"sqz": "fc1", "exc": "fc2"}[found[3]]
        return f"{_paddle_block(found[1], found[2])}.se.{layer}.{_PADDLE_LEAF[found[4]]}"
    if found := _PADDLE_HEAD.match(name):
        return f"fc.{_PADDLE_LEAF[found[1]]}"
    return None


def _paddle_block(stage: str, position: str) -> str:
    """Stages count from 2, behind conv1, and blocks from 1."""
    return f"layer{int(stage) - 1}.{int(position) - 1}"


def _paddle_matrix(name: str, array: np.ndarray) -> np.ndarray:
    """Paddle keeps a linear layer's matrix as (in, out)."""
    if not name.endswith("_weights") or array.ndim != 2:
        return array
    if _PADDLE_HEAD.match(name):
        return array.T
    return array.T[:, :, None, None] if _PADDLE_GATE.match(name) else array
