"""Laws of writing on after prompts that end inside a token, and of byte views of checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon.calibration.byte_positions import positions_of
from tokensurgeon.calibration.teacher.implied import ImpliedTokens
from tokensurgeon.calibration.teacher.lessons import log_probs
from tokensurgeon.cli.main import Group, main
from tokensurgeon.errors import EvaluationError, SettingError
from tokensurgeon.models.covers import END, ByteView, Cover, Reading
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.load import load_model
from tokensurgeon.models.token_tree import Place
from tokensurgeon.runtime import byte_view, next_tokens, write_all, write_on
from tokensurgeon.text.chunks import chunk_documents
from tokensurgeon.text.encoding import encode_chunks
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary, vocabulary_from_tokenizer
from tokensurgeon.vocabulary.spellings import Spellings

PROMPTS = (
    "The index is sc",
    "A table has ro",
    "Numbers such as 3",
    "for row in",
    "The index is an",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sure little model with tokens of several words."""
    tokenizer = byte_level_bpe(420, ("<s>", "</s>"), across_words=True)
    folder = save_tokenizer(
        tokenizer, tmp_path_factory.mktemp("superwords"), bos_token="<s>", eos_token="</s>"
    )
    return make_model(folder, n_rows=424, noise=0.3, seed=3)


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[LanguageModel, Vocabulary]:
    return load_model(folder), load_vocabulary(folder)


@pytest.mark.parametrize("heal", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_several_prompts_are_continued_as_one_by_one_and_without_a_cache(
    pair: tuple[LanguageModel, Vocabulary], heal: bool, temperature: float
) -> None:
    model, vocabulary = pair
    options: dict[str, Any] = {
        "heal": heal,
        "max_new_tokens": 6,
        "temperature": temperature,
        "seed": 5,
    }
    together = write_all(model, vocabulary, PROMPTS, **options)
    for prompt, written in zip(PROMPTS, together, strict=True):
        told: list[bytes] = []
        alone = write_on(model, vocabulary, prompt, each=told.append, **options)
        assert alone == written
        assert b"".join(told) == alone.continuation
        assert vocabulary.bytes_of(alone.ids) == prompt.encode() + alone.continuation
        if not heal:
            ids = [vocabulary.bos_id, *vocabulary.encode(prompt)]
            (whole,) = model.generate(ids, 6, 5, stop=[vocabulary.eos_id], temperature=temperature)
            assert list(alone.ids) == [*ids[1:], *whole]
        else:
            assert prompt.encode().endswith(alone.taken_back)


def test_healing_draws_what_follows_the_bytes_of_the_prompt(
    pair: tuple[LanguageModel, Vocabulary],
) -> None:
    model, vocabulary = pair
    prompt = "The index is sc"
    view = ByteView(model, vocabulary)
    following = view.read_prompt(prompt).next_bytes()
    n = 100
    drawn = np.zeros(END + 1)
    for seed in range(n):
        written = write_on(model, vocabulary, prompt, heal=True, max_new_tokens=1, seed=seed)
        drawn[written.continuation[0] if written.continuation else END] += 1 / n
    # The mean distance of n draws from their distribution is below the root of cells / n.
    assert np.abs(drawn - following).sum() < np.sqrt((following > 1e-4).sum() / n)
    greedy = write_on(model, vocabulary, prompt, heal=True, max_new_tokens=1, temperature=0)
    assert greedy.continuation[:1] == bytes([following.argmax()])


def test_the_other_tokenizer_s_next_token_is_what_the_source_implies_as_teacher(
    pair: tuple[LanguageModel, Vocabulary],
) -> None:
    model, vocabulary = pair
    target = vocabulary_from_tokenizer(byte_level_bpe(257, ["<s>"]), {"bos_token": "<s>"})
    spellings = Spellings(vocabulary, target)
    text = "The index is scanned from left"
    chunks = chunk_documents([text])
    one, other = (positions_of(encode_chunks(v, chunks), chunks) for v in (vocabulary, target))
    says = log_probs(model, model.all_states(one.sequences, model.n_layers))
    many = 10_000
    implied = ImpliedTokens(spellings, many, 0.0, many).of(one, other, says)
    ids = vocabulary.encode(text)
    view = ByteView(model, vocabulary, least_share=0, most_covers=None)
    n_compared = 0
    for number, position in enumerate(implied.positions.tolist()):
        start = int(other.starts[position])
        whole = int(np.searchsorted(one.ends, start, side="right"))
        n_read = int(one.ends[whole - 1]) if whole else 0
        place = Place(model, (vocabulary.bos_id, *ids[:whole]))
        begun = text.encode()[n_read:start]
        reading = Reading(view, b"", (Cover(place, b"", 0.0, 0.0),)).read(begun)
        # The teacher looks at the tokenizer's own spelling alone: at the cover that runs along it.
        own = tuple(cover for cover in reading.covers if len(cover.place.ids) == whole + 1)
        q = next_tokens(Reading(view, b"", own), spellings)[:-1]
        cells = implied.ids[number]
        named = cells >= 0
        tokens = np.where(cells >= target.n_rows, cells - target.n_rows, cells)[named]
        found = np.zeros(target.n_rows)
        found[tokens] = implied.masses[number][named]
        np.testing.assert_allclose(found, q / q.sum() * found.sum(), atol=1e-5)
        n_compared += 1
    assert n_compared > 5


def test_a_checkpoint_is_a_model_of_bytes_in_three_lines(folder: Path) -> None:
    view = byte_view(folder)
    reading = view.read(b"The index is s")
    assert reading.next_bytes().sum() == pytest.approx(1)
    spellings = Spellings(view.vocabulary, view.vocabulary)
    assert next_tokens(reading, spellings).sum() == pytest.approx(1)


def test_the_command_writes_what_the_library_writes(folder: Path) -> None:
    arguments = ["runtime", "generate", str(folder), PROMPTS[0], "--max-new-tokens", "5"]
    arguments += ["--temperature", "0"]
    for more in ([], ["--heal-prompt"]):
        plain = CliRunner().invoke(main, [*arguments, *more])
        assert plain.exit_code == 0, plain.output
        both = json.loads(
            CliRunner().invoke(main, [*arguments, *more, PROMPTS[1], "--json"]).stdout
        )
        told = both[0]
        assert plain.stdout == PROMPTS[0] + told["text"] + "\n"
        assert f"written {told['tokens']} token" in plain.stderr
        together = CliRunner().invoke(main, [*arguments, *more, PROMPTS[1]])
        assert together.stdout == "".join(f"{one['prompt']}{one['text']}\n" for one in both)
        written = write_on(
            load_model(folder),
            load_vocabulary(folder),
            PROMPTS[0],
            heal=bool(more),
            max_new_tokens=5,
            temperature=0,
        )
        assert tuple(told["ids"]) == written.ids
    assert not CliRunner().invoke(main, ["-q", *arguments]).stderr
    assert isinstance(main, Group)


def test_why_writing_ended_is_said(folder: Path, pair: tuple[LanguageModel, Vocabulary]) -> None:
    model, vocabulary = pair
    most = model.max_positions
    assert most is not None
    prompt = "q" * (most - 9)  # a token each, so few steps are left
    n_read = 1 + len(vocabulary.encode(prompt))
    assert most - 9 < n_read < most
    # This seed draws no end of the text.
    options: dict[str, Any] = {"temperature": 1.5, "seed": 3}
    full = write_on(*pair, prompt, max_new_tokens=most, **options)
    assert (full.stopped, full.n_prompt_ids, full.n_new_ids) == ("positions", n_read, most - n_read)
    assert write_all(*pair, [prompt], max_new_tokens=most, **options)[0] == full
    assert write_on(*pair, prompt, max_new_tokens=most - n_read, **options).stopped == "limit"
    assert write_on(*pair, prompt, max_new_tokens=0).stopped == "limit"
    arguments = ["runtime", "generate", str(folder), prompt, "--max-new-tokens", str(most)]
    arguments += ["--temperature", "1.5", "--seed", "3"]
    for more in ([], ["--json"]):
        found = CliRunner().invoke(main, [*arguments, *more], catch_exceptions=False)
        assert f"all {most} positions of the model are taken" in found.stderr
        assert not more or json.loads(found.stdout)[0]["stopped"] == "positions"


def test_what_cannot_be_asked_is_said(pair: tuple[LanguageModel, Vocabulary]) -> None:
    with pytest.raises(SettingError, match="temperature of -1"):
        write_on(*pair, "a", temperature=-1)
    with pytest.raises(SettingError, match="-3 new tokens"):
        write_on(*pair, "a", max_new_tokens=-3)
    for heal in (False, True):
        with pytest.raises(EvaluationError, match="positions"):
            write_on(*pair, "a q " * 200, heal=heal)
    assert write_on(*pair, "a", max_new_tokens=0).continuation == b""
