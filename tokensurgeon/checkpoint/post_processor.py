"""What tokenizer.json puts around a text, changed: no token at its end, the second text marked.

Four kinds of post-processors add tokens or type ids: templates, those of BERT and RoBERTa, which
are templates with a name, and sequences of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]


def without_end(post: Any) -> Any:
    """Return a post-processor that adds nothing after the last text; the rest stays.

    Parameters
    ----------
    post : dict or None
        As ``post_processor`` of tokenizer.json.

    Examples
    --------
    >>> post = without_end(template(["<s>"], [], ["</s>"], {"<s>": 1, "</s>": 2}))
    >>> [*post["single"][0]], post["single"][1:]
    (['SpecialToken'], [{'Sequence': {'id': 'A', 'type_id': 0}}])
    """
    return _in_templates(
        post, lambda item: {**item, **{name: _cut(item[name]) for name in ("single", "pair")}}
    )


def with_second_type(post: Any) -> Any:
    """Return a post-processor that gives the second text of a pair, and what follows, type 1."""
    changed = _in_templates(post, _mark)
    if changed != post or _has_template(post):
        return changed
    plain = {
        "type": "TemplateProcessing",
        "single": [_text("A")],
        "pair": [_text("A"), _text("B", 1)],
        "special_tokens": {},
    }
    return plain if post is None else {"type": "Sequence", "processors": [post, plain]}


def template(
    start: Sequence[str], between: Sequence[str], end: Sequence[str], ids: dict[str, int],
    types: bool = False,
) -> Json:  # fmt: skip
    """Return a template of tokens before, between and after texts.

    Parameters
    ----------
    start, between, end : sequence of str
        Spellings; `between` stands after the first text of a pair.
    ids : dict of str to int
    types : bool
        Whether the second text of a pair, and what follows it, has type 1.
    """
    second = int(types)
    before, after = [_token(one) for one in start], [_token(one) for one in end]
    return {
        "type": "TemplateProcessing",
        "single": [*before, _text("A"), *after],
        "pair": [
            *before,
            _text("A"),
            *(_token(one) for one in between),
            _text("B", second),
            *(_token(one, second) for one in end),
        ],
        "special_tokens": {
            one: {"id": one, "ids": [ids[one]], "tokens": [one]}
            for one in dict.fromkeys([*start, *between, *end])
        },
    }


def _text(name: str, kind: int = 0) -> Json:
    return {"Sequence": {"id": name, "type_id": kind}}


def _token(spelling: str, kind: int = 0) -> Json:
    return {"SpecialToken": {"id": spelling, "type_id": kind}}


def _in_templates(post: Any, change: Callable[[Json], Json]) -> Any:
    """Return a post-processor with its templates changed; those with a name become templates."""
    kind = post.get("type") if isinstance(post, dict) else None
    if kind == "Sequence":
        return {**post, "processors": [_in_templates(one, change) for one in post["processors"]]}
    if kind == "TemplateProcessing":
        return change(post)
    if kind not in ("BertProcessing", "RobertaProcessing"):
        return post
    (first, first_id), (last, last_id) = post["cls"], post["sep"]
    ids = {first: first_id, last: last_id}
    if kind == "BertProcessing":
        return change(template([first], [last], [last], ids, types=True))
    plain = change(template([first], [last, last], [last], ids))
    if not post.get("trim_offsets", True):
        return plain
    spaces = {
        "type": "ByteLevel",
        "add_prefix_space": post.get("add_prefix_space", True),
        "trim_offsets": True,
        "use_regex": True,
    }
    return {"type": "Sequence", "processors": [spaces, plain]}


def _has_template(post: Any) -> bool:
    if not isinstance(post, dict):
        return False
    return post.get("type") == "TemplateProcessing" or any(
        map(_has_template, post.get("processors", ()))
    )


def _mark(item: Json) -> Json:
    """Return a template whose second text, and what follows it, has type 1."""
    pair, second = [], False
    for part in item["pair"]:
        (name, value), *_ = part.items()
        second = second or (name == "Sequence" and value["id"] == "B")
        pair.append({name: {**value, "type_id": 1}} if second else part)
    return {**item, "pair": pair}


def _cut(parts: list[Json]) -> list[Json]:
    """Return a template's parts up to the last text."""
    last = max((i for i, part in enumerate(parts) if "Sequence" in part), default=-1)
    return parts[: last + 1]
