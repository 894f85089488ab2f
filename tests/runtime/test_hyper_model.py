"""A model with hypertokens: rows, losses, generation, training and the file of a composer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.world import SENTENCES
from tokensurgeon.checkpoint.embeddings import MASKED
from tokensurgeon.cli.main import main
from tokensurgeon.errors import (
    CalibrationError,
    CheckpointError,
    CorpusError,
    EvaluationError,
    MissingExtraError,
    OutputExistsError,
    UnknownNameError,
    UnsupportedCheckpointError,
    UsageError,
)
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.models.other_kinds import CLASSES
from tokensurgeon.runtime.hypertokens.code_loss import code_losses, code_nll
from tokensurgeon.runtime.hypertokens.codec import Codebook, Limits, decode
from tokensurgeon.runtime.hypertokens.composers import WeighedComposer, composer_names
from tokensurgeon.runtime.hypertokens.compress import compress_files
from tokensurgeon.runtime.hypertokens.hyper_model import HyperModel, base_rows
from tokensurgeon.runtime.hypertokens.learned_composer import LearnedComposer
from tokensurgeon.runtime.hypertokens.lora import add_lora
from tokensurgeon.runtime.hypertokens.train_composer import train_composer
from tokensurgeon.runtime.hypertokens.zip_model import ZippedModel, check_causal, load_zip

TEXT = SENTENCES[0] + " " + SENTENCES[0]
PROMPTS = ["a row of a row of a row of", "the index", TEXT[:60]]


@pytest.fixture(scope="module")
def zipped(checkpoints) -> ZippedModel:
    """Weights are spread, so that the likeliest code is so by far, and hypertokens are chosen."""
    return load_zip(checkpoints("llama", False), "subword-ends")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_with_a_cache_and_in_batches_the_codes_are_those_of_one_by_one(
    checkpoints, family: str, tied: bool
) -> None:
    fixed = load_zip(checkpoints(family, tied))
    # Of fixed composers two hypertokens may have one row, and rounding would choose.
    composer = LearnedComposer(base_rows(fixed.hyper.model), "subword-exp", 4, bias=1.0)
    with torch.no_grad():
        for up in composer.up:
            up.normal_(generator=torch.Generator().manual_seed(1))
    hyper = HyperModel(fixed.hyper.model, composer.requires_grad_(False), fixed.hyper.limits)
    zipped = ZippedModel(fixed.vocabulary, hyper)
    together = zipped.generate(PROMPTS, max_new_codes=24)
    for use_cache in (True, False):
        alone = [
            zipped.generate([prompt], max_new_codes=24, use_cache=use_cache)[0]
            for prompt in PROMPTS
        ]
        assert [one.codes for one in alone] == [one.codes for one in together]
    codes = [code for one in together for code in one.codes]
    assert any(code >= zipped.hyper.limits.n_ids for code in codes)


def test_what_is_written_decodes_to_its_text_and_its_stream(zipped: ZippedModel) -> None:
    parts: dict[int, str] = {0: "", 1: "", 2: ""}

    def seen(number: int, text: str) -> None:
        parts[number] += text

    settings = {"max_new_codes": 20, "temperature": 1.0, "seed": 3}
    written = zipped.generate(PROMPTS, seen=seen, **settings)
    for number, (prompt, one) in enumerate(zip(PROMPTS, written, strict=True)):
        prefix = [zipped.vocabulary.start_id]
        book = Codebook(zipped.hyper.limits)
        book.encode([*prefix, *zipped.vocabulary.encode(prompt)])
        assert book.decode(one.codes) == list(one.ids)
        assert zipped.vocabulary.bytes_of(one.ids).decode("utf-8", "replace") == one.text
        assert parts[number] == one.text
    state = torch.random.get_rng_state()
    assert zipped.generate(PROMPTS, **settings) == written
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_hypertokens_it_is_the_model_itself(checkpoints) -> None:
    folder = checkpoints("llama", False)
    zipped, plain = load_zip(folder, max_hypertokens=0), load_model(folder)
    ids = [zipped.vocabulary.start_id, *zipped.vocabulary.encode(TEXT)]
    assert zipped.compress(TEXT) == ids[1:]
    np.testing.assert_allclose(code_nll(zipped.hyper, ids), plain.nll([ids])[0], atol=1e-5)
    one = zipped.generate([TEXT[:30]], max_new_codes=12)[0]
    start = [ids[0], *zipped.vocabulary.encode(TEXT[:30])]
    expected = plain.generate(start, 12, seed=0, temperature=0, stop=[zipped.vocabulary.eos_id])[0]
    assert list(one.codes) == [token for token in expected if token != zipped.vocabulary.eos_id]


def test_the_model_is_as_it_was_after_the_hooks(checkpoints) -> None:
    folder = checkpoints("llama", False)
    zipped = load_zip(folder)
    settings = zipped.hyper.model.model.generation_config
    ids = zipped.vocabulary.encode(TEXT)
    before = zipped.hyper.model.logits(ids)
    zipped.generate([TEXT], max_new_codes=5)
    code_nll(zipped.hyper, zipped.compress(TEXT))
    np.testing.assert_array_equal(zipped.hyper.model.logits(ids), before)
    assert zipped.hyper.model.model.generation_config is settings


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_losses_are_those_of_the_logits_of_a_whole_pass(checkpoints, family: str) -> None:
    zipped = load_zip(checkpoints(family, False))
    codes = [zipped.vocabulary.start_id, *zipped.compress(TEXT)]
    n_ids = zipped.hyper.limits.n_ids
    assert max(codes) >= n_ids
    with zipped.hyper.attached() as network, torch.no_grad():
        logits = network(input_ids=torch.tensor([codes])).logits[0].double()
    book = Codebook(zipped.hyper.limits)
    for number, code in enumerate(codes[:-1]):
        book.read(code)
        there = torch.isfinite(logits[number])
        assert int(there.sum()) == n_ids + len(book.phrases)
    expected = -torch.log_softmax(logits, dim=1)[range(len(codes) - 1), codes[1:]]
    np.testing.assert_allclose(code_nll(zipped.hyper, codes), expected.numpy(), atol=2e-5)


def test_the_softcap_of_a_model_leaves_what_does_not_exist_ruled_out(tmp_path: Path) -> None:
    """Gemma 2 caps its logits after the output matrix, and scales what the embedding looks up."""
    import transformers

    config = transformers.Gemma2Config(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(config)
    model = LanguageModel(network, softcap=config.final_logit_softcapping)
    limits = Limits(40, disabled=frozenset({0, 1}))
    ids = [2, 3, 4, 3, 4, 3, 4, 5, 3, 4, 5]
    one_id = WeighedComposer("subword-last", base_rows(model), 4)
    hyper = HyperModel(model, one_id, limits)
    codes = Codebook(limits).encode(ids)
    with hyper.attached() as attached, torch.no_grad():
        logits = attached(input_ids=torch.tensor([codes])).logits[0]
    assert not torch.isfinite(logits[0, 40:]).any()
    expected = -torch.log_softmax(logits.double(), dim=1)[range(len(codes) - 1), codes[1:]]
    np.testing.assert_allclose(code_nll(hyper, codes), expected.numpy(), atol=1e-5)
    # A phrase with the rows of its last id is read as that id is, with its scale.
    last = [
        decode([c], limits)[0] if c < 40 else hyper.tables.books[0].phrase(c)[-1] for c in codes
    ]
    with torch.no_grad():
        plain = network(input_ids=torch.tensor([last])).logits[0]
    np.testing.assert_allclose(logits[:, :40].numpy(), plain.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", composer_names())
def test_a_trained_composer_starts_as_the_fixed_one_of_its_name(zipped, name: str) -> None:
    rows = base_rows(zipped.hyper.model)
    phrases = [(3, 4), (5, 6, 7), (8, 9, 8, 9)]
    fixed = WeighedComposer(name, rows, 4)(phrases)
    if name == "sum-norm":
        for side, values in zip(rows, fixed[:2], strict=True):
            for phrase, row in zip(phrases, values, strict=True):
                pieces = side[list(phrase)]
                torch.testing.assert_close(row.norm(), pieces.norm(dim=1).mean())
                cosine = torch.cosine_similarity(row, pieces.sum(0), dim=0)
                torch.testing.assert_close(cosine, torch.tensor(1.0))
        return
    learned = LearnedComposer(rows, name, 4)(phrases)
    for one, other in zip(learned, fixed, strict=True):
        torch.testing.assert_close(one.detach(), other)


def test_fixed_composers_weigh_rows_as_their_initialisers_do(zipped: ZippedModel) -> None:
    rows = base_rows(zipped.hyper.model)
    given = WeighedComposer("subword-mean", rows, 4)([(3, 4, 5)])
    torch.testing.assert_close(given.input[0], rows[0][[3, 4, 5]].mean(0))
    ends = WeighedComposer("subword-ends", rows, 4, bias=-2.0)([(3, 4, 5)])
    torch.testing.assert_close(ends.input[0], rows[0][5])
    torch.testing.assert_close(ends.output[0], rows[1][3])
    assert ends.bias.tolist() == [-2.0]
    with pytest.raises(UnknownNameError, match="no composer 'omp'; there are eeve, subword-ends"):
        WeighedComposer("omp", rows, 4)


def test_gradients_reach_every_part_of_a_composer(zipped: ZippedModel) -> None:
    composer = LearnedComposer(base_rows(zipped.hyper.model), "subword-ends", 4)
    with torch.no_grad():
        for up in composer.up:
            up.normal_()
    hyper = HyperModel(zipped.hyper.model, composer, zipped.hyper.limits)
    code_losses(hyper, zipped.compress(TEXT)).mean().backward()
    for name, parameter in composer.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from importlib import resources

    return Path(str(resources.files("tokensurgeon") / "data" / "source"))


@pytest.fixture(scope="module")
def page(few_pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first six kilobytes of the text that ships."""
    path = tmp_path_factory.mktemp("page") / "page.txt"
    path.write_text(json.loads(few_pages.read_text("utf-8").splitlines()[0])["text"][:6000])
    return path


@pytest.fixture(scope="module")
def trained(source: Path, page: Path, tmp_path_factory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("composer") / "composer.safetensors"
    return path, train_composer(source, [page], path, steps=12, chunk_bytes=512)


def test_training_lowers_the_loss_of_held_out_text_and_comes_back_from_its_file(
    trained: tuple[Path, dict], source: Path, page: Path
) -> None:
    path, card = trained
    assert card["bits_per_byte_after"] < card["bits_per_byte_before"] - 0.02
    assert card["steps"] == 12
    figures = {}
    for composer in ("subword-exp", path):
        found = compress_files(
            source, [page], measure=True, composer=composer,
            context_bytes=512, measured_bytes=1500,
        )  # fmt: skip
        figures[composer] = found.files[0]
    first, second = figures.values()
    assert first.n_codes == second.n_codes < first.n_ids
    assert first.plain == second.plain
    assert second.zipped < first.zipped


def test_the_same_seed_and_steps_give_the_same_composer(
    trained: tuple[Path, dict], source: Path, page: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    files = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for file in files:
        train_composer(source, [page], file, steps=2, chunk_bytes=256, seed=5)
    one, two = map(load_file, files)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_composer_is_refused_for_another_model_and_never_overwritten_unasked(
    trained: tuple[Path, dict], source: Path, checkpoints, page: Path, tmp_path: Path
) -> None:
    path, _ = trained
    other = checkpoints("llama", False)
    with pytest.raises(CheckpointError, match="is a composer for a model with"):
        load_zip(other, path)
    with pytest.raises(CheckpointError, match="there is no composer"):
        load_zip(source, tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="at most 4 ids, and 3 are asked for"):
        load_zip(source, path, max_ids=3)
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_zip(source, foreign)
    with pytest.raises(OutputExistsError, match="add --force"):
        train_composer(source, [page], path, steps=1)
    with pytest.raises(OutputExistsError, match="is not a composer"):
        train_composer(source, [page], foreign, steps=1, force=True)
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        train_composer(source, [page], tmp_path / "new.bin", steps=1)
    short = tmp_path / "short.txt"
    short.write_text("a few words")
    with pytest.raises(CalibrationError, match="too few to train on"):
        train_composer(source, [short], tmp_path / "new.safetensors", steps=1)
    assert not (tmp_path / "new.safetensors").exists()


def test_without_peft_lora_names_what_to_install(zipped, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tokensurgeon\[peft\]'"):
        add_lora(zipped.hyper.model, 2)


def test_lora_trains_beside_the_composer_and_comes_back(
    source: Path, page: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    path = tmp_path / "composer.safetensors"
    card = train_composer(source, [page], path, steps=3, chunk_bytes=512, lora_rank=2)
    found = compress_files(
        source, [page], measure=True, composer=path,
        context_bytes=512, measured_bytes=1500,
    )  # fmt: skip
    assert card["bits_per_byte_after"] <= card["bits_per_byte_before"]
    zipped = load_zip(source, path)
    ids = zipped.vocabulary.encode(TEXT)
    assert not np.allclose(zipped.hyper.model.logits(ids), load_model(source).logits(ids))
    assert found.files[0].plain is not None


@pytest.mark.parametrize("max_bytes", [700, 1000, 1001, 1003])
def test_no_more_is_read_than_asked_and_what_is_left_out_is_named(
    source: Path, tmp_path: Path, max_bytes: int
) -> None:
    one, two, three = (tmp_path / f"{name}.txt" for name in ("one", "two", "three"))
    one.write_text("a row of it\n" * 50)
    two.write_text("é" * 5000)
    three.write_text("not read")
    found = compress_files(source, [one, two, three], max_bytes=max_bytes, context_bytes=512)
    facts = found.to_dict()
    assert [figures.n_read for figures in found.files] == [600, (max_bytes - 600) // 2 * 2]
    assert facts["not_read"] == [str(three)]
    arguments = ["runtime", "compress", str(source), *map(str, (one, two, three))]
    shown = CliRunner().invoke(main, [*arguments, "--max-bytes", str(max_bytes)]).stdout
    assert f"reading ended after {facts['files'][1]['n_read']:,} bytes of {two}" in shown
    assert f"1 file not read: {three}" in shown


def test_a_limit_that_is_not_reached_leaves_nothing_out(source: Path, page: Path) -> None:
    n_bytes = page.stat().st_size
    whole, below = (
        compress_files(source, [page], max_bytes=most, context_bytes=512)
        for most in (None, n_bytes + 1)
    )
    assert whole == below
    assert whole.files[0].n_read == n_bytes
    (page.parent / "wide.txt").write_text("é")
    with pytest.raises(CorpusError, match="max_bytes = 1 ends inside the first character"):
        compress_files(source, [page.parent / "wide.txt"], max_bytes=1)


def test_prompts_that_cannot_be_continued_are_refused(zipped: ZippedModel, source: Path) -> None:
    with pytest.raises(UsageError, match="no prompt was given"):
        zipped.generate([])
    with pytest.raises(EvaluationError, match="leaves no position"):
        zipped.generate(["".join(chr(33 + i * i % 89) for i in range(2000))])
    with zipped.hyper.attached() as network:
        cache = network(input_ids=torch.tensor([[5, 6, 7]])).past_key_values
        cache.crop(-2)
        with pytest.raises(
            EvaluationError, match="holds 1 codes of 1 sequences and the codebooks 3"
        ):
            network(input_ids=torch.tensor([[8]]), past_key_values=cache)


def test_a_model_of_another_kind_is_refused() -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8,
    )  # fmt: skip
    encoder = CLASSES[MASKED](transformers.BertForMaskedLM(config))
    with pytest.raises(UnsupportedCheckpointError, match="is a masked model"):
        check_causal(encoder, "BERT")


def test_the_commands_say_what_the_library_does(
    trained: tuple[Path, dict], source: Path, page: Path, tmp_path: Path
) -> None:
    run = CliRunner().invoke
    plain = ["runtime", "compress", str(source), str(page), "--context-bytes", "512"]
    long = ["runtime", "compress", str(source), str(page), "--measure", "--measured-bytes", "1"]
    by_length = json.loads(run(main, [*long, "--json"], catch_exceptions=False).stdout)["files"][0]
    assert by_length["n_chunks"] > 4, "8 kB are more than the 256 positions of this model"
    found = json.loads(run(main, [*plain, "--json"], catch_exceptions=False).stdout)
    (figures,) = found["files"]
    assert figures["n_codes"] < figures["n_ids"]
    assert figures["plain"] is None
    shown = run(main, [*plain, "--measure", "--measured-bytes", "900"], catch_exceptions=False)
    assert "bits per byte" in shown.stdout
    assert f"{figures['n_codes']:,}" in shown.stdout
    generate = ["runtime", "zip-generate", str(source), "a row of a row", "--max-new-codes", "9"]
    by_file = [*generate, "--composer", str(trained[0])]
    written = json.loads(run(main, [*by_file, "--json"], catch_exceptions=False).stdout)
    streamed = run(main, by_file, catch_exceptions=False)
    assert streamed.stdout == f"a row of a row{written[0]['text']}\n"
    assert "in 9 codes" in streamed.stderr
    refused = run(main, [*by_file, "--bias", "1"])
    assert refused.exit_code == 2
    assert "a bias of 1 is given, and a trained composer such as" in refused.stderr
    refused = run(main, [*plain, "--bias", "1"])
    assert "--bias does nothing without --measure" in refused.stderr
    more = [*by_file, "a row of a row", "--max-new-codes", "999"]
    twice = run(main, more, catch_exceptions=False)
    assert twice.stdout.count("a row of a row") >= 2
    assert twice.stderr.count("all 256 positions of the model are taken") == 2
    train = ["runtime", "train-composer", str(source), str(page), "--steps", "1"]
    output = ["-o", str(tmp_path / "c.safetensors"), "--chunk-bytes", "256"]
    assert "hypertokens, trained" in run(main, [*train, *output], catch_exceptions=False).stdout
