"""Give a model new tokens of a domain: extend its tokenizer, make the rows, measure both.

The job is one recipe: the target is the source's own tokenizer with `add` tokens more, learned from
a text; all old rows stay; what is held out of the text says what it brought. So the report of the
result holds the recipe that makes it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokensurgeon.errors import UsageError
from tokensurgeon.progress import Progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.surgery import SurgeryResult, transplant

Files = str | Path | Sequence[str | Path]
"""One file, folder or glob, or several."""
TOKENIZER_KEYS = ("never_longer", "spare", "across", "max_words", "no_cross", "longest", "borders")
"""Keys of the training of the tokenizer that the job takes besides its own."""
CHOSEN = ("tokenizer", "donor", "for_draft", "draft_vocabulary", "digits", "trim_rows", "text")
"""Keys of a recipe that the job decides."""


def extend(
    source: str | Path,
    text: Files,
    add: int,
    *,
    output: str | Path | None = None,
    held_out: Files = (),
    calibration_text: Files = (),
    other_text: Files = (),
    elsewhere: Files = (),
    all_rows: bool = False,
    dry_run: bool = False,
    plugins: Sequence[str | Path] = (),
    progress: Progress | None = None,
    **fields: Any,
) -> SurgeryResult:
    """Give a model new tokens that make text of a domain shorter, with rows for them.

    Every old token keeps its id, its spelling and its rows, bit for bit. The rows of new tokens are
    made, and calibrated on the text, as `transplant` does it.

    Parameters
    ----------
    source : str or Path
        The model; its tokenizer has to be a BPE.
    text : files
        Text of the domain, which tokens are learned from. It is held in memory.
    add : int
        Number of new tokens.
    output : str or Path, optional
        The folder to write; None computes and reports without writing.
    held_out : files
        Text to measure on. If none, a twentieth of the documents of `text` is, and nothing is
        learned from or fitted to these.
    calibration_text : files
        Text that rows are fitted to; if none, `text`.
    other_text : files
        Text of another domain on which calibration must lose nothing; if none, the source writes
        some.
    elsewhere : files
        Text of another kind to measure on as well.
    all_rows : bool
        Let calibration and training change the rows of old tokens too.
    dry_run : bool
        Extend the tokenizer, measure it on the text, estimate time and memory, and stop before any
        row is computed.
    plugins : sequence of path
        Python files that register initialisers. Their code runs.
    progress : callable(done, total, what), optional
    **fields
        ``never_longer``, ``spare``, ``across`` and further keys of the extension's training
        (`extend_vocabulary`), and of a recipe, such as ``init``, ``budget``, ``heal``, ``untie``.

    Returns
    -------
    SurgeryResult
        Its report has under `extension` what the new tokens do to the text, and under `evaluation`
        bits per byte beside the source.

    Raises
    ------
    TokensurgeonError
        With one line that says what is wrong and what to do; nothing is then at the output.

    Examples
    --------
    >>> from importlib.resources import files
    >>> demo = files("tokensurgeon") / "data"
    >>> pages = demo / "text" / "calibration.jsonl"
    >>> result = extend(demo / "source", pages, 50, never_longer=True, dry_run=True)
    >>> result.report.source.n_tokens, result.report.target.n_tokens
    (4096, 4146)
    >>> result.report.extension["longer"], result.report.extension["unreachable"]
    (0, 0)
    """
    for key in CHOSEN:
        if key in fields:
            raise UsageError(f"extend() decides '{key}' itself: leave it out, or use transplant()")
    keys = {
        "source": source,
        "text": text,
        "add": add,
        "output": output,
        "held_out": held_out,
        "calibration_text": calibration_text,
        "other_text": other_text,
        "elsewhere": elsewhere,
        "keep_shared": not all_rows,
    }
    recipe = Recipe.parse(recipe_of(keys | fields), where="extend()")
    return transplant(recipe, dry_run=dry_run, plugins=plugins, progress=progress)


def recipe_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the recipe that does the job; see `extend` for what is given."""
    fields = {key: value for key, value in given.items() if value is not None}
    text, held_out = _files(fields.pop("text")), _files(fields.pop("held_out", ()))
    tokenizer = {key: fields.pop(key) for key in TOKENIZER_KEYS if key in fields}
    return {
        "tokenizer": {
            "method": "extend",
            "base": "source",
            "corpus": text,
            "add": fields.pop("add"),
            **tokenizer,
        },
        "text": {
            "calibration": _files(fields.pop("calibration_text", ())) or text,
            "evaluation": held_out,
            "hold_out": not held_out,
            "other": _files(fields.pop("other_text", ())),
            "elsewhere": _files(fields.pop("elsewhere", ())),
        },
        **fields,
    }


def _files(given: Files) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str | Path) else given
    return tuple(map(str, names))
