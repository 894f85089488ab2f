"""What the written tokenizer puts around a text by default: the target's, as the model expects it.

A causal model goes on from the last token of a prompt, so a token at the end that its own tokenizer
did not put there ends the answer before it begins. An encoder reads its answer from the tokens
around a text, and tells two texts apart by type ids: both are kept where the target has none.
"""

from __future__ import annotations

from typing import Any

from tokensurgeon.checkpoint import encodings
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.checkpoint.post_processor import template, with_second_type, without_end
from tokensurgeon.checkpoint.tokenizer_record import TokenizerFiles

Around = tuple[list[int], list[int]]


def settle_around(files: TokenizerFiles, plan: PatchPlan, post: Any) -> Any:
    """Return the post-processor to write, and say where it is not the target's or not as before.

    Parameters
    ----------
    files : TokenizerFiles
        Source and target as users read them; its configuration may change too.
    plan : PatchPlan
    post : dict or None
        ``post_processor`` of the target's tokenizer.json.
    """
    target = _of_target(files, plan)
    if files.source is None:
        if target[1] and plan.checkpoint.layout.kind == CAUSAL:
            files.warnings.append(_ends(_spell_target(plan, target[1])))
        return post
    source = encodings.around(files.source)
    changed = _settle_single(files, plan, post, source, target)
    return _settle_types(files, plan, changed)


def _settle_single(
    files: TokenizerFiles, plan: PatchPlan, post: Any, source: Around, target: Around
) -> Any:
    """Settle what stands before and after a text."""
    causal = plan.checkpoint.layout.kind == CAUSAL
    before = [_spell_source(files, ids) for ids in source]
    after = [_spell_target(plan, ids) for ids in target]
    if not causal and not any(target) and any(source):
        own = _as_in_source(files, plan, source)
        if own is not None:
            files.decide("around a text", _said(*before), "source")
            return own
    if target[1] and not source[1] and causal:
        if plan.special_tokens == "source":
            if "add_eos_token" in files.config:  # read where there is no post-processor
                files.config["add_eos_token"] = False
            files.decide("around a text", _said(after[0], []), "target, its end as in the source",
                f"the target's tokenizer ends every text with {' '.join(after[1])}, the source's "
                "does not: left out, for every prompt would end in it; --special-tokens target "
                "keeps it",
            )  # fmt: skip
            return without_end(post)
        files.warnings.append(_ends(after[1]))
    elif source[1] and not target[1]:
        files.warnings.append(
            f"the source's tokenizer ends every text with {' '.join(before[1])}, the target's does "
            "not: add its end yourself where the model needs it, as an embedding of the last token "
            "does"
        )
    if source[0] and not target[0]:
        files.warnings.append(
            f"the source's tokenizer starts every text with {' '.join(before[0])}, the target's "
            "with nothing" + _start_remedy(plan)
        )
    files.decide("around a text", _said(*after), "target")
    return post


def _settle_types(files: TokenizerFiles, plan: PatchPlan, post: Any) -> Any:
    """Give the second text of a pair a type of its own where the source does."""
    if not any(_types(files.source)):
        return post
    if files.target is not None:
        marked = any(_types(files.target))
    else:
        pair = plan.target.tokenizer.encode(encodings.FIRST, encodings.SECOND)
        marked = any(pair.type_ids)
    files.decide("type ids of pairs", "0 and 1", "target" if marked else "source")
    return post if marked else with_second_type(post)


def _types(tokenizer: Any) -> list[int]:
    """Return the type ids of a pair, none where the tokenizer gives none by default."""
    pair = encodings.tried(lambda: dict(tokenizer(encodings.FIRST, encodings.SECOND)))
    return list(pair.get("token_type_ids", ())) if isinstance(pair, dict) else []


def _of_target(files: TokenizerFiles, plan: PatchPlan) -> Around:
    if files.target is not None:
        return encodings.around(files.target)
    plain, whole = (
        list(plan.target.tokenizer.encode(encodings.FIRST, add_special_tokens=special).ids)
        for special in (False, True)
    )
    return encodings.parts_around(plain, whole)


def _as_in_source(files: TokenizerFiles, plan: PatchPlan, source: Around) -> Any:
    """Return a template with the target's tokens for what the source puts around texts.

    None where the target lacks one of these tokens.
    """
    ids = [source[0], encodings.between(files.source), source[1]]
    mapped = [[plan.id_map.get(token) for token in part] for part in ids]
    if any(token is None for part in mapped for token in part):
        return None
    start, middle, end = (
        _spell_target(plan, [token for token in part if token is not None]) for part in mapped
    )
    numbers = {one: plan.target.require_id(one) for one in (*start, *middle, *end)}
    return template(start, middle, end, numbers, types=any(_types(files.source)))


def _spell_source(files: TokenizerFiles, ids: list[int]) -> list[str]:
    return [str(token) for token in files.source.convert_ids_to_tokens(ids)]


def _spell_target(plan: PatchPlan, ids: list[int]) -> list[str]:
    return [plan.target.spellings[token] or "" for token in ids]


def _said(start: list[str], end: list[str]) -> str:
    return " ".join([*start, "text", *end])


def _ends(end: list[str]) -> str:
    return (
        f"the target's tokenizer ends every text with {' '.join(end)}, and so does the written "
        "one: encode prompts with add_special_tokens=False, or they end in it"
    )


def _start_remedy(plan: PatchPlan) -> str:
    if "bos" not in plan.target.roles:
        return ""
    return ": AutoTokenizer.from_pretrained(DIR, add_bos_token=True) adds its start"
