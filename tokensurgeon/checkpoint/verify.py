"""The written folder, loaded as its users will load it, before it is published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.checkpoint import Checkpoint
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.errors import CheckpointError
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.load import as_model, load_checked
from tokensurgeon.vocabulary import Vocabulary

N_PROBES = 4
PROBE_LENGTH = 64


def check_reload(
    folder: Path,
    plan: PatchPlan,
    probes: Sequence[Sequence[int]],
    expected: LanguageModel | None = None,
) -> None:
    """Load the folder through transformers and run it.

    Every tensor must fit, nothing may be missing or new, logits must be finite and, where a
    model is expected, equal to its.

    Raises
    ------
    CheckpointError
        Saying what differs.
    """
    dtype = "float32" if expected is None else str(expected.model.dtype).removeprefix("torch.")
    trusted = plan.checkpoint.trust_remote_code
    model = load_checked(folder, dtype=dtype, trust_remote_code=trusted)
    known = set(plan.checkpoint.tensors.where)
    strange = [name for name in model.unexpected_tensors if name not in known]
    if strange:
        raise CheckpointError(f"the written checkpoint has the unexpected tensor {strange[0]}")
    device = "cpu" if expected is None else expected.device
    written = as_model(model.to(device), plan.checkpoint.layout)
    if written.n_rows != plan.n_new:
        raise CheckpointError(f"{plan.n_new} rows were written and {written.n_rows} are loaded")
    for probe in probes:
        try:
            found = written.logits(probe)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the written checkpoint does not run: {internals.first_line(error)}"
            ) from error
        if not plan.allow_nonfinite and not np.isfinite(found).all():
            raise CheckpointError("the written checkpoint computes logits that are not finite")
        if expected is None:
            continue
        wanted = expected.logits(probe)
        scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)))
        tolerance = {"float32": 1e-5}.get(dtype, 1e-2) * scale
        if not np.allclose(found, wanted, rtol=0, atol=tolerance, equal_nan=True):
            worst = float(np.nanmax(np.abs(found - wanted)))
            raise CheckpointError(
                "the written checkpoint computes other logits than the patched model, "
                f"by {worst:.3g}"
            )


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


def probe_ids(
    plan: PatchPlan, texts: Sequence[str], given: Sequence[Sequence[int]] = ()
) -> list[list[int]]:
    """Return a few short sequences of target ids to try a model on; at least one."""
    longest = min(PROBE_LENGTH, plan.checkpoint.max_positions or PROBE_LENGTH)
    found = [list(ids)[:longest] for ids in given]
    for text in texts:
        if len(found) >= N_PROBES:
            break
        found.append([int(one) for one in plan.target.encode(text)[:longest]])
    found = [ids for ids in found if ids]
    return found or [list(range(min(4, plan.n_new)))]


def check_autotokenizer(folder: Path, target: Vocabulary, texts: Sequence[str]) -> str | None:
    """Load the folder with AutoTokenizer and compare it with the target, id by id.

    Returns
    -------
    str or None
        What differs, in one line with the load line that works; None if nothing does.
    """
    from transformers import AutoTokenizer

    advice = (
        "load it with transformers.TokenizersBackend.from_pretrained(FOLDER), "
        "or pass --allow-autotokenizer-mismatch"
    )
    try:
        with internals.quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
            name = type(tokenizer).__name__
            table = {int(i): str(token) for token, i in tokenizer.get_vocab().items()}
            for i, spelling in enumerate(target.spellings):
                if table.get(i) != spelling:
                    return (
                        f"AutoTokenizer loads {name}, whose id {i} is {table.get(i)!r} "
                        f"instead of {spelling!r}; {advice}"
                    )
            beyond = max(table, default=-1)
            if beyond >= target.n_rows:
                return (
                    f"AutoTokenizer loads {name}, which adds {table[beyond]!r} as id {beyond}; "
                    f"{advice}"
                )
            for text in texts:
                found = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
                ours = list(target.encode(text))
                if list(found["input_ids"]) != ours:
                    return (
                        f"{_first_difference(name, text, list(found['input_ids']), ours)}; {advice}"
                    )
    except BaseException as error:  # a panic of the Rust library is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return f"AutoTokenizer cannot load it ({internals.first_line(error)}); {advice}"
    return None


def _first_difference(name: str, text: str, theirs: list[int], ours: list[int]) -> str:
    pairs = zip([*theirs, None], [*ours, None], strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    return (
        f"AutoTokenizer loads {name}, which reads {text[:40]!r} as other ids "
        f"({theirs[at : at + 4]} instead of {ours[at : at + 4]} at token {at})"
    )
