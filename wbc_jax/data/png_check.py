"""Whether a PNG file is whole. Decoders skip checksums of the pixels and fill up what is missing; this does not."""

from __future__ import annotations

import zlib

_SIGNATURE_BYTES = 8
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel of each colour type."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Start x, start y, step x, step y of the seven passes of an interlaced image (PNG specification, 8.2)."""
_PIECE_BYTES = 1 << 16


def png_problem(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG file, or None.

    Every chunk up to the end chunk must be there with its right checksum, and the compressed stream must hold the
    bytes of all rows, checked piece by piece without keeping them.

    Args:
        data: bytes that begin with the PNG signature and a header that a decoder has accepted.
    """
    at, kind = _SIGNATURE_BYTES, b""
    header, pixels = b"", []
    while kind != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        checksum = data[at + 8 + length : at + 12 + length]
        if len(checksum) < 4:
            return "truncated: the end chunk is missing"
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
            return f"damaged: wrong checksum of the chunk {kind.decode('ascii', 'replace')}"
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            pixels.append(body)
        at += 12 + length
    expected = _row_bytes(header)
    found = _unpacked_bytes(b"".join(pixels), expected)
    return None if found >= expected else f"truncated: {found:,} of {expected:,} bytes of pixels"


def _row_bytes(header: bytes) -> int:
    """Bytes of all rows before compression, each with its filter byte."""
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits = header[8] * _CHANNELS[header[9]]
    passes = _ADAM7 if header[12] else ((0, 0, 1, 1),)
    total = 0
    for x0, y0, step_x, step_y in passes:
        columns, rows = -((x0 - width) // step_x), -((y0 - height) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _unpacked_bytes(packed: bytes, limit: int) -> int:
    """Length of a zlib stream's content, at most `limit`; zlib.error when it is damaged."""
    stream, found = zlib.decompressobj(), 0
    while found < limit and not stream.eof:
        piece = stream.decompress(packed, _PIECE_BYTES)
        packed = stream.unconsumed_tail
        if not piece and not packed:
            break
        found += len(piece)
    return found
