"""`wbc-jax convert`: weights of torchvision and other libraries to our safetensors form, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wbc_jax.errors import UsageError, WeightsError
from wbc_jax.weights.download import Release, fetch_pretrained
from wbc_jax.weights.load import convert_torchvision, load_variables, save_variables, to_torchvision
from wbc_jax.weights.merge import flatten, unflatten
from wbc_jax.weights.naming import ARCHITECTURES, head_name, leaves, remark
from wbc_jax.weights.readers import SAFETENSORS_SUFFIX, TORCH_SUFFIXES, read_arrays, write_arrays

Direction = Literal["to_flax", "to_torch"]


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Options of `wbc-jax convert`."""

    arch: str
    """Network that the weights are of: resnet50, densenet121, vgg19, vit_b_16, …; a wrong name lists all."""
    output: Path
    """File to write: .safetensors, or .pth/.pt with direction to_torch."""
    input: Path | None = None
    """Weights to read, .pth/.pt or .safetensors; None: torchvision's published ImageNet weights, downloaded
    into the folder of the output and checked by SHA-256 (direction to_flax only)."""
    direction: Direction = "to_flax"
    """to_flax: torchvision's names to ours; to_torch: ours to a state dict for torchvision's module."""
    num_classes: int | None = None
    """Classes of the head to write; None: the input's head, or none if it has none. Another number than the
    input's: a new random head (torch's initialisation), to be trained."""
    release: Release = "v1"
    """Which published weights to download: v1 or v2 (ResNet50, 101 and 152 only)."""
    overwrite: bool = False
    """Replace the output file if it exists."""


@dataclass(frozen=True)
class ConversionReport:
    """What was written.

    Attributes:
        parameters: trainable scalars in the output.
        arrays: arrays in the output, running statistics included.
        num_classes: classes of the head; None: a trunk without head.
        new_head: whether that head is freshly initialised.
        remark: what a user of these weights should know, if anything.
    """

    arch: str
    input: Path
    output: Path
    direction: Direction
    parameters: int
    arrays: int
    num_classes: int | None
    new_head: bool
    remark: str | None = None

    def __str__(self) -> str:
        head = "no head" if self.num_classes is None else f"head of {self.num_classes} classes"
        if self.new_head:
            head += " (newly initialised)"
        line = f"{self.output}: {self.arch}, {self.parameters:,} parameters in {self.arrays} arrays, {head}"
        return line if self.remark is None else f"{line}\nnote: {self.remark}"


def convert(options: ConvertOptions) -> ConversionReport:
    """Carry out the options of the command line; without an input file the published weights are downloaded.

    Raises:
        UsageError: options that do not go together, all of them at once.
        WeightsError: as `convert_file` and `fetch_pretrained`.
    """
    _check_options(options)
    source = options.input or fetch_pretrained(options.arch, options.output.parent, options.release)
    return convert_file(
        options.arch, source, options.output, options.num_classes, direction=options.direction
    )


def convert_file(
    arch: str,
    input: Path,
    output: Path,
    num_classes: int | None = None,
    *,
    direction: Direction = "to_flax",
) -> ConversionReport:
    """Convert a weights file of one network; the output is read back and compared with what was converted.

    Args:
        arch: one of `naming.ARCHITECTURES`.
        input: `.pth`/`.pt` or `.safetensors`, in torchvision's naming (to_flax) or ours (to_torch).
        output: `.safetensors`; with to_torch also `.pth`/`.pt`. Replaced if it exists.
        num_classes: as in `ConvertOptions`.
        direction: as in `ConvertOptions`.

    Raises:
        UsageError: unknown architecture.
        WeightsError: input or output that does not fit or cannot be read or written; all misfits listed.
    """
    input, output = Path(input), Path(output)
    note = None
    if direction == "to_flax":
        state = read_arrays(input)[0]
        variables, note = convert_torchvision(arch, state, where=str(input)), remark(arch, state)
    else:
        variables = load_variables(input)
    variables, new_head = _with_head(arch, variables, num_classes)
    if direction == "to_flax":
        save_variables(output, variables, {"arch": arch, "source": input.name})
        written = load_variables(output)
    else:
        write_arrays(output, to_torchvision(arch, variables), {"arch": arch, "format": "pt"})
        written = convert_torchvision(arch, read_arrays(output)[0])
    _check_equal(variables, written, output)
    flat = flatten(written)
    head = flat.get(f"params/{head_name(arch)}/kernel")
    return ConversionReport(
        arch=arch,
        input=input,
        output=output,
        direction=direction,
        parameters=sum(leaf.size for path, leaf in flat.items() if path.startswith("params/")),
        arrays=len(flat),
        num_classes=None if head is None else head.shape[1],
        new_head=new_head,
        remark=note,
    )


def _check_options(options: ConvertOptions) -> None:
    allowed = (SAFETENSORS_SUFFIX, *(TORCH_SUFFIXES if options.direction == "to_torch" else ()))
    problems = []
    if options.arch not in ARCHITECTURES:
        problems.append(f"arch {options.arch!r}: not one of {', '.join(ARCHITECTURES)}")
    if options.input is None and options.direction == "to_torch":
        problems.append("input: to_torch needs a file of our own form")
    if options.num_classes is not None and options.num_classes < 1:
        problems.append(f"num_classes {options.num_classes}: must be 1 or more")
    if options.output.suffix not in allowed:
        problems.append(f"output {options.output}: must end in {' or '.join(allowed)}")
    if options.output.exists() and not options.overwrite:
        problems.append(f"output {options.output}: exists; it is replaced only with overwrite")
    if problems:
        raise UsageError("the conversion cannot start\n  " + "\n  ".join(problems))


def _with_head(
    arch: str, variables: Mapping[str, Any], num_classes: int | None
) -> tuple[dict[str, Any], bool]:
    """Variables with a head of `num_classes`, and whether it had to be made anew."""
    flat = flatten(variables)
    name = head_name(arch)
    kernel = flat.get(f"params/{name}/kernel")
    if num_classes is None or (kernel is not None and kernel.shape[-1] == num_classes):
        return dict(variables), False
    width = next(leaf.shape[0] for leaf in leaves(arch, num_classes) if leaf.path == f"params/{name}/kernel")
    bound = width**-0.5  # torch's linear layer draws weight and bias from U(±1/√fan_in)
    draw = np.random.default_rng(0).uniform
    flat[f"params/{name}/kernel"] = draw(-bound, bound, (width, num_classes)).astype(np.float32)
    flat[f"params/{name}/bias"] = draw(-bound, bound, num_classes).astype(np.float32)
    return unflatten(flat), True


def _check_equal(converted: Mapping[str, Any], written: Mapping[str, Any], output: Path) -> None:
    left, right = flatten(converted), flatten(written)
    unequal = sorted(left.keys() ^ right.keys())
    unequal += [path for path in left if path in right and not np.array_equal(left[path], right[path])]
    if unequal:
        raise WeightsError(
            f"{len(unequal)} arrays of the file written differ from their source: {', '.join(unequal[:10])}",
            expected="bit-equal arrays",
            where=str(output),
            remedy="report this as a defect of the converter, with the architecture",
        )
