"""Errors that a user can act on: what was found, what was expected, where, and what to do about it.

Every error that leaves the package by intent is a `WbcError`; the command line prints its four parts and
exits with its `exit_code`. Anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_DIVERGED = 4
EXIT_PEER_LOST = 5
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class WbcError(Exception):
    """Base of the errors a user is meant to read.

    Args:
        found: what is wrong, with the offending value.
        expected: what would have been right.
        where: the file, field or flag concerned.
        remedy: what the user can do next.
    """

    exit_code: int = EXIT_USAGE

    def __init__(self, found: str, *, expected: str = "", where: str = "", remedy: str = "") -> None:
        self.found = found
        self.expected = expected
        self.where = where
        self.remedy = remedy
        parts = [("", found), ("expected: ", expected), ("where: ", where), ("remedy: ", remedy)]
        super().__init__("\n".join(f"{label}{text}" for label, text in parts if text))


class UsageError(WbcError):
    """A command line or call that cannot be carried out as written."""

    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    """A configuration that breaks a rule; the message lists every problem found."""


class DataError(WbcError):
    """Images, labels, splits or prepared stores that are missing, damaged or inconsistent."""

    exit_code = EXIT_DATA


class WeightsError(WbcError):
    """A weights file that does not fit the network or cannot be read safely."""

    exit_code = EXIT_DATA


class CheckpointError(WbcError):
    """No usable checkpoint where one is needed, or a save that failed."""

    exit_code = EXIT_DATA


class DivergedError(WbcError):
    """Training produced a non-finite loss or parameter."""

    exit_code = EXIT_DIVERGED


class PeerLostError(WbcError):
    """Another process of a run on several ended before the run did."""

    exit_code = EXIT_PEER_LOST
