"""The error of a measurement whose contenders do not compute the same."""

from __future__ import annotations

from wbc_jax.errors import WbcError


class MismatchError(WbcError):
    """Contenders that should compute the same do not, so that their times say nothing of each other."""

    def __init__(self, found: str, *, expected: str, benchmark: str) -> None:
        """
        Args:
            found: whose results differ, and by how much.
            expected: how much they may differ.
            benchmark: that was measuring.
        """
        super().__init__(
            found,
            expected=expected,
            where=f"wbc-jax benchmark {benchmark}",
            remedy="trust no time of these; --precision float32 tells a wrong result from rounding",
        )
