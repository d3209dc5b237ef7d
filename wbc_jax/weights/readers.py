"""Arrays from and to weights files: `.safetensors` with NumPy alone, `.pth` by torch's weights-only loader.

What a file is, is told from its first bytes, not from its name. Nothing in a file is ever executed, and one
that claims more than `MAX_BYTES` of arrays is refused before they are allocated. This is the only module that
needs torch, and only inside the two functions for `.pth`.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import jax.numpy as jnp  # also teaches NumPy the name bfloat16, which safetensors asks it for
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wbc_jax.errors import WeightsError

MAX_BYTES = 8 * 2**30
"""Most bytes of arrays accepted from one file; the largest trunk has 0.24 GB."""

TORCH_SUFFIXES = (".pth", ".pt")
SAFETENSORS_SUFFIX = ".safetensors"
_NESTED_KEYS = ("state_dict", "model_state_dict", "model")
_EXPECTED = "a .safetensors file, or a .pth/.pt state dict written by torch.save"

Kind = Literal["safetensors", "torch"]


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every array of a weights file by its name in the file, and the file's text metadata (empty for `.pth`).

    Raises:
        WeightsError: missing, truncated, of another type, unsafe, too large, or holding no arrays.
    """
    path = Path(path)
    kind = _file_kind(path)
    arrays, metadata = _read_safetensors(path) if kind == "safetensors" else (_read_torch(path), {})
    if not arrays:
        raise WeightsError("the file holds no arrays", expected=_EXPECTED, where=str(path))
    return arrays, metadata


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write named arrays; the suffix chooses safetensors or torch's format (which drops `metadata`).

    The file is written beside its destination, read back, compared bit by bit, and only then put in place: an
    interrupted or failed write never leaves half a file under the final name.

    Raises:
        WeightsError: unknown suffix, no space, no permission, or a file that does not read back as written.
    """
    path = Path(path)
    if path.suffix not in (SAFETENSORS_SUFFIX, *TORCH_SUFFIXES):
        raise WeightsError(
            f"cannot tell a weights format from the suffix {path.suffix!r}",
            expected=f"{SAFETENSORS_SUFFIX}, {' or '.join(TORCH_SUFFIXES)}",
            where=str(path),
        )
    # safetensors writes the raw buffer: a transposed view would be stored in the wrong order without a word.
    dense = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    size = sum(array.nbytes for array in dense.values())
    draft = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == SAFETENSORS_SUFFIX:
            save_file(dense, draft, metadata=dict(metadata))
        else:
            _write_torch(draft, dense)
        _flush(draft)
        _verify_written(draft, dense)
        os.replace(draft, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is a RuntimeError in torch.save
        raise _write_error(path, size, error) from error
    finally:
        if draft.exists():
            draft.unlink()


def as_numpy(value: Any) -> np.ndarray:
    """A NumPy array from an array or torch tensor; bfloat16, which NumPy lacks, arrives as float32."""
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return np.asarray(value)


def as_float32(arrays: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """The same arrays in float32, the type of all parameters; refuses integers, NaN and infinity by name."""
    wrong = [
        f"{name}: {array.dtype}"
        for name, array in arrays.items()
        if not jnp.issubdtype(array.dtype, jnp.floating)
    ]
    if wrong:
        raise WeightsError(
            f"{len(wrong)} arrays are not floating point: {', '.join(wrong[:10])}",
            expected="float32, float16, bfloat16 or float64 weights",
            where=where,
            remedy="convert the unquantised weights",
        )
    cast = {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}
    infinite = [name for name, array in cast.items() if not np.isfinite(array).all()]
    if infinite:
        raise WeightsError(
            f"{len(infinite)} arrays hold NaN or infinity in float32: {', '.join(infinite[:10])}",
            expected="finite weights",
            where=where,
            remedy="the file comes from a diverged run or is damaged: use another one",
        )
    return cast


def _file_kind(path: Path) -> Kind:
    if path.is_dir():
        raise WeightsError("a directory, not a weights file", expected=_EXPECTED, where=str(path))
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except FileNotFoundError as error:
        raise WeightsError("no such file", expected=_EXPECTED, where=str(path)) from error
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not start:
        raise WeightsError(
            "an empty file",
            expected=_EXPECTED,
            where=str(path),
            remedy="the download or copy did not finish: repeat it",
        )
    if start[8:9] == b"{":  # 8 bytes of header length, then the JSON header
        return "safetensors"
    if start.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or a bare pickle as before torch 1.6
        return "torch"
    raise _foreign(path, start)


def _foreign(path: Path, start: bytes) -> WeightsError:
    known = (
        (b"version https://git-lfs", "a Git LFS pointer, not the weights it points at", "run `git lfs pull`"),
        (b"<", "a web page or XML, not weights", "the download link led to a page: fetch the file itself"),
        (
            b"\x89HDF",
            "an HDF5 file (Keras), not torchvision's weights",
            "only torchvision's weights are known",
        ),
        (b"\x93NUMPY", "a NumPy array, not named weights", "save the arrays as .safetensors"),
        (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    )
    for magic, found, remedy in known:
        if start.lstrip().startswith(magic):
            return WeightsError(found, expected=_EXPECTED, where=str(path), remedy=remedy)
    return WeightsError(
        f"not a weights file (it starts with {start[:8]!r})",
        expected=_EXPECTED,
        where=str(path),
        remedy="check that the whole file was downloaded, and that it is the right one",
    )


def _too_large(path: Path, size: int) -> WeightsError:
    return WeightsError(
        f"the file claims {size / 2**30:.1f} GiB of arrays",
        expected=f"at most {MAX_BYTES / 2**30:.0f} GiB",
        where=str(path),
        remedy="this is not one of the networks here, or the file was made to exhaust memory",
    )


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if path.stat().st_size > MAX_BYTES:
        raise _too_large(path, path.stat().st_size)
    try:
        with safe_open(path, framework="numpy") as stored:
            names = stored.keys()
            return {name: stored.get_tensor(name) for name in names}, stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"damaged or truncated safetensors file ({error})",
            expected="a complete .safetensors file",
            where=str(path),
            remedy="download or copy it again",
        ) from error
    except (TypeError, AttributeError) as error:  # safetensors asks NumPy for a type that it does not have
        raise WeightsError(
            f"the file holds arrays of a type that NumPy does not know ({error})",
            expected="float32, float16, bfloat16 or float64 weights",
            where=str(path),
            remedy="convert the unquantised weights",
        ) from error


def _torch(path: Path) -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise WeightsError(
            "a torch file, but torch is not installed",
            expected="torch, or weights as .safetensors, which need no torch",
            where=str(path),
            remedy="run `pip install torch`, or give the same weights as .safetensors",
        ) from error
    return torch


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _torch(path)
    if zipfile.is_zipfile(path):  # a compressed archive can unpack to any size
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_BYTES:
            raise _too_large(path, unpacked)
    try:
        with path.open("rb") as stream:
            loaded = torch.load(stream, map_location="cpu", weights_only=True)
    # A damaged file can raise almost anything from torch's reader; all of it means the same to the user.
    except Exception as error:
        raise _torch_error(path, error) from error
    state = _state_dict(path, loaded)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    claimed = sum(value.numel() * value.element_size() for value in tensors.values())
    if claimed > MAX_BYTES:  # a stored tensor may be a one-element storage seen a billion times
        raise _too_large(path, claimed)
    return {name: as_numpy(value) for name, value in tensors.items()}


def _torch_error(path: Path, error: Exception) -> WeightsError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if type(error).__name__ == "UnpicklingError" and "nsupported" in str(error):
        return WeightsError(
            "refused: the file holds Python objects other than arrays, which could run code; nothing was run",
            expected=_EXPECTED,
            where=str(path),
            remedy="ask its author for `torch.save(model.state_dict(), path)`, or for .safetensors",
        )
    return WeightsError(
        f"not a complete torch state dict ({reason})",
        expected=_EXPECTED,
        where=str(path),
        remedy="check that the whole file was downloaded, and that it is the right one",
    )


def _state_dict(path: Path, loaded: Any) -> dict[str, Any]:
    for key in _NESTED_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise WeightsError(
            f"a torch file of {type(loaded).__name__}, not of named arrays",
            expected=_EXPECTED,
            where=str(path),
        )
    return loaded


def _write_torch(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    torch = _torch(path)
    with path.open("wb") as stream:
        torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, stream)


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _verify_written(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    stored, _ = read_arrays(path)
    same = stored.keys() == arrays.keys() and all(
        stored[name].dtype == array.dtype and stored[name].tobytes() == array.tobytes()
        for name, array in arrays.items()
    )
    if not same:
        raise WeightsError(
            "the written file does not read back as it was written",
            where=str(path),
            remedy="the disk is failing or full: write to another one",
        )


def _write_error(path: Path, size: int, error: Exception) -> WeightsError:
    reason = getattr(error, "strerror", None) or str(error)
    return WeightsError(
        f"cannot write {size / 2**20:.0f} MiB of weights: {reason}",
        where=str(path),
        remedy="free that much space or choose another --output",
    )
