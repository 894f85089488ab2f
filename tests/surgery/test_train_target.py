"""Recipes that train their target; text that a vocabulary was trained on is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from tests.trainers.test_controls import like_roberta
from tokensurgeon.alignment import align
from tokensurgeon.cli.main import main
from tokensurgeon.errors import RecipeError, UsageError
from tokensurgeon.progress import no_progress
from tokensurgeon.recipe import Recipe, TrainSpec
from tokensurgeon.text.seen import Seen, line_hashes, refuse_seen
from tokensurgeon.trainers.digit_cut import cut_digits
from tokensurgeon.trainers.from_recipe import patterns_of, train_target
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary, vocabulary_from_tokenizer

DATA = Path(__file__).parents[2] / "tokensurgeon" / "data"
SOURCE = DATA / "source"
TEXT = str(DATA / "text" / "calibration.jsonl")
LINES = [f"line {i} of a text that is long enough to be told from others" for i in range(20)]


def trained(**settings):
    source = load_vocabulary(SOURCE)
    return train_target(TrainSpec(corpus=(TEXT,), **settings), source, False, no_progress)


def test_a_recipe_can_extend_its_own_source():
    target = trained(method="extend", base="source", size=4_140, across=True)
    source = load_vocabulary(SOURCE)
    assert target.n_rows == 4_140
    assert target.token_bytes[: source.n_rows] == source.token_bytes
    alignment = align(source, target)
    assert list(alignment.missing) == list(range(source.n_rows, 4_140))


def test_a_recipe_can_prune_its_own_source_and_keep_the_result(tmp_path):
    target = trained(method="prune", base="source", save=str(tmp_path / "kept"))
    assert target.n_rows < load_vocabulary(SOURCE).n_rows
    assert (tmp_path / "kept" / "training.json").exists()


def test_a_recipe_trains_by_any_method_with_its_settings(tmp_path):
    (tmp_path / "terms.txt").write_text("nested loop\n")
    spec = {"method": "terms", "size": 600, "list": str(tmp_path / "terms.txt")}
    target = trained(**spec, digits="right-3")
    assert b"nested loop" in target.token_bytes
    mixture = TrainSpec(method="bpe", size=300, mixture=(f"a:{TEXT}", "b:x.txt"))
    assert patterns_of(mixture) == [TEXT, "x.txt"]


def cut_as(scheme: str, folder: Path) -> Vocabulary:
    """Save the demo source with a cut of digits in front, and load it."""
    folder.mkdir()
    cut = cut_digits(load_vocabulary(SOURCE), scheme)
    cut.tokenizer.save(str(folder / "tokenizer.json"))
    return load_vocabulary(folder)


@pytest.mark.parametrize("scheme", ["single", "right-3"])
def test_digits_are_cut_as_in_the_source_unless_named(scheme, tmp_path):
    source = cut_as(scheme, tmp_path / "source")
    spec: dict[str, Any] = {"method": "bpe", "size": 400, "corpus": (TEXT,)}
    for digits, wanted in ((None, scheme), ("source", scheme), ("any", "any")):
        target = train_target(TrainSpec(**spec | {"digits": digits}), source, False, no_progress)
        assert target.number_scheme == wanted
    more = {**spec, "method": "extend", "base": "source", "size": source.n_rows + 20}
    assert train_target(TrainSpec(**more), source, False, no_progress).number_scheme == scheme
    with pytest.raises(RecipeError, match="extend cuts digits as its base does"):
        Recipe.parse({"source": "a", "tokenizer": {**more, "digits": "single"}})


def test_a_source_that_writes_no_digits_decides_nothing():
    dumb = vocabulary_from_tokenizer(Tokenizer(WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>")))
    spec: dict[str, Any] = {"method": "bpe", "size": 400, "corpus": (TEXT,)}
    target = train_target(TrainSpec(**spec), dumb, False, no_progress)
    assert target.number_scheme == "left-3"
    with pytest.raises(RecipeError, match="the source cuts digits as 'none'"):
        train_target(TrainSpec(**spec, digits="source"), dumb, False, no_progress)


def test_a_recipe_can_take_the_controls_of_its_own_source():
    source = load_vocabulary(SOURCE)
    target = trained(method="bpe", size=400, controls="source", borders="own")
    assert {role: target.roles.get(role) for role in source.roles} == dict(source.roles)
    spec = {"method": "extend", "base": "source", "corpus": ["c"], "controls": "source"}
    with pytest.raises(RecipeError, match="extend keeps its base's controls"):
        Recipe.parse({"source": "a", "tokenizer": spec})


def test_a_model_that_counts_positions_from_its_pad_token_names_the_option(tmp_path):
    from transformers import RobertaConfig, RobertaForMaskedLM

    source, target = like_roberta(tmp_path / "source"), tmp_path / "target"
    config = RobertaConfig(
        vocab_size=311, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=40, pad_token_id=1,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(source)
    train = ["train", "bpe", TEXT, "--size", "350", "-o", str(target)]
    move = ["transplant", str(source), "--tokenizer", str(target), "--init", "subword-mean"]
    named = ["--bos", "<s>", "--eos", "</s>", "--pad", "<pad>", "--control", "<mask>"]
    assert CliRunner().invoke(main, [*train, *named]).exit_code == 0
    refused = CliRunner().invoke(main, [*move, "-o", str(tmp_path / "moved")])
    assert refused.exit_code == 1
    option = f"--controls-of {source}"
    assert f"its pad token at 2: train one with {option} (in a recipe" in refused.stderr
    again = CliRunner().invoke(main, [*train, "--force", *option.split()])
    assert again.exit_code == 0, again.output
    done = CliRunner().invoke(main, [*move, "-o", str(tmp_path / "moved"), "--budget", "0"])
    assert done.exit_code == 0, done.output
    moved = load_vocabulary(tmp_path / "moved")
    assert [moved.spellings[i] for i in (0, 1, 2, 3, 310)] == [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
    ]


def test_what_a_training_lacks_is_named(tmp_path):
    spec = {"method": "extend", "base": "source", "corpus": ["c"]}
    with pytest.raises(RecipeError, match="needs the number of new tokens"):
        Recipe.parse({"source": "a", "tokenizer": spec})
    with pytest.raises(RecipeError, match="cannot read the list"):
        trained(method="terms", size=300, list=str(tmp_path / "none.txt"))
    with pytest.raises(RecipeError, match="'base' belongs to"):
        Recipe.parse({"source": "a", "tokenizer": {"method": "extend", "corpus": ["c"]}})


def test_text_that_was_seen_is_refused_unless_allowed(tmp_path):
    (tmp_path / "seen.txt").write_text(Seen(line_hashes(["\n".join(LINES)])).to_text())
    with pytest.raises(UsageError, match="50% of the lines of this text"):
        refuse_seen(tmp_path, ["\n".join([*LINES[:5], *(each + "!" for each in LINES[:5])])], False)
    refuse_seen(tmp_path, LINES, True)
    refuse_seen(tmp_path, [each + "!" for each in LINES], False)
    refuse_seen(None, LINES, False)


def test_the_commands_refuse_it_too_and_a_surgery_carries_it_along(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES))
    target = tmp_path / "target"
    shutil.copytree(DATA / "source", target)
    (target / "seen.txt").write_text(Seen(line_hashes(["\n".join(LINES)])).to_text())

    def run(*arguments):
        return CliRunner().invoke(main, list(arguments))

    refused = run("evaluate", str(target), str(text))
    assert refused.exit_code == 2
    assert "--allow-seen-text" in refused.stderr
    assert run("evaluate", str(target), str(text), "--allow-seen-text").exit_code == 0
    out = str(tmp_path / "out")
    surgery = [
        "transplant",
        str(SOURCE),
        "--tokenizer",
        str(target),
        "-o",
        out,
        "--text",
        str(text),
    ]
    refused = run(*surgery)
    assert refused.exit_code == 2, refused.output
    assert "was trained on" in refused.stderr
    done = run(*surgery[:-2], "--init", "mean", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
    assert (Path(out) / "seen.txt").read_bytes() == (target / "seen.txt").read_bytes()
