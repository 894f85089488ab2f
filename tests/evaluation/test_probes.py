"""Probes: what a model is asked, and that the figures say what it did."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.vocabulary.tiny_tokenizers import made
from tests.world import make_model
from tokensurgeon.alignment import Alignment, align
from tokensurgeon.cli.main import main
from tokensurgeon.errors import CorpusError, EvaluationError, UnknownNameError, UsageError
from tokensurgeon.evaluation.probes import (
    PROBES,
    Answers,
    ProbeText,
    Subject,
    Written,
    cuts,
    new_tokens,
    probe,
    probe_checkpoint,
    wilson,
    written_text,
)
from tokensurgeon.evaluation.probes.cuts import KINDS, pairs
from tokensurgeon.evaluation.probes.estimates import difference, estimate, figure
from tokensurgeon.evaluation.probes.known_text import refuse_known
from tokensurgeon.evaluation.probes.new_tokens import places
from tokensurgeon.evaluation.probes.number_tasks import SCHEMES, copy_item, regrouped, sum_item
from tokensurgeon.evaluation.probes.probe_text import tail
from tokensurgeon.evaluation.probes.written_text import existing, repeated, source_bits
from tokensurgeon.evaluation.scoring import score
from tokensurgeon.models import load_model
from tokensurgeon.report.probe_tables import markdown
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.corpus import read_corpus
from tokensurgeon.text.seen import SEEN_FILE, Seen, line_hashes
from tokensurgeon.vocabulary import load_vocabulary

ITEMS = 2
DATA = resources.files("tokensurgeon") / "data"


@pytest.fixture(scope="module", autouse=True)
def short_texts():
    """Let models write less: each token takes a pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written_text, "N_BYTES", 40)
        patch.setattr(written_text, "COPIED", (60, 80))
        patch.setattr(new_tokens, "N_BYTES", 30)
        patch.setattr(cuts, "SHORT", (30, 70))
        yield


@pytest.fixture(scope="module")
def text() -> ProbeText:
    return ProbeText.read(seed=0)


@pytest.fixture(scope="module")
def ships() -> Subject:
    """The model that ships."""
    folder = str(DATA / "source")
    return Subject("ships", load_model(folder), load_vocabulary(folder))


@pytest.fixture(scope="module")
def alignment(ships: Subject) -> Alignment:
    """From its tokens to the donor's."""
    return align(ships.vocabulary, load_vocabulary(str(DATA / "donor")))


@pytest.fixture(scope="module")
def rows(ships: Subject, alignment: Alignment) -> list[np.ndarray]:
    """Input and output rows for the donor's tokens: a new one has its last piece's."""
    last = alignment.source_ids.copy()
    for token in np.flatnonzero(last < 0).tolist():
        pieces = ships.vocabulary.pieces_of(alignment.target.token_bytes[token] or b"")
        last[token] = pieces[-1] if pieces else 0
    model = ships.model.model
    sides = model.get_input_embeddings(), model.get_output_embeddings()
    return [one.weight.numpy()[last] for one in sides]


@pytest.fixture(scope="module")
def patched(ships: Subject, alignment: Alignment, rows: list[np.ndarray]) -> Subject:
    return Subject("patched", ships.model.patched(rows[0], rows[1]), alignment.target)


@pytest.fixture(scope="module")
def table(ships: Subject, patched: Subject, text: ProbeText):
    return probe([ships, patched], text, items=ITEMS)


class Says(Subject):
    """Writes what it is told to; scores as the model does."""

    def answer(self, prompt: str) -> str:
        raise NotImplementedError

    def write(self, prompts, n_bytes, what, *, line=False):
        texts = [one if isinstance(one, str) else self.vocabulary.decode(one) for one in prompts]
        written = []
        for one in map(self.answer, texts):
            ids = tuple(self.vocabulary.encode(one))
            written.append(Written(ids, self.vocabulary.bytes_of(ids)))
        return written


class Copies(Says):
    """Goes on as the prompt did where it last said the same as at its end."""

    def answer(self, prompt: str) -> str:
        *earlier, last = prompt.split("\n")
        for line in earlier:
            if line.startswith(last + " "):  # a sentence, begun again
                return line[len(last) :]
        return f" {last.removesuffix(' is').removesuffix(':')}"


class Mute(Says):
    """Writes nothing."""

    def answer(self, prompt: str) -> str:
        return ""


# -- figures -------------------------------------------------------------------------------------


def test_a_share_has_wilsons_interval():
    assert wilson(0, 32) == pytest.approx((0.0, 0.1072), abs=1e-4)
    low, high = wilson(16, 32)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert (low, high) == pytest.approx((0.3364, 0.6636), abs=1e-4)
    own = estimate(Answers.of([1, 0, 1, 1]), seed=0)
    assert own is not None
    assert (own.estimate, own.low, own.high) == (0.75, *wilson(3, 4))


def test_a_ratio_of_sums_is_drawn_over_items():
    answers = Answers.of([2.0, 4.0, 9.0], [1, 2, 3])
    own = estimate(answers, seed=0)
    assert own is not None
    assert own.estimate == 15 / 6
    assert 2.0 <= own.low <= own.estimate <= own.high <= 3.0
    # All ratios alike: nothing varies.
    even = estimate(Answers.of([2.0, 4.0], [1, 2]), seed=0)
    assert even is not None
    assert (even.low, even.high) == (2.0, 2.0)


def test_a_difference_is_paired():
    first = np.random.default_rng(0).normal(size=40)
    gap = difference(Answers.of((first + 1).tolist()), Answers.of(first.tolist()), seed=0)
    assert gap is not None
    assert (gap.low, gap.estimate, gap.high) == pytest.approx((1.0, 1.0, 1.0))
    assert difference(Answers.of([1.0]), Answers.of([1.0, 0.0]), seed=0) is None


def test_what_nobody_was_asked_is_no_figure():
    assert figure("p", "n", [None, None]) is None
    nothing = Answers.of([0.0, 0.0], [0, 0])
    assert figure("p", "n", [nothing]) is None
    half = figure("p", "n", [None, Answers.of([1.0])])
    assert half is not None
    assert half.values[0] is None
    assert half.difference is None


def test_words_that_repeat_and_words_that_exist():
    assert repeated("a b c d") == (0, 4)
    assert repeated("a b c a b c a b c") == (6 - 2, 9)
    known = frozenset({"index", "table"})
    assert existing("Index table zzgh taken", known) == (2, 3)
    assert existing("index", known) == (0, 0)  # the end may have cut it
    assert tail("one two three", 5) == "three"
    assert tail("one two three", 9) == "two three"


# -- the suite -----------------------------------------------------------------------------------


def test_every_probe_measures_something(table):
    assert {one.probe for one in table.figures} == set(PROBES)
    assert table.notes == ()
    for one in table.figures:
        assert 0 < one.n_items <= ITEMS
        for value in one.values:
            if value is not None:
                assert value.low <= value.estimate <= value.high
                if one.unit == "share":
                    assert value.low >= -1e-9
                    assert value.high <= 1 + 1e-9
    assert table.samples[0].prompt
    assert len(table.samples[0].texts) == 2
    json.dumps(table.to_dict(), allow_nan=False)


def test_a_model_against_itself_differs_by_exactly_nothing(ships, text):
    only = [name for name in PROBES if name != "numbers"]
    table = probe([ships, replace(ships, name="again")], text, items=ITEMS, only=only)
    differences = [one.difference for one in table.figures if one.values[0] is not None]
    assert len(differences) > 15
    for gap in differences:
        assert gap is not None
        assert (gap.estimate, gap.low, gap.high) == (0, 0, 0)
    assert table.notes == ("emission and definitions: the source has every token",)
    assert all(one.texts[0] == one.texts[1] for one in table.samples)


def test_the_same_seed_gives_the_same_table_and_another_other_items(ships, patched, text, table):
    again = probe([ships, patched], text, items=ITEMS, only=["discrimination", "emission"])
    for one in again.figures:
        assert one == table.figure(one.probe, one.name)
    other = ProbeText.read(seed=1)
    asked = [probe([ships], t, items=ITEMS, only=["discrimination"]) for t in (text, other)]
    assert asked[0].figures[0].values != asked[1].figures[0].values


def test_silenced_new_tokens_are_never_written(ships, alignment, rows, text, table):
    """The row has the logit -100, as nearly as any can, at all states that a text leads to."""
    sequences = [ships.sequence(own[:400]) for own in text.texts]
    states = ships.model.all_states(sequences, ships.model.n_layers)
    silent = np.linalg.lstsq(states, np.full(len(states), -100.0), rcond=None)[0]
    output = rows[1].copy()
    output[alignment.missing] = silent
    quiet = Subject("quiet", ships.model.patched(rows[0], output), alignment.target)
    found = probe([ships, quiet], text, items=ITEMS, only=["emission", "generation"])
    top = found.figure("emission", "likeliest there").values[1]
    assert top is not None
    assert top.estimate == 0
    share = found.figure("emission", "of the token and its old pieces, the token").values[1]
    assert share is not None
    assert share.estimate < 1e-3
    missing = set(alignment.missing.tolist())
    prompt = text.sentences[0].text
    assert not missing & set(quiet.write([prompt], 60, "")[0].ids)
    loud = table.figure("emission", "new tokens, from their text").values[1]
    lost = found.figure("emission", "new tokens, from their text").values[1]
    assert lost.estimate > loud.estimate + 1


def test_what_copies_copies_everything(ships, text):
    copies = Copies("copies", ships.model, ships.vocabulary)
    mute = Mute("mute", ships.model, ships.vocabulary)
    names = ["generation", "consistency", "numbers"]
    full, none = (probe([one], text, items=ITEMS, only=names) for one in (copies, mute))
    asked = [
        ("generation", "sentences copied whole"),
        ("generation", "part of a sentence copied before the first error"),
        ("consistency", "words copied"),
        ("numbers", "copied, 1–3 digits"),
        ("numbers", "copied, 4–6 digits"),
    ]
    for key in asked:
        assert full.figure(*key).values[0].estimate == 1
        assert none.figure(*key).values[0].estimate == 0
    assert full.figure("consistency", "tokens of the copies not canonical").values[0].estimate == 0


def test_a_permuted_vocabulary_changes_no_answer(ships, text):
    order = np.random.default_rng(3).permutation(ships.vocabulary.n_rows)
    document = json.loads(ships.vocabulary.tokenizer.to_str())
    table = document["model"]["vocab"]
    document["model"]["vocab"] = {token: int(order[i]) for token, i in table.items()}
    for added in document["added_tokens"]:
        added["id"] = int(order[added["id"]])
    from tokenizers import Tokenizer

    moved = ships.vocabulary.with_tokenizer(Tokenizer.from_str(json.dumps(document)))
    model = ships.model.model
    back = np.argsort(order)
    rows = [
        one.weight.numpy()[back]
        for one in (model.get_input_embeddings(), model.get_output_embeddings())
    ]
    other = Subject("moved", ships.model.patched(*rows), moved)
    for one in probe([ships, other], text, items=ITEMS, only=["discrimination"]).figures:
        assert one.difference.estimate == pytest.approx(0, abs=1e-5)


# -- what a model pays, by two routes -----------------------------------------------------------


def test_losses_are_those_of_the_measure(ships, text):
    chunks = [Chunk(own[:300], i) for i, own in enumerate(text.texts[:3])]
    expected = score(ships.model, ships.vocabulary, chunks).nll
    texts = [chunk.text for chunk in chunks]
    assert ships.losses(texts, [0] * 3, "") == pytest.approx(expected)
    before = ships.losses([own[:100] for own in texts], [0] * 3, "")
    assert np.all(ships.losses(texts, [100] * 3, "") < expected)
    assert np.all(before < expected)


def test_what_is_written_costs_the_source_as_in_the_measure(ships):
    answers = source_bits(ships, ["The index is", "A table"], [" scanned from left to right.", ""])
    assert answers.weights.tolist() == [28, 0]
    expected = ships.losses(["The index is scanned from left to right."], [12], "")[0]
    assert answers.ratio == pytest.approx(expected / np.log(2) / 28)


def test_places_are_new_tokens_between_borders_of_the_source(ships, patched, alignment, text):
    chunk = text.texts[0][:300]
    found = places(ships, patched, alignment, [chunk])
    assert found
    own, theirs = (one.vocabulary.encode(chunk) for one in (patched, ships))
    for place in found:
        token = own[place.first]
        assert token in alignment.missing
        spelled = ships.vocabulary.bytes_of(theirs[slice(*place.pieces)])
        assert spelled == patched.vocabulary.token_bytes[token]
        assert place.n_bytes == len(spelled)


# -- cuts ----------------------------------------------------------------------------------------


def test_cuts_of_a_kind_spell_the_word_and_are_of_no_other_kind():
    vocabulary = made("byte_level")
    every = []
    for kind in KINDS:
        for cut in pairs(vocabulary, b" Rows", kind):
            assert vocabulary.bytes_of(cut) == b" Rows"
            every.append(cut)
    assert len(every) == len(set(every))
    space = vocabulary.emits(b" ")
    assert all(cut[0] == space for cut in pairs(vocabulary, b" rows", "whitespace"))
    assert all(
        vocabulary.bytes_of(c[1:]) == b"s" for c in pairs(vocabulary, b" rows", "plural tails")
    )
    assert pairs(vocabulary, b" rows", "casing") == []


# -- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece_bpe", "unigram_bytes"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_regrouped_digits_spell_the_same_text(kind, scheme):
    vocabulary = made(kind)
    text = "In 2048, 7 of 3.14159 and x12345."
    ids = regrouped(vocabulary, text, scheme)
    assert ids is not None
    assert vocabulary.bytes_of(ids).decode().strip() == text
    if scheme == "single":
        digits = [vocabulary.token_bytes[i] for i in ids]
        assert all(len(own) == 1 for own in digits if any(c in b"0123456789" for c in own))


def test_a_tokenizers_own_scheme_changes_nothing(ships):
    assert ships.vocabulary.number_scheme == "left-3"
    for text in ("1234567 and 12, 3.14159", "no number"):
        assert regrouped(ships.vocabulary, text, "left-3") == ships.vocabulary.encode(text)
    assert regrouped(ships.vocabulary, "1234", "right-3") != ships.vocabulary.encode("1234")


def test_items_of_numbers_are_right_and_as_long_as_asked():
    generator = random.Random(0)
    for _ in range(20):
        prompt, answer = sum_item(generator, (3, 4))
        a, b = prompt.rsplit("\n", 1)[1].removesuffix(" =").split(" + ")
        assert int(answer) == int(a) + int(b)
        assert {len(a), len(b)} <= {3, 4}
        for line in prompt.splitlines()[:-1]:
            left, right = line.split(" = ")
            assert sum(map(int, left.split(" + "))) == int(right)
        prompt, answer = copy_item(generator, (1, 3))
        assert prompt.endswith(f"\n{answer} is")
        assert 1 <= len(answer) <= 3


# -- other tokenizers, and what cannot be asked ---------------------------------------------------


@pytest.mark.parametrize("kind", ["sentencepiece_bpe", "unigram_bytes", "wordpiece_lower"])
def test_tokenizers_of_other_kinds_are_asked_or_refused_in_words(kind, text, tmp_path, ships):
    vocabulary = made(kind)
    folder = make_model(tmp_path / kind, n_rows=vocabulary.n_rows, max_position_embeddings=512)
    other = Subject(kind, load_model(folder), vocabulary)
    if kind == "wordpiece_lower":  # it loses line ends, which all items of consistency have
        with pytest.raises(EvaluationError, match="nothing could be probed: consistency"):
            probe([ships, other], text, items=2, only=["consistency"])
        return
    only = ["discrimination", "consistency", "emission"]
    found = probe([ships, other], text, items=1, only=only)
    assert {one.probe for one in found.figures} >= set(only[:2])


def test_a_single_model_is_not_asked_for_new_tokens(ships, text):
    found = probe([ships], text, items=2, only=["discrimination", "emission"])
    assert found.notes == (
        "emission: new tokens are those that a source lacks; give it with --against",
    )
    assert all(one.difference is None for one in found.figures)


def test_an_unknown_probe_is_named_with_the_nearest(ships, text):
    with pytest.raises(UnknownNameError, match="no probe 'number'; take 'numbers'"):
        probe([ships], text, only=["number"])


def test_a_text_of_few_words_is_refused(tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("A row is read.")
    with pytest.raises(CorpusError, match="has 1 words of four letters"):
        ProbeText.read([few])


# -- the command ---------------------------------------------------------------------------------


def run(*arguments: object):
    return CliRunner().invoke(main, ["probe", *map(str, arguments)])


def test_the_command_says_what_the_library_measures(tmp_path: Path):
    source = DATA / "source"
    file = tmp_path / "probes.json"
    only = ["discrimination"]
    result = run(source, "--against", source, "--items", 2, "--only", ",".join(only), "--json",
                 "-o", file)  # fmt: skip
    assert result.exit_code == 0, result.output
    expected = probe_checkpoint(str(source), str(source), items=2, only=only).to_dict()
    assert json.loads(result.stdout) == json.loads(json.dumps(expected))
    assert json.loads(file.read_text()) == json.loads(result.stdout)
    again = run(source, "--items", 2, "--only", "discrimination", "-o", file)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    shown = run(source, "--items", 2, "--only", "generation", "-o", tmp_path / "probes.md")
    assert shown.exit_code == 0, shown.output
    assert "words that exist" in shown.stdout
    page = (tmp_path / "probes.md").read_text()
    assert page.startswith("# Probes\n")
    assert "| generation | words that exist ↑ | 2 |" in page
    assert "## Samples" in page


def test_the_help_names_every_probe_in_its_order():
    shown = CliRunner().invoke(main, ["probe", "--help"], terminal_width=400).stdout
    assert f": {', '.join(PROBES)};" in shown


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--only", "numbres"], 2, "take 'numbers'"),
        (["--only", "foo", "--against", "nowhere", "--text", "nowhere.txt"], 2, "no probe 'foo'"),
        (["--text", "nowhere.txt"], 1, "nowhere.txt"),
        (["--items", "0"], 2, "--items"),
    ],
)
def test_bad_input_is_one_line(options, code, said):
    result = run(DATA / "source", *options)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""


def test_a_text_that_a_checkpoint_knows_is_refused(tmp_path: Path):
    folder, file = tmp_path / "patched", tmp_path / "own.jsonl"
    shutil.copytree(str(DATA / "source"), folder)
    file.write_bytes((DATA / "text" / "evaluation.jsonl").read_bytes())
    report = folder / "report.json"
    corpus = read_corpus([file])
    named = {"calibration": [str(tmp_path / "o*.jsonl")]}
    report.write_text(json.dumps({"recipe": {"text": named}}))
    result = run(folder, "--text", file)
    assert result.exit_code == 2
    assert f"{file} is text that {folder} was calibrated on" in result.stderr
    assert result.stdout == ""
    refuse_known(folder, corpus, allow=True)
    for said in ("[]", "{}", '{"recipe": {"text": {"calibration": [7, "moved.jsonl"]}}}'):
        report.write_text(said)
        refuse_known(folder, corpus, allow=False)
    (folder / SEEN_FILE).write_text(Seen(line_hashes(corpus.texts)).to_text())
    with pytest.raises(UsageError, match="was trained on: give other text, or --allow-seen-text"):
        refuse_known(folder, corpus, allow=False)


def test_figures_are_named_for_what_they_are(table):
    page = markdown(table)
    assert "| discrimination | text, bits per byte ↓ |" in page
    assert "what a definition gains by its own word, bits ↑" in page
    assert "part of a sentence copied before the first error ↑" in page
    assert table.models == ("ships", "patched")
    assert "source: ships" in page
    assert "evaluation.jsonl" in page
    assert "calibration.jsonl" not in page, "no item is drawn from it"


def test_an_encoder_is_refused_in_one_line(tmp_path, tiny_source):
    import transformers

    config = transformers.BertConfig(
        vocab_size=320,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_source / name).read_bytes())
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "probe reads causal language models" in result.stderr
    assert "is an encoder" in result.stderr
    assert result.stderr.count("\n") == 1
