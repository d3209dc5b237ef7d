"""Encoded bytes to pixels: the only image decoder of the package, with limits that hold before it decodes.

Whatever comes out is uint8 RGB, upright. Whatever is damaged, foreign or too large is refused with its name and
a reason. A changed bit in the scan of a JPEG cannot be seen here: digests of the files are there for that.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from wbc_jax.data.png_check import png_problem
from wbc_jax.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
"""Formats whose parsers may see a file's bytes."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
"""File names that are taken for images, in lower case."""
MAX_PIXELS = 25_000_000
"""Largest width times height, px."""
MAX_FILE_BYTES = 160 * 2**20
"""Largest file that is read at all: 25 MP of three 16-bit channels and some metadata."""

_REMEDY = "replace the file, or remove it from the data set"
_TIFF_BITS_PER_SAMPLE, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 258, 322, 323


class BadImage(DataError):
    """An image that is refused.

    Attributes:
        name: which image.
        reason: why.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name}: {reason}", expected="a whole, single JPEG, PNG, BMP or TIFF image", remedy=_REMEDY
        )
        self.name = name
        self.reason = reason


def bad_images_error(problems: Sequence[BadImage]) -> DataError:
    """One error that lists every refused image with its reason."""
    lines = [f"  {problem.name}: {problem.reason}" for problem in problems]
    return DataError(
        "\n".join([f"{len(problems)} image{'' if len(problems) == 1 else 's'} cannot be used:", *lines]),
        expected="whole, single JPEG, PNG, BMP or TIFF images",
        remedy="replace these files, or remove them from the data set",
    )


def read_image(path: str | Path) -> np.ndarray:
    """Pixels of an image file, uint8 `(H, W, 3)`; BadImage when it cannot be read or is refused."""
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadImage(name, f"cannot be read: {error.strerror or error}") from error
    return decode_image(data, name)


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Pixels of an encoded image.

    Grey, palette, CMYK, YCbCr and 16-bit images become 8-bit RGB, transparent ones lie on white, and the EXIF
    orientation is applied.

    Args:
        data: JPEG, PNG, BMP or TIFF bytes.
        name: how errors call the image.

    Returns:
        uint8 `(H, W, 3)`, RGB.

    Raises:
        BadImage: for empty, truncated, foreign, animated, multi-page or damaged files and for more than 25 MP.
    """
    if not data:
        raise BadImage(name, "empty file")
    if len(data) > MAX_FILE_BYTES:
        raise BadImage(name, f"more than {MAX_FILE_BYTES // 2**20} MiB in one file")
    try:
        with _quiet_pillow:
            return np.array(_decode(data, name))
    except BadImage:
        raise
    # A parser that is fed damaged bytes fails with whatever its code ran into, so no shorter list is complete.
    except Exception as error:
        raise BadImage(name, _reason(error)) from error


def _decode(data: bytes, name: str) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_header(image, name)
        bits = _bits_per_sample(image)
        problem = png_problem(data) if image.format == "PNG" else None
        if problem is not None:
            raise BadImage(name, problem)
        image.load()
        if image.format in ("JPEG", "MPO") and not _has_jpeg_end(data):
            raise BadImage(name, "truncated: the end marker is missing")
        return _to_rgb(ImageOps.exif_transpose(image), bits, name)


def _check_header(image: Image.Image, name: str) -> None:
    """Refuses what must not be decoded; only the header has been read so far."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(name, f"{width} x {height} px is more than {MAX_PIXELS // 1_000_000} MP")
    if width < 1 or height < 1:
        raise BadImage(name, f"no pixels: {width} x {height} px")
    frames = getattr(image, "n_frames", 1)
    # MPO is what phones call a JPEG followed by previews; its first picture is the one that every viewer shows.
    if image.format != "MPO" and (frames > 1 or getattr(image, "is_animated", False)):
        raise BadImage(name, f"{frames} frames or pages where one is expected")
    tags = getattr(image, "tag_v2", {})
    # A small picture may declare one enormous tile, which would be allocated whole.
    tile = (tags.get(_TIFF_TILE_WIDTH, 1), tags.get(_TIFF_TILE_LENGTH, 1))
    if tile[0] * tile[1] > MAX_PIXELS:
        raise BadImage(name, f"tiles of {tile[0]} x {tile[1]} px are more than {MAX_PIXELS // 1_000_000} MP")


def _bits_per_sample(image: Image.Image) -> int:
    """Significant bits of a 16-bit image: TIFF also keeps 12-bit cameras' pixels in 16."""
    return int(getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (16,))[0])


def _has_jpeg_end(data: bytes) -> bool:
    """Whether an end marker follows the first scan. Without one, Pillow may still return a picture."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # filling
            at += 1
            continue
        start_of_scan = data[at + 1] == 0xDA
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if start_of_scan:
            break
    return data.find(b"\xff\xd9", at) >= 0


def _to_rgb(image: Image.Image, bits: int, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        full_scale = 2**bits - 1
        values = np.minimum(np.asarray(image).astype(np.uint32), full_scale)
        return Image.fromarray(((values * 255 + full_scale // 2) // full_scale).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode in ("I", "F"):
        raise BadImage(name, f"32-bit pixels (mode {image.mode}) have no defined white")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        opaque = Image.new("RGB", image.size, (255, 255, 255))
        opaque.paste(image, mask=image.getchannel("A"))
        return opaque
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a JPEG, PNG, BMP or TIFF image, or its header is damaged"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {MAX_PIXELS // 1_000_000} MP"
    return f"damaged: {str(error) or type(error).__name__}"


class _QuietPillow:
    """Leaves out Pillow's warnings about sizes and odd metadata: sizes are checked here, metadata is not used.

    Filters belong to the process, so the first of several decoding threads sets them and the last one resets them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._saved.__exit__(None, None, None)


_quiet_pillow = _QuietPillow()
