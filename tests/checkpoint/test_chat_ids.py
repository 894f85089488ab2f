"""Conversations in a model's ids: controls are parsed, and a bad template is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon.checkpoint.chat_ids import chat_ids
from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary import load_vocabulary

TALK = [{"role": "user", "content": "How many <s>?"}, {"role": "assistant", "content": "12."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_model(tmp_path_factory.mktemp("chat") / "model", n_rows=300, width=32)
    save_tokenizer(byte_level_bpe(300, ("<s>", "<e>")), path, bos_token="<s>", eos_token="<e>")
    return path


def test_a_turn_begins_with_its_control(folder: Path) -> None:
    template = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}<e>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    (one,) = chat_ids(folder, [TALK[1:]])
    vocabulary = load_vocabulary(folder)
    start, end = vocabulary.require_id("<s>"), vocabulary.require_id("<e>")
    assert one == (start, *vocabulary.encode("assistant\n12."), end)
    first, second = chat_ids(folder, [TALK, TALK[1:]])
    assert second == one
    assert first.count(end) == 2
    assert chat_ids(folder, []) == []


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "fails on conversation 1"),
        ("{{ messages[0].content }}{{ 1 / (messages | length - 1) }}", "fails on conversation 2"),
        ("{% for i in range(10 ** 6) %}{{ 'x' * 10 ** 6 }}{% endfor %}", "fails on conversation 1"),
    ],
)
def test_a_template_that_fails_is_named(folder: Path, template: str | None, message: str) -> None:
    path = folder / "chat_template.jinja"
    path.unlink(missing_ok=True)
    if template is not None:
        path.write_text(template)
    with pytest.raises(TokenizerError, match=message):
        chat_ids(folder, [TALK, TALK[1:]])
