"""A trimmed model computes what its source does, and says so: laws, measures and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file
from tokenizers import Tokenizer, processors

import tokensurgeon
from tests.surgery.test_sentence_models import make_sentence_model, vectors_by_hand
from tests.vocabulary.tiny_tokenizers import TINY
from tests.world import SENTENCES, make_model, save_tokenizer
from tokensurgeon import trim
from tokensurgeon.cli.main import main
from tokensurgeon.errors import (
    CorpusError,
    OutputExistsError,
    RecipeError,
    SettingError,
    TokenizerError,
    UnknownNameError,
    UnsupportedCheckpointError,
    UsageError,
)
from tokensurgeon.patches import apply_patch, export_patch
from tokensurgeon.recipe import TrainSpec

Checkpoints = Callable[..., Path]
TEXT = [SENTENCES[0], SENTENCES[2]]
OTHER = [SENTENCES[1], SENTENCES[3]]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text to keep: two sentences, each a document."""
    path = tmp_path_factory.mktemp("kept") / "kept.jsonl"
    path.write_text("\n".join(json.dumps({"text": one}) for one in TEXT))
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "other.jsonl"
    path.write_text("\n".join(json.dumps({"text": one}) for one in OTHER))
    return path


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return np.asarray(model(torch.tensor([ids])).logits[0])


def encode(folder: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(folder)(text)["input_ids"])


def refused(error: type[Exception], match: str, *args: Any, **fields: Any) -> None:
    with pytest.raises(error, match=match):
        trim(*args, **fields)


# -- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_kept_text_gives_the_same_tokens_and_the_same_logits_to_the_bit(
    family: str, tied: bool, checkpoints: Checkpoints, text: Path, tmp_path: Path
) -> None:
    source, out = checkpoints(family, tied), tmp_path / "out"
    result = trim(source, out, text=[text])
    old = result.old_ids
    assert np.all(np.diff(old) > 0)
    for one in TEXT:
        ids = encode(out, one)
        assert old[ids].tolist() == encode(source, one)
        assert np.array_equal(logits(out, ids), logits(source, old[ids].tolist())[:, old])
    before, after = (load_file(folder / "model.safetensors") for folder in (source, out))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        expected = tensor[old] if len(tensor) == 330 else tensor
        assert after[name].tobytes() == expected.tobytes(), name
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is tied
    facts = result.report.trim
    assert facts.proof.max_difference == 0
    assert facts.text.documents_changed == 0
    assert facts.rows.after == len(old) < facts.rows.before == 330
    assert facts.weight_bytes.after == sum(tensor.nbytes for tensor in after.values())
    assert result.report.input.initialised == result.report.output.initialised == 0


def test_output_biases_are_cut_too(checkpoints: Checkpoints, text: Path, tmp_path: Path) -> None:
    source, out = checkpoints("phi"), tmp_path / "out"
    old = trim(source, out, text=[text]).old_ids
    ids = encode(out, TEXT[0])
    assert np.array_equal(logits(out, ids), logits(source, old[ids].tolist())[:, old])


KINDS = {
    "sentencepiece_bpe": "llama",
    "unigram_bytes": "llama",
    "unigram_no_bytes": "llama",
    "end_of_word": "llama",
    "byte_level_prefix": "llama",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tokenizer_can_be_trimmed(kind: str, tmp_path: Path) -> None:
    tokenizer = TINY[kind]()
    kept = ["the cat sat on the mat", "for row in table: 42"]
    save_tokenizer(tokenizer, tmp_path / "source")
    n = max(tokenizer.get_vocab().values()) + 1
    make_model(tmp_path / "source", n_rows=n, noise=0.2, bos_token_id=None, eos_token_id=None)
    (tmp_path / "text.txt").write_text("\n".join(kept))
    result = trim(tmp_path / "source", tmp_path / "out", text=[tmp_path / "text.txt"])
    facts = result.report.trim
    assert facts.proof.max_difference == 0
    assert facts.text.documents_changed == 0
    new = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    for one in kept:
        assert result.old_ids[new.encode(one).ids].tolist() == tokenizer.encode(one).ids
        assert new.decode(new.encode(one).ids) == tokenizer.decode(tokenizer.encode(one).ids)


@pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM"])
def test_an_encoder_keeps_its_states_and_logits(name: str, tmp_path: Path) -> None:
    import transformers

    tokenizer = TINY["wordpiece_lower"]()
    cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "unk", "pad", "mask")}
    known = {role: token for role, token in roles.items() if tokenizer.token_to_id(token)}
    save_tokenizer(tokenizer, tmp_path / "source", **known)
    torch.manual_seed(0)
    model = getattr(transformers, name)(
        transformers.BertConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=16, intermediate_size=24,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
        )
    )  # fmt: skip
    model.save_pretrained(tmp_path / "source")
    (tmp_path / "text.txt").write_text("The cat sat on the mat")
    result = trim(tmp_path / "source", tmp_path / "out", text=[tmp_path / "text.txt"])
    proof = result.report.trim.proof
    assert proof.compared == ("states" if name == "BertModel" else "logits")
    assert proof.max_difference == 0
    assert (proof.removed_mass is None) == (name == "BertModel")
    assert proof.bits_before is None
    own = getattr(transformers, name)
    ids = encode(tmp_path / "out", "the cat")
    with torch.no_grad():
        before, after = (
            own.from_pretrained(tmp_path / folder).eval()(torch.tensor([one]))[0]
            for folder, one in (("source", result.old_ids[ids].tolist()), ("out", ids))
        )
    at = ... if name == "BertModel" else (..., torch.from_numpy(result.old_ids))
    assert torch.equal(before[at], after)


@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_falls_by_exactly_the_mass_of_the_rows_that_went(
    tied: bool, checkpoints: Checkpoints, text: Path
) -> None:
    source = checkpoints("llama", tied)
    result = trim(source, text=[text])
    proof = result.report.trim.proof
    assert proof.bits_after == pytest.approx(proof.bits_kept, rel=1e-9)
    assert proof.max_loss_difference < 1e-9
    assert proof.max_rise <= 1e-9
    # by hand, for all tokens that were run
    total = [0.0, 0.0]
    masses = []
    for one in TEXT:
        ids = encode(source, one)
        ids = [0, *ids]  # each is read after the token that starts a text
        out = logits(source, ids).astype(np.float64)
        whole = out - np.log(np.exp(out).sum(axis=1, keepdims=True))
        mass = np.exp(whole)[:, result.old_ids].sum(axis=1)
        masses.append(1 - mass)
        own = whole[np.arange(len(ids) - 1), ids[1:]]
        total[0] -= own.sum()
        total[1] -= (own - np.log(mass[:-1])).sum()
    n_bytes = sum(len(one.encode()) for one in TEXT)
    assert proof.bits_before == pytest.approx(total[0] / np.log(2) / n_bytes, rel=1e-5)
    assert proof.bits_after == pytest.approx(total[1] / np.log(2) / n_bytes, rel=1e-5)
    assert proof.removed_mass == pytest.approx(np.concatenate(masses).mean(), rel=1e-4)


def test_all_that_kept_tokens_are_merged_from_is_kept(
    checkpoints: Checkpoints, text: Path, tmp_path: Path
) -> None:
    trim(checkpoints("llama"), tmp_path / "out", text=[text])
    model = json.loads((tmp_path / "out/tokenizer.json").read_text("utf-8"))["model"]
    made = {left + right for left, right in model["merges"]}
    source = json.loads((checkpoints("llama") / "tokenizer.json").read_text("utf-8"))["model"]
    merges = [m.split(" ") if isinstance(m, str) else m for m in source["merges"]]
    for left, right in merges:
        if left + right in model["vocab"]:
            assert {left, right} <= model["vocab"].keys()
            assert left + right in made
    assert [m for m in merges if "".join(m) in made] == model["merges"]


def test_a_sentence_transformers_folder_keeps_its_modules_and_its_vectors(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    make_sentence_model(source, "BertModel")
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES))
    result = trim(source, out, text=[tmp_path / "text.txt"])
    names = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    assert names <= {p.relative_to(out).as_posix() for p in out.rglob("*")}
    np.testing.assert_allclose(vectors_by_hand(out), vectors_by_hand(source), atol=1e-6)
    assert result.report.trim.proof.compared == "states"


def test_a_trim_goes_to_fine_tunes_as_a_patch(
    checkpoints: Checkpoints, text: Path, tmp_path: Path
) -> None:
    source = checkpoints("llama")
    trim(source, tmp_path / "out", text=[text])
    export_patch(tmp_path / "out", tmp_path / "a.safetensors", source=source)
    apply_patch(tmp_path / "a.safetensors", source, tmp_path / "again")
    one, two = (load_file(tmp_path / folder / "model.safetensors") for folder in ("out", "again"))
    assert {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in two.items()}


def test_the_recipe_that_ships_makes_the_same_tensors(tmp_path: Path) -> None:
    from tokensurgeon import Recipe, transplant

    source = tmp_path / "source"
    make_sentence_model(source, "BertModel")
    recipe = Recipe.from_yaml(Path(__file__).parents[2] / "recipes/embedding-two-languages.yaml")
    assert isinstance(recipe.tokenizer, TrainSpec)
    assert recipe.tokenizer.scripts == ("Latin", "Cyrillic")
    spec = recipe.tokenizer.model_copy(update={"scripts": ("Cyrillic",)})  # it knows English alone
    changes = {"source": str(source), "output": str(tmp_path / "by-recipe"), "tokenizer": spec}
    transplant(recipe.model_copy(update=changes))
    trim(source, tmp_path / "trimmed", keep_script=["Cyrillic"])
    one, two = (
        load_file(tmp_path / folder / "model.safetensors") for folder in ("by-recipe", "trimmed")
    )
    assert {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in two.items()}
    with pytest.raises(RecipeError, match="belongs to the method prune"):
        Recipe.parse({
            "source": "a", "tokenizer": {"method": "bpe", "corpus": ["b"], "scripts": ["Latin"]}
        })  # fmt: skip


# -- what is kept --------------------------------------------------------------------------------


def test_a_size_is_met_exactly_by_the_most_used_tokens(
    checkpoints: Checkpoints, text: Path
) -> None:
    source = checkpoints("llama")
    all_used = trim(source, text=[text], dry_run=True)
    n = int(all_used.report.trim.rows.after)
    fewer = trim(source, text=[text], size=n - 10)
    assert fewer.report.trim.rows.after == n - 10
    assert set(fewer.old_ids.tolist()) < set(all_used.old_ids.tolist())
    assert fewer.report.trim.text.tokens_dropped > 0
    assert fewer.report.trim.text.documents_changed > 0
    more = trim(source, text=[text], size=n + 10, dry_run=True)
    assert set(more.old_ids.tolist()) > set(all_used.old_ids.tolist())
    assert more.report.trim.why["fill"] == 10


def test_without_text_the_earliest_merges_are_kept(checkpoints: Checkpoints) -> None:
    result = trim(checkpoints("llama"), size=280)
    assert result.old_ids.tolist() == [*range(280)]  # this tokenizer numbers them in that order
    assert result.report.trim.text is None
    assert result.report.trim.proof.bits_before is None
    assert result.report.trim.proof.max_rise <= 1e-9


def test_rows_come_in_multiples_without_padding(checkpoints: Checkpoints, text: Path) -> None:
    result = trim(checkpoints("llama"), text=[text], pad_to_multiple_of=32, dry_run=True)
    assert len(result.old_ids) % 32 == 0
    assert result.report.rows.padding == 0
    refused(
        SettingError, "a multiple of 256 takes 512 ids, .* has 330 tokens",
        checkpoints("llama"), text=[text], pad_to_multiple_of=256,
    )  # fmt: skip


def test_tokens_of_scripts_and_languages_are_kept(tmp_path: Path) -> None:
    from tests.world import byte_level_bpe

    texts = ["война и мир", "the cat and the hat", "日本語の日本"]
    tokenizer = byte_level_bpe(330, ["<s>", "</s>"], texts * 3)
    save_tokenizer(tokenizer, tmp_path / "source", bos_token="<s>", eos_token="</s>")
    n = tokenizer.get_vocab_size()
    make_model(tmp_path / "source", n_rows=n, noise=0.2)
    (tmp_path / "ja.txt").write_text(texts[2])

    def encoded(result: Any, text: str) -> bool:
        kept = set(result.old_ids.tolist())
        return kept.issuperset(tokenizer.encode(text).ids)

    cyrillic = trim(tmp_path / "source", keep_script=["cyrillic"])
    assert encoded(cyrillic, "мир и война")
    assert not encoded(cyrillic, texts[1])
    assert cyrillic.report.trim.proof.max_difference == 0
    (own,) = cyrillic.report.trim.others
    assert own.documents_changed == 0
    assert own.documents > 0
    both = trim(tmp_path / "source", languages=["ru", "en"], dry_run=True)
    assert both.report.trim.settings["scripts"] == ["Cyrillic", "Latin"]
    assert encoded(both, texts[0])
    assert encoded(both, texts[1])
    assert not encoded(both, texts[2])
    read = trim(tmp_path / "source", languages=["ru", f"ja={tmp_path / 'ja.txt'}"], dry_run=True)
    assert encoded(read, texts[2])
    assert encoded(read, texts[0])


def test_tokens_behind_the_rows_are_named(
    checkpoints: Checkpoints, text: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoints("llama"), tmp_path / "source")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|image|>"])
    tokenizer.save(str(source / "tokenizer.json"))
    result = trim(source, tmp_path / "out", text=[text])
    assert any(
        "1 control token without a row in the source" in warning
        for warning in result.report.warnings
    )
    assert result.report.input.controls == 1
    assert result.report.trim.proof.max_difference == 0
    tokenizer.add_tokens(["index"])
    tokenizer.save(str(source / "tokenizer.json"))
    refused(UsageError, "1 of the kept tokens have no row, the first 'index'", source, text=[text])


# -- what is said --------------------------------------------------------------------------------


def test_other_text_is_measured_before_and_after(
    checkpoints: Checkpoints, text: Path, other: Path, tmp_path: Path
) -> None:
    source = checkpoints("llama")
    result = trim(source, tmp_path / "out", text=[text], other_text=[other])
    (facts,) = result.report.trim.others
    new = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    old = Tokenizer.from_file(str(source / "tokenizer.json"))
    kept = set(result.old_ids.tolist())
    pairs = [(old.encode(one).ids, new.encode(one).ids) for one in OTHER]
    assert facts.documents == 2
    assert facts.documents_changed == sum(
        result.old_ids[after].tolist() != before for before, after in pairs
    )
    assert facts.lines == 4
    assert facts.tokens_before == sum(len(before) for before, _ in pairs)
    assert facts.tokens_after == sum(len(after) for _, after in pairs) > facts.tokens_before
    assert facts.tokens_dropped == sum(i not in kept for before, _ in pairs for i in before)
    table = tokensurgeon.evaluate(tmp_path / "out", [other], source, max_bytes=100_000)
    figures = [entry.bits_per_byte for entry in table.entries]
    assert [facts.bits.before, facts.bits.after] == pytest.approx(figures, rel=1e-6)
    refused(UsageError, "--allow-seen-text", source, text=[text], other_text=[text])


def test_a_text_says_what_text_like_it_would_lose(checkpoints: Checkpoints, tmp_path: Path) -> None:
    source = checkpoints("llama")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    documents = ["the index is left as it was"] * 9 + ["the query is matched"]
    path = tmp_path / "text.jsonl"

    def kept_of(texts: list[str]) -> Any:
        path.write_text("\n".join(json.dumps({"text": one}) for one in texts))
        return trim(source, text=[path], dry_run=True)

    text = kept_of(documents).report.trim.text
    without = set(kept_of(documents[:9]).old_ids.tolist())
    alone = [i for i in tokenizer.encode(documents[9]).ids if i not in without]
    assert text.tokens_left_out == len(alone) > 0
    assert text.documents_left_out == 1
    assert kept_of(documents[1:]).report.trim.text.documents_left_out is None  # too few to say


def test_the_command_writes_a_report_a_card_and_a_sound_folder(
    checkpoints: Checkpoints, text: Path, other: Path, tmp_path: Path
) -> None:
    def run(*arguments: object) -> Any:
        words = ["trim", str(checkpoints("gpt2")), "--text", str(text), *map(str, arguments)]
        return CliRunner().invoke(main, words)

    done = run("--other-text", other, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "equal to the bit" in done.stdout
    assert "all tokens of 2 documents" in done.stdout
    assert done.stderr == ""
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert f"tokensurgeon trim {checkpoints('gpt2')} --text {text} --other-text {other}" in card
    report = json.loads((tmp_path / "out/report.json").read_text("utf-8"))
    assert report["trim"]["proof"]["max_difference"] == 0
    checked = CliRunner().invoke(main, ["verify", str(tmp_path / "out")])
    assert checked.exit_code == 0, checked.stdout
    again = run("-o", tmp_path / "out")
    assert again.exit_code == 2
    assert "--force" in again.stderr
    as_json = run("-o", tmp_path / "out", "--force", "--json", "--least-uses", "2")
    assert json.loads(as_json.stdout)["trim"]["settings"]["least_uses"] == 2
    assert "give -o DIR, or --dry-run" in run().stderr


def test_a_dry_run_says_the_sizes_and_writes_nothing(
    checkpoints: Checkpoints, text: Path, tmp_path: Path
) -> None:
    result = trim(checkpoints("llama"), tmp_path / "out", text=[text], dry_run=True)
    assert result.output is None
    assert not any(tmp_path.iterdir())
    assert result.report.trim.proof is None
    assert result.report.trim.rows.after == len(result.old_ids)
    words = ["trim", str(checkpoints("llama")), "--text", str(text), "--dry-run"]
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0, shown.stderr
    assert "nothing: a dry run" in shown.stdout


# -- refusals ------------------------------------------------------------------------------------


def test_what_cannot_be_trimmed_is_named(
    checkpoints: Checkpoints, text: Path, tmp_path: Path
) -> None:
    source = checkpoints("llama")
    refused(UsageError, "nothing says which tokens to keep", source)
    refused(UsageError, "size is 0; give 1 or more", source, size=0)
    refused(UsageError, "2 uses are counted in a text", source, size=300, least_uses=2)
    refused(SettingError, "uses no token 9,999 times", source, text=[text], least_uses=9999)
    refused(UnknownNameError, "did you mean 'Cyrillic'", source, keep_script=["Cyrilic"])
    refused(UnknownNameError, "no language 'xx' in the table", source, languages=["xx"])
    refused(UsageError, "'=a.txt' is no language", source, languages=["=a.txt"])
    refused(CorpusError, "no text file", source, text=[tmp_path / "none.txt"])
    refused(CorpusError, "no text file", source, text=[text], other_text=[tmp_path / "none.txt"])
    refused(SettingError, "100 ids are too few: .* has 258 that must be kept", source, size=100)
    refused(SettingError, "--size is 400, and .* has 330 tokens", source, size=400)
    refused(UsageError, "all 330 tokens of .* would be kept", source, size=330)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    refused(OutputExistsError, "taken", source, taken, text=[text])
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["mine.txt"]


def test_a_tokenizer_of_whole_words_is_refused_by_name(tmp_path: Path, text: Path) -> None:
    tokenizer = TINY["words"]()
    save_tokenizer(tokenizer, tmp_path / "source")
    n = tokenizer.get_vocab_size()
    make_model(tmp_path / "source", n_rows=n, bos_token_id=None, eos_token_id=None)
    refused(TokenizerError, "is a WordLevel model", tmp_path / "source", text=[text])


def test_a_folder_that_cannot_be_patched_is_refused_before_the_text_is_read(
    tmp_path: Path, text: Path, checkpoints: Checkpoints
) -> None:
    source = shutil.copytree(checkpoints("llama"), tmp_path / "source")
    (source / "adapter_config.json").write_text("{}")
    refused(UnsupportedCheckpointError, "adapter", source, tmp_path / "out", text=[text])
    assert not (tmp_path / "out").exists()
