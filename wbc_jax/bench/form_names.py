"""Forms of operations as the command line names them: `kind=form`."""

from __future__ import annotations

from wbc_jax.errors import UsageError
from wbc_jax.models.lowerings import FORMS, Form


def parse_forms(text: str, *, where: str) -> dict[str, Form]:
    """`stem=padded,grouped=merged64` as kinds and forms.

    Args:
        text: one `kind=form` or several, joined by commas.
        where: the flag that it was given to.

    Raises:
        UsageError: a kind does not exist, has no such form or is named twice; all that is wrong is listed, with what
            there is.
    """
    found: dict[str, Form] = {}
    wrong: list[str] = []
    expected: dict[str, None] = {}
    for part in text.split(","):
        kind, _, name = part.partition("=")
        known: dict[str, Form] = {form: form for form in FORMS.get(kind, ())}
        if kind in found:
            wrong.append(f"{part} after {kind}={found[kind]}")
            expected["each kind once"] = None
        elif name not in known:
            wrong.append(part)
            expected[f"{kind}= {', '.join(known)}" if known else f"kinds {', '.join(FORMS)}"] = None
        else:
            found[kind] = known[name]
    if wrong:
        raise UsageError(f"no such form: {', '.join(wrong)}", expected="; ".join(expected), where=where)
    return found
