"""From an exhibit to its files: the drawing function of each kind, and the Markdown around it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

from wbc_jax.reproduce import (
    cell_drawings,
    config_drawings,
    data_drawings,
    extraction,
    grad_cam,
    run_drawings,
    score_tables,
)
from wbc_jax.reproduce.budget import Budget
from wbc_jax.reproduce.cautions import CAUTIONS, SMOKE, STAND_IN
from wbc_jax.reproduce.exhibit import Exhibit, Kind
from wbc_jax.reproduce.outcome import Context, Drawing

DRAWINGS: dict[Kind, Callable[[Context], Drawing]] = {
    "scores": score_tables.draw_scores,
    "classes": score_tables.draw_classes,
    "attributes": score_tables.draw_attributes,
    "data_facts": data_drawings.draw_data_facts,
    "split_facts": data_drawings.draw_split_facts,
    "attribute_facts": data_drawings.draw_attribute_facts,
    "class_counts": data_drawings.draw_class_counts,
    "settings": config_drawings.draw_settings,
    "architecture": config_drawings.draw_architecture,
    "stages": config_drawings.draw_stages,
    "samples": cell_drawings.draw_samples,
    "mixup": cell_drawings.draw_mixup,
    "extraction": extraction.draw_extraction,
    "curves": run_drawings.draw_curves,
    "confusion": run_drawings.draw_confusion,
    "roc": run_drawings.draw_roc,
    "lines": run_drawings.draw_lines,
    "attribute_confusion": run_drawings.draw_attribute_confusion,
    "grad_cam": grad_cam.draw_grad_cam,
}


def draw(context: Context) -> Path:
    """Draws an exhibit; returns its Markdown file, which names its other files."""
    exhibit = context.exhibit
    drawing = DRAWINGS[exhibit.kind](context)
    parts = [f"# {heading(exhibit)}", *_warnings(context), drawing.markdown]
    cautions = [f"- {CAUTIONS[key]}" for key in exhibit.cautions]
    if cautions:
        parts.append("How to read it:\n\n" + "\n".join(cautions))
    if drawing.files:
        parts.append("Files: " + ", ".join(f"[{file.name}]({file.name})" for file in drawing.files) + ".")
    path = context.path(".md")
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return path


def heading(exhibit: Exhibit) -> str:
    """`SCAM, Table 4: Mixup's α`."""
    return f"{PAPERS[exhibit.paper]}, {_number(exhibit.key)}: {exhibit.title}"


PAPERS = {"scam": "SCAM", "daffnet": "DAFFNet", "amnet": "WBC-AMNet"}


def _number(key: str) -> str:
    for kind in ("table", "figure"):
        if key.startswith(kind):
            return f"{kind.capitalize()} {key.removeprefix(kind)}"
    return f"Supplement {key.upper()}" if key[0] == "s" else key.capitalize()


def _warnings(context: Context) -> list[str]:
    """What holds for all figures of the exhibit at this budget."""
    lines = []
    if context.budget.name == "smoke" and (context.exhibit.rows or context.outcomes):
        lines.append(smoke_warning(context.budget))
    absent = dict.fromkeys(
        o.row.arm.dataset for o in context.finished() if o.stand_in is not None and o.row.arm is not None
    )
    for name in absent:
        reason = context.planner.absence(name) or ""
        stand_in = STAND_IN.format(absent=name, stand_in=context.budget.stand_in)
        lines.append(f"{stand_in} {reason[:1].upper()}{reason[1:]}.")
    return lines


def smoke_warning(budget: Budget) -> str:
    """What the smoke budget's figures are worth."""
    return SMOKE.format(
        images_per_class=budget.images_per_class,
        held_out_per_class=budget.held_out_per_class,
        image_size_px=budget.image_size_px,
    )


def write_index(
    path: Path, paper: str, budget: Budget, exhibits: Sequence[Exhibit], files: Sequence[Path]
) -> None:
    """A page that links every exhibit drawn so far."""
    lines = [f"# {PAPERS[paper]} at the {budget.name} budget", ""]
    if budget.name == "smoke":
        lines += [smoke_warning(budget), ""]
    lines += ["| exhibit | shows |", "| --- | --- |"]
    for exhibit, file in zip(exhibits, files, strict=True):
        lines.append(f"| [{_number(exhibit.key)}]({file.name}) | {exhibit.title} |")
    lines += [
        "",
        f"Drawn {datetime.date.today():%Y-%m-%d}. `wbc-jax reproduce {paper} --budget {budget.name}`",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
