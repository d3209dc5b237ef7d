"""Variables from and to files: our own safetensors form, and torchvision's state dicts by name.

Our form names every array by collection and Flax path (`params/layer1_0/conv1/kernel`,
`batch_stats/bn1/mean`) in float32, with text metadata: format, version, and what the writer adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wbc_jax.errors import UsageError, WeightsError
from wbc_jax.weights.merge import MergeReport, branch, flatten, merge_pretrained, unflatten
from wbc_jax.weights.naming import (
    ARCHITECTURES,
    NameReport,
    fitting_architecture,
    from_torch,
    objection,
    to_torch,
)
from wbc_jax.weights.readers import as_float32, as_numpy, read_arrays, write_arrays
from wbc_jax.weights.starts import PUBLISHED, fold_like, places

FORMAT = "wbc_jax"
FORMAT_VERSION = "1"


def load_variables(path: Path | str) -> dict[str, Any]:
    """Variables `{"params": ..., "batch_stats": ...}` from a file of our own form; leaves are float32, NumPy.

    Raises:
        WeightsError: an unreadable file, or one in torchvision's naming (the error names the converter).
    """
    path = Path(path)
    arrays, metadata = read_arrays(path)
    return _own_variables(arrays, metadata, path)


def read_metadata(path: Path | str) -> dict[str, str]:
    """The text metadata of a safetensors file, such as the card that an export wrote; empty for `.pth`."""
    return read_arrays(Path(path))[1]


def save_variables(
    path: Path | str, variables: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write variables in our own form; the file is read back and compared before it gets its name.

    Args:
        path: ends in `.safetensors`.
        variables: Flax variables; leaves of any float type, kept as they are.
        metadata: text to travel with the arrays; `format` and `format_version` are added.

    Raises:
        WeightsError: wrong suffix, a failed write, or a file that does not read back as written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"variables are not written as {path.suffix or 'a file without suffix'}",
            expected=".safetensors",
            where=str(path),
            remedy="name the file .safetensors, or convert with direction to_torch for .pth",
        )
    arrays = {name: np.asarray(leaf) for name, leaf in flatten(variables).items()}
    write_arrays(path, arrays, {**(metadata or {}), "format": FORMAT, "format_version": FORMAT_VERSION})


def convert_torchvision(
    arch: str, source: Path | str | Mapping[str, Any], *, where: str = "the state dict given"
) -> dict[str, Any]:
    """Flax variables from weights of another library, matched by name.

    Accepts torchvision's names, for SE networks those of timm, Cadene and Paddle v1.7 (see `naming.spellings`), a
    nested `state_dict`, and DataParallel's prefix. A state dict without head gives a trunk
    (`create_model(arch, num_classes=None)`).

    Args:
        arch: `"resnet50"`, `"densenet121"`, …
        source: a `.pth` or `.safetensors` file, or a state dict of arrays or tensors.
        where: of a state dict, for the error.

    Returns:
        `{"params": ..., "batch_stats": ...}` with float32 NumPy leaves; `num_batches_tracked` is dropped.

    Raises:
        UsageError: an architecture that torchvision weights are not known for.
        WeightsError: an unreadable file, or arrays that are not that architecture, all problems listed.
    """
    _known(arch)
    if isinstance(source, Mapping):
        state = {str(name): as_numpy(value) for name, value in source.items()}
    else:
        state, where = read_arrays(Path(source))[0], str(source)
    return _from_torch_arrays(arch, state, where)


def to_torchvision(arch: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A state dict under torchvision's names and layouts, float32; the reverse of `convert_torchvision`.

    `load_state_dict(strict=True)` accepts it once its values are tensors: torch fills in the counter
    `num_batches_tracked` by itself. For a branch of SCAM pass `merge.branch(variables, "resnet")`.

    Raises:
        UsageError: an architecture that torchvision does not have.
        WeightsError: variables of another network, all problems listed.
    """
    _known(arch)
    flat = {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    state, report = to_torch(arch, flat)
    if not report.ok:
        raise _misfit(arch, report, "the variables given", None)
    return as_float32(state, "the variables given")


def load_pretrained_into(
    variables: Mapping[str, Any], path: Path | str, arch: str, prefix: str = "", *, swap_head: bool = True
) -> tuple[dict[str, Any], MergeReport]:
    """Variables with the branch at `prefix` filled from a file in torchvision's or our own naming, or from a run.

    The naming is told from the names. A file of our own form, or a run, may also be a whole network that has a
    branch of that name: a trained SCAM's ResNet starts another SCAM's ResNet. A trunk fills every trunk that the
    network, or the branch, is built around (`starts.places`): a ResNet50 both branches of DAFFNet.

    Args:
        variables: freshly initialised; not modified.
        path: `.pth` or `.safetensors`, or a run directory, whose best state is taken.
        arch: our name of the branch's network, needed for torchvision's naming; see `starts.PUBLISHED`.
        prefix: as in `merge_pretrained`.
        swap_head: as in `merge_pretrained`.

    Raises:
        UsageError, WeightsError: as `convert_torchvision` and `merge_pretrained`.
        CheckpointError: the run directory has no valid checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        pretrained = _variables_of_run(path)
        pretrained = (branch(pretrained, prefix) if prefix else None) or pretrained
        return _fill(variables, pretrained, prefix, swap_head, str(path))
    arrays, metadata = read_arrays(path)
    if not _foreign_names(arrays):
        pretrained = _own_variables(arrays, metadata, path)
        if prefix:
            pretrained = branch(pretrained, prefix) or pretrained
    else:
        published = PUBLISHED.get(arch, arch)
        _known(published)
        pretrained = _from_torch_arrays(published, arrays, str(path))
    return _fill(variables, pretrained, prefix, swap_head, str(path))


def _fill(
    variables: Mapping[str, Any], pretrained: Mapping[str, Any], prefix: str, swap_head: bool, where: str
) -> tuple[dict[str, Any], MergeReport]:
    """Merges the weights into every place at or below `prefix` that they belong to."""
    here = branch(variables, prefix) if prefix else variables
    filled, report = dict(variables), MergeReport((), (), ())
    for place in places(flatten(here), flatten(pretrained)):
        path = "/".join(part for part in (prefix, place) if part)
        fitting = fold_like(flatten(branch(here, place) if place else here), pretrained)
        filled, one = merge_pretrained(filled, fitting, swap_head=swap_head, prefix=path, where=where)
        report += one
    return filled, report


def _variables_of_run(directory: Path) -> dict[str, Any]:
    """Best state of a run, or of its last stage. Reading checkpoints needs Orbax, which weights files do not."""
    from wbc_jax.runtime.checkpoint_reading import load_variables as load_best
    from wbc_jax.runtime.rundir import resolve_run_dir

    return load_best(resolve_run_dir(directory) / "checkpoints")


def _foreign_names(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(("params/", "batch_stats/"))]


def _own_variables(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], path: Path
) -> dict[str, Any]:
    if strange := _foreign_names(arrays):
        arch = fitting_architecture(arrays)
        raise WeightsError(
            f"the file uses torchvision's names of {arch}" if arch else f"unknown array name {strange[0]!r}",
            expected="names such as params/conv1/kernel and batch_stats/bn1/mean",
            where=str(path),
            remedy=f"wbc-jax convert --arch {arch or 'ARCH'} --input {path} --output {path.stem}.safetensors",
        )
    version = metadata.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise WeightsError(
            f"weights format version {version!r}",
            expected=f"version {FORMAT_VERSION!r}",
            where=str(path),
            remedy="update wbc-jax: the file was written by a newer version",
        )
    return unflatten(as_float32(arrays, str(path)))


def _from_torch_arrays(arch: str, state: Mapping[str, np.ndarray], where: str) -> dict[str, Any]:
    flat, report = from_torch(arch, state)
    if not report.ok:
        raise _misfit(arch, report, where, fitting_architecture(state))
    if reason := objection(arch, state):
        raise WeightsError(
            f"these are the weights of {reason}",
            expected="weights of a network with the stride in the 3x3 convolution, such as timm's seresnet50",
            where=where,
            remedy="take timm's seresnet50, or SE-ResNeXt50, which has its stride there with every publisher",
        )
    return unflatten(as_float32(flat, where))


def _known(arch: str) -> None:
    if arch not in ARCHITECTURES:
        raise UsageError(
            f"no other library's weights are known for {arch!r}",
            expected=f"one of {', '.join(ARCHITECTURES)}",
            where="arch",
            remedy="give the trunk's name, or weights in our own .safetensors form",
        )


def _misfit(arch: str, report: NameReport, where: str, better: str | None) -> WeightsError:
    return WeightsError(
        f"not the arrays of {arch}\n" + "\n".join(report.lines(most=10 if better else 30)),
        expected=f"every array of {arch} under its name and shape, and nothing else",
        where=where,
        remedy=f"these are the weights of {better}: use that architecture"
        if better
        else f"give the state dict of {arch} alone; wrappers other than DataParallel must be removed",
    )
