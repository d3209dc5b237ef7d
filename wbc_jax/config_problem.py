"""A broken rule of a configuration. [pure]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One broken rule: the field's path, its value, the rule, and what to do."""

    path: str
    value: Any
    rule: str
    suggestion: str

    def __str__(self) -> str:
        return f"{self.path} = {self.value!r}: {self.rule}; {self.suggestion}"
