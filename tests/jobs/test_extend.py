"""Laws of an extension: old ids and rows stay, held-out text is not looked at, all is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import tokensurgeon
from tests.trainers.test_methods import LINES
from tests.vocabulary.tiny_tokenizers import made
from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon.alignment import align
from tokensurgeon.calibration import STAGES
from tokensurgeon.cli.main import main
from tokensurgeon.errors import (
    CorpusError,
    OutputExistsError,
    RecipeError,
    SettingError,
    TokenizerError,
    UsageError,
)
from tokensurgeon.evaluation import evaluate_checkpoint
from tokensurgeon.inspection.extension import is_extension, measure_extension
from tokensurgeon.jobs.extend import extend
from tokensurgeon.recipe import Recipe
from tokensurgeon.surgery.held_text import part_text
from tokensurgeon.text.overlap import overlapping
from tokensurgeon.vocabulary import load_vocabulary, vocabulary_from_tokenizer

N, ADD = 320, 24
KEYS = {"input": "model.embed_tokens.weight", "output": "lm_head.weight"}
BOTH = {"input": "subword-mean", "output": "subword-mean"}
KEEPING = [name for name, make in STAGES.items() if not make().shared_alone]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("domain") / "domain.jsonl"
    path.write_text("\n".join(json.dumps({"text": line}) for line in LINES), "utf-8")
    return path


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied")
    tokenizer = save_tokenizer(
        byte_level_bpe(N, ["<s>", "</s>"]), folder / "tokenizer", bos_token="<s>", eos_token="</s>"
    )
    return make_model(folder / "model", n_rows=N, tied=True, seed=3, tokenizer=tokenizer)


def rows(folder: Path) -> dict[str, np.ndarray]:
    tensors = load_file(folder / "model.safetensors")
    return {side: tensors[key] for side, key in KEYS.items() if key in tensors}


def vocabulary(folder: Path) -> dict[str, int]:
    return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()


@pytest.mark.parametrize("is_tied", [False, True])
def test_old_ids_and_rows_stay_bit_for_bit_whatever_is_fitted(
    is_tied: bool, tiny_source: Path, tied: Path, text: Path, tmp_path: Path
) -> None:
    source = tied if is_tied else tiny_source
    stages = [name for name in KEEPING if not (is_tied and STAGES[name]().one_side)]
    result = extend(
        source,
        text,
        ADD,
        output=tmp_path / "out",
        calibrate=stages,
        heal=0.02,
        budget=0.3,
        never_longer=True,
    )
    old, new = vocabulary(source), vocabulary(tmp_path / "out")
    assert old.items() < new.items()
    assert sorted(new.values()) == list(range(N + ADD))
    before, after = rows(source), rows(tmp_path / "out")
    assert before.keys() == after.keys()
    for side, matrix in after.items():
        assert matrix.shape == (N + ADD, 16)
        assert matrix[:N].tobytes() == before[side][:N].tobytes()
        assert np.isfinite(matrix).all()
        assert (matrix[N:] != 0).any(axis=1).all()
    report = result.report
    assert {record.stage for record in report.stages} >= {"heal", "refit"}
    assert any(record.kept for record in report.stages)
    assert report.output.copied == N
    assert report.output.initialised == ADD
    assert report.output.recalibrated == report.input.recalibrated == 0
    others = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in load_file(source / "model.safetensors").items():
        if name not in KEYS.values():
            assert tensor.tobytes() == others[name].tobytes()
    CliRunner().invoke(main, ["verify", str(tmp_path / "out")], catch_exceptions=False)


def test_old_rows_move_where_that_is_asked(tiny_source: Path, text: Path) -> None:
    result = extend(
        tiny_source, text, ADD, all_rows=True, calibrate=["refit"], heal=0.02, budget=0.3
    )
    assert result.report.output.recalibrated > 0
    assert result.report.recipe["keep_shared"] is False


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - set(KEEPING)))
def test_a_stage_that_only_moves_old_rows_is_refused_by_name(
    stage: str, tiny_source: Path, text: Path
) -> None:
    with pytest.raises(UsageError, match=f"{stage} moves rows of shared tokens"):
        extend(tiny_source, text, ADD, init={"input": "mean", "output": "mean"}, calibrate=[stage])


def test_no_text_takes_more_tokens_and_the_report_says_it(
    tiny_source: Path, text: Path, tmp_path: Path
) -> None:
    other = text.parent / "other.txt"
    other.write_text("Sphinx of quartz.\n" * 9)
    result = extend(
        tiny_source,
        text,
        ADD,
        output=tmp_path / "out",
        never_longer=True,
        elsewhere=other,
        init={"input": "subword-mean", "output": "subword-mean"},
        baselines=(),
    )
    facts = result.report.extension
    parted = part_text((str(text),))
    every, training = parted.held_out.texts, parted.training.texts
    held = [t for i, t in enumerate(every) if i not in overlapping(every, training)]
    assert 0 < len(held) < len(every)  # some of the lines are the same
    old, new = (load_vocabulary(f) for f in (tiny_source, tmp_path / "out"))
    before, after = (sum(len(v.encode(t)) for t in held) for v in (old, new))
    occur = {i for t in held for i in new.encode(t) if i >= N}
    assert facts["documents"] == len(held)
    assert (facts["added"], facts["unreachable"], facts["longer"]) == (ADD, 0, 0)
    assert (facts["tokens_before"], facts["tokens"], facts["used"]) == (before, after, len(occur))
    assert after < before
    written = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert written["extension"] == facts
    assert {e["name"] for e in written["elsewhere"]["entries"]} == {"source", "patched"}
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "## What was added" in card
    assert f"{ADD} new tokens: {len(occur)} of them" in card
    assert "On text of another kind" in card


def test_the_recipe_of_the_report_makes_the_same_bytes(
    tiny_source: Path, text: Path, tmp_path: Path
) -> None:
    plain = {"input": "subword-mean", "output": "subword-mean"}
    first = extend(tiny_source, text, ADD, output=tmp_path / "one", init=plain)
    again = Recipe.parse({**first.report.recipe, "output": str(tmp_path / "two")})
    tokensurgeon.transplant(again)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_held_out_is_learned_from_by_nothing(text: Path, tiny_source: Path) -> None:
    held = part_text((str(text),))
    assert sorted([*held.training.texts, *held.held_out.texts]) == sorted(LINES)
    assert len(held.held_out.documents) == len(LINES) // 20
    assert held.training.files == held.held_out.files == (str(text),)
    from tokensurgeon.jobs.extend import recipe_of
    from tokensurgeon.surgery import prepare

    recipe = Recipe.parse(recipe_of({"source": str(tiny_source), "text": text, "add": ADD}))
    session = prepare(recipe)
    assert session.calibration_texts == held.training.texts
    other = Recipe.parse(
        recipe_of(
            {"source": str(tiny_source), "text": text, "add": ADD, "held_out": text.parent / "x"}
        )
    )
    assert not other.text.hold_out
    assert other.text.evaluation == (str(text.parent / "x"),)


def test_a_text_too_short_to_hold_out_of_is_refused(tiny_source: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab")
    with pytest.raises(CorpusError, match="too few to hold out"):
        extend(tiny_source, tmp_path / "a.txt", 1)


def test_new_ids_take_the_place_of_padding(tied: Path, text: Path, tmp_path: Path) -> None:
    source = make_model(tmp_path / "padded", n_rows=N + 10, tokenizer=tied.parent / "tokenizer")
    plain = {"input": "mean", "output": "mean"}
    extend(source, text, 3, output=tmp_path / "out", init=plain, pad_to_multiple_of=8)
    before, after = rows(source), rows(tmp_path / "out")
    assert after["input"].shape[0] == N + 8
    assert after["input"][:N].tobytes() == before["input"][:N].tobytes()
    assert (after["input"][N : N + 3] != before["input"][N : N + 3]).any(axis=1).all()


def test_a_dry_run_counts_tokens_and_writes_nothing(
    tiny_source: Path, text: Path, tmp_path: Path
) -> None:
    arguments = ["extend", tiny_source, "--text", text, "--add", ADD, "-o", tmp_path / "out"]
    done = CliRunner().invoke(main, [*map(str, arguments), "--dry-run", "--never-longer"])
    assert done.exit_code == 0, done.output
    assert f"{ADD} new tokens" in done.stdout
    assert "more than before in 0 of" in done.stdout
    assert list(tmp_path.iterdir()) == []
    done = CliRunner().invoke(main, [*map(str, arguments), "--dry-run", "--json"])
    assert json.loads(done.stdout)["extension"]["added"] == ADD


def test_the_command_does_what_the_function_does(
    tiny_source: Path, text: Path, tmp_path: Path
) -> None:
    words = f"{tiny_source} --text {text} --add {ADD} --init mean --seed 3"
    done = CliRunner().invoke(main, ["extend", *words.split(), "-o", str(tmp_path / "a"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["recipe"]["init"]["input"] == said["recipe"]["init"]["output"] == "mean"
    assert said["recipe"]["keep_shared"] is True
    mean = {"input": "mean", "output": "mean"}
    extend(tiny_source, text, ADD, output=tmp_path / "b", init=mean, seed=3)
    one, two = (tmp_path / n / "model.safetensors" for n in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_an_output_that_exists_is_refused_before_anything_is_read(
    tiny_source: Path, text: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    with pytest.raises(OutputExistsError):
        extend(tiny_source, text.parent / "none.txt", ADD, output=tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years"


def test_what_cannot_be_is_refused_by_name(tiny_source: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(SettingError, match="never_longer needs the base's own cut"):
        extend(tiny_source, text, ADD, output=out, across=True, never_longer=True)
    with pytest.raises(CorpusError, match="give more text, or add at most"):
        extend(tiny_source, text, 90_000, output=out)
    with pytest.raises(CorpusError, match="there is no text file"):
        extend(tiny_source, tmp_path / "none.txt", ADD, output=out)
    with pytest.raises(UsageError, match="decides 'donor' itself"):
        extend(tiny_source, text, ADD, output=out, donor="other")
    with pytest.raises(RecipeError, match="did you mean 'budget'"):
        extend(tiny_source, text, ADD, output=out, budged=3)
    with pytest.raises(RecipeError, match="greater than or equal to 1"):
        extend(tiny_source, text, 0, output=out)
    unigram = save_tokenizer(made("unigram_bytes").tokenizer, tmp_path / "unigram")
    model = make_model(tmp_path / "model", n_rows=400, tokenizer=unigram)
    with pytest.raises(TokenizerError, match="only a BPE can be extended"):
        extend(model, text, ADD, output=out)
    assert not out.exists()
    no_output = CliRunner().invoke(main, ["extend", "m", "--text", str(text), "--add", "3"])
    assert no_output.exit_code == 2
    assert "no output: give -o DIR" in no_output.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": {"hold_out": True}}, "needs a 'tokenizer' that is trained"),
        ({"text": {"hold_out": True, "evaluation": ["a"]}}, "leave out 'evaluation'"),
        ({"tokenizer": {"method": "bpe", "corpus": ["a"], "size": 300, "add": 3}}, "belong to the"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.parse({"source": "a", "tokenizer": "b", **changes})


def test_an_evaluation_refuses_what_it_was_made_from(
    text: Path, tiny_source: Path, tmp_path: Path
) -> None:
    """Also where it was made in two steps: what the first read is remembered."""
    first, second = tmp_path / "first", tmp_path / "second"
    other = tmp_path / "other.txt"
    lines = [f"Quite another line {i} of {i * i} about some winter garden." for i in range(400)]
    other.write_text("\n".join(lines))
    settings: dict[str, Any] = {"init": BOTH, "calibrate": (), "budget": 0}
    extend(tiny_source, text, 20, output=first, **settings)
    extend(first, other, 20, output=second, **settings)
    for folder, texts in ((first, [text]), (second, [text, other])):
        for one in texts:
            with pytest.raises(UsageError, match=r"that the vocabulary of .* was trained on"):
                evaluate_checkpoint(folder, [one])


def test_an_encoder_is_extended_though_it_has_no_loss(text: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    folder = tmp_path / "bert"
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=300, num_hidden_layers=1, **sizes)).save_pretrained(folder)
    save_tokenizer(byte_level_bpe(300, ("<s>",)), folder, bos_token="<s>")
    result = extend(folder, text, 10, output=tmp_path / "out", init=BOTH, calibrate=())
    assert result.report.target.n_tokens == 310
    assert result.report.evaluation is None
    assert result.report.extension["added"] == 10


def test_what_nothing_is_encoded_into_is_counted() -> None:
    before = byte_level_bpe(300)
    document = json.loads(before.to_str())
    # No merge makes the first; added tokens cut words, so a text may take more tokens.
    document["model"]["vocab"] |= {"indexed": 300}
    with_unmerged = Tokenizer.from_str(json.dumps(document))
    old, new = map(vocabulary_from_tokenizer, (before, with_unmerged))
    assert is_extension(align(old, new))
    assert not is_extension(align(new, old))
    assert not is_extension(align(old, old))
    facts = measure_extension(old, new, ["an indexed table"])
    assert (facts.added, facts.unreachable, facts.used, facts.longer) == (1, 1, 0, 0)
    assert facts.to_dict()["tokens_saved"] == 0
    appended = Tokenizer.from_str(before.to_str())
    appended.add_tokens(["e t"])
    facts = measure_extension(old, vocabulary_from_tokenizer(appended), [" the table" * 3])
    assert facts.longer == 1
    assert facts.used == 1
    assert measure_extension(old, new).to_dict()["used_share"] is None
