"""The written folder is checked before it is published: its headers, and how its tokenizer loads.

`models.reload` runs the model besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.checkpoint import Checkpoint
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.errors import CheckpointError, reason
from tokensurgeon.vocabulary import Vocabulary

DROPS = "which drops merges at random, so that it cuts the same text another way each time"
N_PROBES = 4
PROBE_LENGTH = 64
"""In tokens: a few short sequences show rows that were mixed up, at the cost of seconds."""


def check_headers(folder: Path, plan: PatchPlan) -> None:
    """Open the folder as a checkpoint, without loading it: names, shapes, sides and rows.

    Raises
    ------
    CheckpointError
        Saying what differs from the plan.
    """
    trusted = plan.checkpoint.trust_remote_code
    written = Checkpoint.open(folder, trust_remote_code=trusted)
    layout, before = written.layout, plan.checkpoint.layout
    if (layout.n_rows, layout.width) != (plan.n_new, before.width):
        raise CheckpointError(
            f"{plan.n_new} rows were written and {layout.n_rows} stand in the files' headers"
        )
    lost = set(before.names) - set(layout.names)
    shapes = {
        name: (plan.checkpoint.tensors.info(name).shape, written.tensors.info(name).shape)
        for name in plan.checkpoint.tensors.where
        if name in written.tensors.where and name not in layout.names
    }
    changed = [name for name, (old, new) in shapes.items() if old != new]
    missing = set(plan.checkpoint.tensors.where) - set(written.tensors.where)
    if lost or changed or missing:
        wrong = sorted([*lost, *changed, *missing])[0]
        raise CheckpointError(f"the written checkpoint lacks {wrong}, or has it in another shape")


def probe_ids(plan: PatchPlan, texts: Sequence[str]) -> list[list[int]]:
    """Return a few short sequences of target ids to try a model on; at least one."""
    longest = min(PROBE_LENGTH, plan.checkpoint.max_positions or PROBE_LENGTH)
    probes = [[int(i) for i in plan.target.encode(text)[:longest]] for text in texts[:N_PROBES]]
    return [ids for ids in probes if ids] or [list(range(min(4, plan.n_new)))]


def check_autotokenizer(folder: Path, target: Vocabulary, texts: Sequence[str]) -> str | None:
    """Load the folder with AutoTokenizer and compare it with the target, id by id.

    Where a text spells a marker that the file does not call special (Gemma's ``<s>``),
    AutoTokenizer reads the marker, as the file says, and the target text: that is no difference.

    Returns
    -------
    str or None
        What differs, in one line with the load line that works, if one does; None if nothing does.
    """
    from transformers import AutoTokenizer, TokenizersBackend

    different = _as_loaded(AutoTokenizer, folder, target, texts)
    if different is None:
        return None
    what = f"AutoTokenizer {different}"
    if different.endswith(DROPS):
        return f"{what}; set dropout to null in tokenizer.json"
    if _as_loaded(TokenizersBackend, folder, target, texts) is None:
        return f"{what}; load it with transformers.TokenizersBackend.from_pretrained(FOLDER)"
    return f"{what}; correct tokenizer_config.json, which names its class and special tokens"


def _as_loaded(loader: Any, folder: Path, target: Vocabulary, texts: Sequence[str]) -> str | None:
    """Say how a class of transformers loads a folder otherwise than the target; else None."""
    try:
        with internals.quiet():
            tokenizer = loader.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
            different = difference_from(tokenizer, target, texts)
    except BaseException as error:  # a panic of the Rust library is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return f"cannot load it ({reason(error)})"
    return None if different is None else f"loads {different}"


def difference_from(tokenizer: Any, target: Vocabulary, texts: Sequence[str]) -> str | None:
    """Say what a tokenizer of transformers reads otherwise than the target, id by id; else None."""
    name = type(tokenizer).__name__
    if getattr(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), "dropout", 0):
        return f"{name}, {DROPS}"
    table = {int(i): str(token) for token, i in tokenizer.get_vocab().items()}
    for i, spelling in enumerate(target.spellings):
        if table.get(i) != spelling:
            return f"{name}, whose id {i} is {table.get(i)!r} instead of {spelling!r}"
    beyond = max(table, default=-1)
    if beyond >= target.n_rows:
        return f"{name}, which adds {table[beyond]!r} as id {beyond}"
    for text in texts:
        encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        theirs, ours = list(encoding["input_ids"]), list(target.encode(text))
        if theirs != ours and theirs != _as_its_file_reads(target, text):
            return _first_difference(name, text, theirs, ours)
    return None


def _as_its_file_reads(target: Vocabulary, text: str) -> list[int]:
    """Return the ids of a text, markers read as the tokenizer's own file flags them."""
    plain = Tokenizer.from_str(target.tokenizer.to_str())
    plain.encode_special_tokens = True
    return list(plain.encode(text, add_special_tokens=False).ids)


def _first_difference(name: str, text: str, theirs: list[int], ours: list[int]) -> str:
    pairs = zip([*theirs, None], [*ours, None], strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    return (
        f"{name}, which reads {text[:40]!r} as other ids "
        f"({theirs[at : at + 4]} instead of {ours[at : at + 4]} at token {at})"
    )
