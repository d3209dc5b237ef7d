"""What keeps a set of named arrays from being the network it is said to be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShapeMismatch:
    """A name that both sides have, with different shapes."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True)
class NameReport:
    """Everything that keeps a set of named arrays from being the network it is said to be."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[ShapeMismatch, ...] = ()
    repeated: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched or self.repeated)

    def lines(self, most: int = 30) -> list[str]:
        """The report for people: each kind of problem with its count and its first `most` names."""
        shapes = [f"{m.name}: found {m.found}, expected {m.expected}" for m in self.mismatched]
        groups = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", tuple(shapes)),
            ("given twice", self.repeated),
        )
        text = []
        for title, names in groups:
            if names:
                text.append(f"{len(names)} {title}:")
                text.extend(f"  {name}" for name in names[:most])
                if len(names) > most:
                    text.append(f"  … and {len(names) - most} more")
        return text
