"""Promise R8: malformed files are refused with name and reason, and sound files of every kind come out right."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wbc_jax.data import decode
from wbc_jax.data.decode import BadImage, bad_images_error, decode_image, read_image
from wbc_jax.errors import EXIT_DATA, DataError

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, colour_type: int = 2) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def flipped(data: bytes, position: int, bit: int = 0) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def tiff(entries: list[tuple[int, int, int]]) -> bytes:
    """A little-endian TIFF of one directory with entries (tag, type, value) and some bytes of data at 8."""
    body = b"\0" * 64
    directory = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        directory += struct.pack("<HHII", tag, kind, 1, value)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + b"\0" * 4


def corpus() -> dict[str, bytes]:
    jpeg, whole_png = encoded(PICTURE, "JPEG", quality=90), encoded(PICTURE, "PNG")
    bmp, whole_tiff = encoded(PICTURE, "BMP"), encoded(PICTURE, "TIFF", compression="tiff_deflate")
    start_of_scan = jpeg.index(b"\xff\xda")
    bad = {
        "empty.jpg": b"",
        "one_byte.jpg": b"\xff",
        "zeros.png": bytes(1000),
        ".DS_Store.jpg": b"\0\0\0\1Bud1" + bytes(600),
        "text.jpg": b"this is a note about the slide\n" * 20,
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        "table.bmp": b"id,label\n1,neutrophil\n",
        "archive.jpg": b"PK\x03\x04" + bytes(100),
        "document.jpg": b"%PDF-1.7\n1 0 obj\n" + bytes(50),
        "script.png": b"#!/bin/sh\nrm -rf /\n",
        "pickle.png": b"\x80\x04\x95\x10\x00\x00\x00" + b"cos\nsystem\n" * 3,
        "gif.jpg": encoded(PICTURE, "GIF"),
        "webp.jpg": encoded(PICTURE, "WEBP"),
        "ppm.png": encoded(PICTURE, "PPM"),
        "tga.jpg": encoded(PICTURE, "TGA"),
        "ico.png": encoded(PICTURE, "ICO"),
        "eps.jpg": encoded(PICTURE, "EPS"),
        "jp2.jpg": encoded(PICTURE, "JPEG2000"),
        "pdf.png": encoded(PICTURE, "PDF"),
        "fits.tif": b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
        "jpeg_header_only.jpg": jpeg[:start_of_scan],
        "jpeg_scan_header_only.jpg": jpeg[: start_of_scan + 14],
        "jpeg_without_its_start.jpg": jpeg[2:],
        "jpeg_without_tables.jpg": jpeg[:20] + jpeg[start_of_scan:],
        "jpeg_without_end.jpg": jpeg[:-2],
        "jpeg_zero_width.jpg": jpeg.replace(struct.pack(">HH", 40, 56), struct.pack(">HH", 40, 0), 1),
        "jpeg_huge_header.jpg": jpeg.replace(struct.pack(">HH", 40, 56), struct.pack(">HH", 65000, 65000), 1),
        "png_signature_only.png": whole_png[:8],
        "png_header_only.png": png(40, 40),
        "png_zero_width.png": png(0, 40),
        "png_10000.png": png(10_000, 10_000, png_chunk(b"IDAT", zlib.compress(bytes(1000)))),
        "png_20000.png": png(20_000, 20_000, png_chunk(b"IDAT", zlib.compress(bytes(1000)))),
        "png_2_billion.png": png(2**31 - 1, 2**31 - 1),
        "png_just_too_large.png": png(5001, 5000),
        "png_bad_colour_type.png": png(40, 40, colour_type=5),
        "png_few_pixels.png": png(40, 40, png_chunk(b"IDAT", zlib.compress(bytes(121 * 3)))),
        "png_pixels_no_zlib.png": png(40, 40, png_chunk(b"IDAT", bytes(4840))),
        "png_text_bomb.png": png(4, 4, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000)))),
        "png_profile_bomb.png": png(4, 4, png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200_000_000)))),
        "png_wrong_length.png": whole_png[:33] + struct.pack(">I", 2**31 - 1) + whole_png[37:],
        "png_animated.png": encoded(
            PICTURE, "PNG", save_all=True, append_images=[Image.fromarray(255 - PICTURE)]
        ),
        "bmp_header_only.bmp": bmp[:54],
        "bmp_file_header_only.bmp": bmp[:14],
        "bmp_huge.bmp": bmp[:18] + struct.pack("<ii", 30_000, 30_000) + bmp[26:],
        "bmp_unknown_depth.bmp": bmp[:28] + struct.pack("<H", 7) + bmp[30:],
        "tiff_header_only.tif": whole_tiff[:8],
        "tiff_bad_directory.tif": b"II*\0" + struct.pack("<I", 2**31),
        "tiff_huge.tif": tiff([(256, 4, 60_000), (257, 4, 60_000), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8)]),
        "tiff_no_strips.tif": tiff([(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1)]),
        "tiff_huge_tile.tif": tiff(
            [(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 8), (262, 3, 1), (322, 4, 30_000), (323, 4, 30_000),
             (324, 4, 8), (325, 4, 64)]
        ),
        "tiff_pages.tif": encoded(PICTURE, "TIFF", save_all=True, append_images=[Image.fromarray(PICTURE)]),
        "tiff_float.tif": encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"),
        "tiff_32_bit.tif": encoded(Image.fromarray(np.ones((8, 8), np.int32)), "TIFF"),
    }  # fmt: skip
    for share in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99):
        for name, data in (("jpg", jpeg), ("png", whole_png), ("bmp", bmp), ("tif", whole_tiff)):
            bad[f"cut_at_{share}.{name}"] = data[: int(share * len(data))]
    # In a PNG every bit is under a checksum; these lie in the header, the pixels, a checksum and the end.
    for position in (
        9,
        17,
        30,
        45,
        len(whole_png) // 2,
        len(whole_png) - 20,
        len(whole_png) - 14,
        len(whole_png) - 2,
    ):
        bad[f"png_flipped_at_{position}.png"] = flipped(whole_png, position)
    for position in (0, 1):
        bad[f"jpeg_flipped_at_{position}.jpg"] = flipped(jpeg, position)
    bad["bmp_flipped_signature.bmp"] = flipped(bmp, 0)
    bad["tiff_flipped_signature.tif"] = flipped(whole_tiff, 2)
    return bad


CORPUS = corpus()


def test_corpus_is_as_large_as_promised() -> None:
    assert len(CORPUS) >= 40


@pytest.mark.parametrize("name", sorted(CORPUS))
def test_malformed_file_is_refused_with_name_and_reason(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadImage) as caught:
            decode_image(CORPUS[name], name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.name == name
    assert caught.value.reason
    assert name in str(caught.value)
    assert caught.value.reason in str(caught.value)
    assert isinstance(caught.value, DataError)
    assert caught.value.exit_code == EXIT_DATA
    assert peak < 200e6


PEAK_SCRIPT = """
import resource
from wbc_jax.data.decode import BadImage, decode_image
from test_decode import CORPUS, PICTURE, encoded
for kind in ("JPEG", "PNG", "BMP", "TIFF"):
    decode_image(encoded(PICTURE, kind), "sound")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = 0
for name, data in CORPUS.items():
    try:
        decode_image(data, name)
    except BadImage:
        refused += 1
print(refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory in KiB as Linux reports it")
def test_malformed_files_together_need_little_memory() -> None:
    """In a process of its own, whose peak is not hidden by what other tests have needed."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK_SCRIPT],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    refused, growth_kib = map(int, done.stdout.split())
    assert refused == len(CORPUS)
    assert growth_kib < 200_000


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty.jpg", "empty file"),
        ("gif.jpg", "not a JPEG, PNG, BMP or TIFF"),
        ("png_10000.png", "10000 x 10000 px is more than 25 MP"),
        ("png_20000.png", "more than 25 MP"),
        ("png_just_too_large.png", "5001 x 5000 px is more than 25 MP"),
        ("jpeg_without_end.jpg", "truncated"),
        ("cut_at_0.6.jpg", "truncated"),
        ("png_animated.png", "2 frames"),
        ("tiff_pages.tif", "2 frames or pages"),
        ("tiff_huge_tile.tif", "30000 x 30000"),
        ("tiff_float.tif", "32-bit"),
    ],
)
def test_reasons_say_what_is_wrong(name: str, words: str) -> None:
    with pytest.raises(BadImage) as caught:
        decode_image(CORPUS[name], name)
    assert words in caught.value.reason


@pytest.mark.parametrize("name", ["png_10000.png", "bmp_huge.bmp", "tiff_huge.tif", "jpeg_huge_header.jpg"])
def test_size_is_refused_before_decoding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    def load(self: Any) -> None:
        raise AssertionError("decoding has begun")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(BadImage, match="more than 25 MP"):
        decode_image(CORPUS[name], name)


def test_a_jpeg_cut_anywhere_is_refused() -> None:
    jpeg = encoded(PICTURE, "JPEG", quality=60)
    for end in range(len(jpeg)):
        with pytest.raises(BadImage):
            decode_image(jpeg[:end], "cut.jpg")


def test_a_png_with_any_flipped_bit_is_refused() -> None:
    whole = encoded(PICTURE[:12, :12], "PNG")
    for position in range(len(whole)):
        with pytest.raises(BadImage):
            decode_image(flipped(whole, position, position % 8), "flipped.png")


def test_random_damage_never_escapes_as_another_error() -> None:
    """Whatever the parser does with a damaged file, the caller sees pixels or BadImage."""
    rng = np.random.default_rng(1)
    sources = [encoded(PICTURE, kind) for kind in ("JPEG", "PNG", "BMP", "TIFF")]
    sources.append(encoded(PICTURE, "TIFF", compression="tiff_lzw"))
    refused = 0
    for _ in range(400):
        data = bytearray(sources[rng.integers(len(sources))])
        for position in rng.integers(0, min(len(data), 400), 3):
            data[position] = rng.integers(256)
        try:
            pixels = decode_image(bytes(data), "damaged")
        except BadImage:
            refused += 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
    assert refused > 50


def test_lossless_formats_are_exact() -> None:
    for kind in ("PNG", "BMP", "TIFF"):
        pixels = decode_image(encoded(PICTURE, kind), "x")
        assert pixels.flags.writeable
        np.testing.assert_array_equal(pixels, PICTURE)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits"):
        np.testing.assert_array_equal(
            decode_image(encoded(PICTURE, "TIFF", compression=compression), "x"), PICTURE
        )


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_jpeg_comes_close_to_its_original(options: dict[str, Any]) -> None:
    y, x = np.mgrid[:90, :70]
    smooth = np.stack([120 + 60 * np.sin(x / 20), 90 + y, 200 - x - y / 3], axis=2).astype(np.uint8)
    found = decode_image(encoded(smooth, "JPEG", quality=95, **options), "x")
    assert np.abs(found.astype(int) - smooth).mean() < 1.5
    assert np.abs(found.astype(int) - smooth).max() < 12


@pytest.mark.parametrize("channels", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (5, 9), (8, 8), (17, 6)])
def test_whole_png_of_every_kind_is_accepted(channels: str, width: int, height: int) -> None:
    """The count of bytes in `png_check` must fit what other software writes, of any size and depth."""
    picture = Image.new("L" if channels == "I;16" else channels, (width, height))
    if channels == "I;16":
        picture = Image.fromarray(np.zeros((height, width), np.uint16))
    assert decode_image(encoded(picture, "PNG"), "x").shape == (height, width, 3)


def test_interlaced_png_is_counted_by_passes() -> None:
    """Assembled here, for Pillow does not write it: 5 x 3 grey pixels in seven passes, of which the second is empty."""
    grey = PICTURE[:3, :5, 0]
    starts = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    rows = [grey[y, x0::dx] for x0, y0, dx, dy in starts for y in range(y0, 3, dy) if len(grey[y, x0::dx])]
    stream = b"".join(b"\0" + row.tobytes() for row in rows)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, 8, 0, 0, 0, 1))

    def whole(body: bytes) -> bytes:
        return (
            b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(body)) + png_chunk(b"IEND", b"")
        )

    np.testing.assert_array_equal(decode_image(whole(stream), "x")[..., 0], grey)
    with pytest.raises(BadImage, match="bytes of pixels"):
        decode_image(whole(stream[:-1]), "x")


def test_grey_palette_and_bilevel() -> None:
    grey = PICTURE[..., 0]
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(encoded(grey, "PNG"), "x"), as_rgb)
    np.testing.assert_array_equal(decode_image(encoded(grey, "BMP"), "x"), as_rgb)
    few = np.array([[200, 10, 30], [5, 250, 90]], np.uint8)[np.indices((8, 8)).sum(0) % 2]
    palette = Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode_image(encoded(palette, "PNG"), "x"), few)
    black_white = (np.indices((8, 8)).sum(0) % 2).astype(bool)
    np.testing.assert_array_equal(
        decode_image(encoded(black_white, "PNG"), "x"),
        np.repeat(black_white[..., None] * np.uint8(255), 3, axis=2),
    )


def test_transparency_lies_on_white() -> None:
    alpha = np.full((*PICTURE.shape[:2], 1), 255, np.uint8)
    alpha[:10] = 0
    alpha[10:20] = 128
    expected = PICTURE * (alpha / 255.0) + 255.0 * (1 - alpha / 255.0)
    found = decode_image(encoded(np.concatenate([PICTURE, alpha], axis=2), "PNG"), "x")
    assert np.abs(found - expected).max() <= 1
    palette = Image.fromarray(PICTURE).quantize(4)
    found = decode_image(encoded(palette, "PNG", transparency=0), "x")
    assert (found[np.asarray(palette) == 0] == 255).all()
    grey_alpha = np.concatenate([PICTURE[..., :1], alpha], axis=2)
    found = decode_image(encoded(grey_alpha, "PNG"), "x")
    assert (found[:10] == 255).all()
    np.testing.assert_array_equal(found[20:, :, 0], PICTURE[20:, :, 0])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_scale(kind: str) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = decode_image(encoded(values, kind), "x")
    expected = np.rint(values * (255 / 65535))
    for channel in range(3):
        assert np.abs(found[..., channel] - expected).max() <= 0


def test_cmyk_jpeg_becomes_rgb() -> None:
    cmyk = np.zeros((32, 32, 4), np.uint8)
    cmyk[:16, :, 1] = 255  # magenta above, yellow below
    cmyk[16:, :, 2] = 255
    found = decode_image(encoded(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=95), "x")
    assert found.shape == (32, 32, 3)
    assert np.abs(found[4, 4].astype(int) - [255, 0, 255]).max() < 12
    assert np.abs(found[28, 4].astype(int) - [255, 255, 0]).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    """The eight orientations of the EXIF standard, written out with NumPy."""
    upright = np.kron(np.array([[1, 2, 3], [4, 5, 6]], np.uint8) * 40, np.ones((16, 16), np.uint8))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode_image(encoded(np.ascontiguousarray(stored), kind, exif=exif), "x")
    assert found.shape == (*upright.shape, 3)
    assert np.abs(found[..., 0].astype(int) - upright).max() <= 4


def test_odd_metadata_does_not_matter() -> None:
    jpeg = encoded(PICTURE, "JPEG")
    broken_exif = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 900) + b"\x12\x01"
    segment = b"\xff\xe1" + struct.pack(">H", len(broken_exif) + 2) + broken_exif
    np.testing.assert_array_equal(decode_image(jpeg[:2] + segment + jpeg[2:], "x"), decode_image(jpeg, "x"))
    np.testing.assert_array_equal(decode_image(jpeg + b"maker's trailer", "x"), decode_image(jpeg, "x"))


def test_phone_picture_with_previews_is_its_first_picture() -> None:
    first, second = Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)
    found = decode_image(encoded(first, "MPO", save_all=True, append_images=[second], quality=95), "x")
    np.testing.assert_array_equal(found, decode_image(encoded(PICTURE, "JPEG", quality=95), "x"))


def test_threads_decode_alike_and_leave_the_warning_filters() -> None:
    import warnings

    jpeg = encoded(PICTURE, "JPEG")
    names = ["png_10000.png", "png_20000.png"]
    before = list(warnings.filters)

    def work(index: int) -> bool:
        if index % 3:
            return bool((decode_image(jpeg, "x") == expected).all())
        with pytest.raises(BadImage):
            decode_image(CORPUS[names[index % 2]], "x")
        return True

    expected = decode_image(jpeg, "x")
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(120)))
    assert list(warnings.filters) == before


def test_read_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cell.png"
    path.write_bytes(encoded(PICTURE, "PNG"))
    np.testing.assert_array_equal(read_image(path), PICTURE)
    with pytest.raises(BadImage, match="No such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(BadImage, match="cannot be read"):
        read_image(tmp_path)
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 100)
    with pytest.raises(BadImage, match="in one file"):
        read_image(path)


def test_all_bad_images_are_listed_in_one_error() -> None:
    error = bad_images_error([BadImage("a.jpg", "empty file"), BadImage("b.jpg", "damaged: x")])
    assert "2 images" in error.found
    assert "a.jpg: empty file" in str(error)
    assert "b.jpg: damaged: x" in str(error)
