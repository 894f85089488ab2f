"""The tokens that a post-processor puts around texts, held against the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from tokensurgeon.vocabulary.parts import walk

MOST_ITEMS = 100
"""Tokens and texts of one template: published ones have up to ten, and every text pays for them."""
TEMPLATE = "TemplateProcessing"


def post_processor_problems(post: Any, spellings: Sequence[str | None]) -> list[str]:
    """Return what a post-processor says otherwise than the vocabulary, one line each.

    Parameters
    ----------
    post : dict or None
        As ``post_processor`` of tokenizer.json: a template, BERT's, RoBERTa's, or a sequence.
    spellings : sequence of str or None
        By id, as `Vocabulary.spellings`.

    Examples
    --------
    >>> post_processor_problems({"type": "BertProcessing", "cls": ["a", 0], "sep": ["b", 9]}, "a")
    ["its post-processor puts 'b' around texts as id 9, which is no id: they end at 0"]
    """
    problems = []
    stages = list(walk(post))
    for stage in stages:
        for spelling, token in _tokens(stage):
            if token is None or token >= len(spellings):
                other = f"is no id: they end at {len(spellings) - 1}"
            elif spellings[token] != spelling:
                other = f"is {(spellings[token] or 'a hole')[:40]!r}"
            else:
                continue
            problems.append(
                f"its post-processor puts {spelling[:40]!r} around texts as id {token}, which "
                f"{other}"
            )
        if stage["type"] == TEMPLATE:
            problems += _template_problems(stage)
    if sum(stage["type"] == TEMPLATE for stage in stages) > 1:
        problems.append("its post-processor has two templates, which fail on a pair of texts")
    return problems


def _tokens(stage: dict[str, Any]) -> Iterator[tuple[str, int | None]]:
    """Yield (spelling, id) of every token that a stage can add."""
    if stage["type"] in ("BertProcessing", "RobertaProcessing"):
        for role in ("cls", "sep"):
            spelling, token = stage[role]
            yield spelling, token
    elif stage["type"] == TEMPLATE:
        for entry in stage["special_tokens"].values():
            for spelling, token in zip_longest(entry["tokens"], entry["ids"]):
                yield str(spelling), token


def _template_problems(stage: dict[str, Any]) -> Iterator[str]:
    for name, texts in (("single", ["A"]), ("pair", ["A", "B"])):
        items = stage[name]
        own = sorted(item["Sequence"]["id"] for item in items if "Sequence" in item)
        labels = [item["SpecialToken"]["id"] for item in items if "SpecialToken" in item]
        ids_of = {label: len(one["ids"]) for label, one in stage["special_tokens"].items()}
        n_parts = len(own) + sum(ids_of.get(label, 1) for label in labels)
        if n_parts > MOST_ITEMS:
            yield (
                f"its post-processor's template {name!r} puts {n_parts:,} parts together; at "
                f"most {MOST_ITEMS} are read"
            )
        if own != texts:
            yield (
                f"its post-processor's template {name!r} holds the texts "
                f"{' and '.join(own) or 'none'} instead of {' and '.join(texts)}"
            )
        named = set(labels)
        for label in sorted(named - set(stage["special_tokens"])):
            yield f"its post-processor's template {name!r} names {label[:40]!r} and gives it no id"
