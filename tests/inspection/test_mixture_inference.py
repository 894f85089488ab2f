"""Mixtures that are known are inferred, from text that the tokenizer was not trained on."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.vocabulary.tiny_tokenizers import made
from tests.world import byte_level_bpe
from tokensurgeon.errors import CorpusError, TokenizerError, UsageError
from tokensurgeon.inspection import infer_mixture
from tokensurgeon.inspection.pair_log import count_words, log_pairs, merge_steps
from tokensurgeon.vocabulary import Vocabulary, vocabulary_from_tokenizer

TOLERANCE = 0.03


def trained(texts: list[str], size: int, kind: str = "bytes") -> Vocabulary:
    if kind == "bytes":
        return vocabulary_from_tokenizer(byte_level_bpe(size, texts=texts))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return vocabulary_from_tokenizer(tokenizer)


def of_bytes(texts: dict[str, str]) -> dict[str, float]:
    sizes = {name: len(text.encode()) for name, text in texts.items()}
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("words", [(7, 3, 0), (5, 3, 2), (1, 1, 1)])
def test_known_shares_are_recovered_from_other_text(languages, words, kind: str) -> None:
    given = {
        name: languages[name].text(4_000 * n, seed=1)
        for name, n in zip(languages, words, strict=True)
    }
    vocabulary = trained(list(given.values()), 700, kind)
    samples = {name: [language.text(8_000, seed=2)] for name, language in languages.items()}
    found = infer_mixture(vocabulary, samples)
    true = of_bytes(given)
    assert sum(found.shares.values()) == pytest.approx(1)
    for name in languages:
        assert found.shares[name] == pytest.approx(true[name], abs=TOLERANCE)


def test_the_training_text_itself_needs_no_slack(languages) -> None:
    given = {name: languages[name].text(n, seed=1) for name, n in (("en", 9_000), ("de", 3_000))}
    found = infer_mixture(trained(list(given.values()), 600), {n: [t] for n, t in given.items()})
    assert found.slack < 1e-3
    for name, share in of_bytes(given).items():
        assert found.shares[name] == pytest.approx(share, abs=0.01)


def test_neither_the_order_of_categories_nor_ids_matter(languages) -> None:
    vocabulary = trained([languages["en"].text(9_000, 1), languages["de"].text(3_000, 1)], 500)
    samples = {name: [languages[name].text(5_000, 2)] for name in ("en", "de")}
    one = infer_mixture(vocabulary, samples).shares
    other = infer_mixture(vocabulary, dict(reversed(samples.items()))).shares
    assert one == pytest.approx(other, abs=2e-3)


def test_a_category_that_the_tokenizer_cannot_write_has_no_share(languages) -> None:
    vocabulary = trained([languages["en"].text(9_000, 1)], 500, "metaspace")
    to_greek = str.maketrans("abcdefghijklmnopqrstuvwxyz", "αβγδεζηθικλμνξοπρστυφχψωϊϋ")
    samples = {
        "latin": [languages["en"].text(5_000, 2)],
        "greek": [languages["de"].text(5_000, 2).translate(to_greek)],
    }
    assert infer_mixture(vocabulary, samples).shares["latin"] > 0.97


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_logged_counts_are_those_of_a_recount(languages, kind: str) -> None:
    texts = [languages[name].text(600, 3) for name in ("en", "de")]
    vocabulary = trained(texts, 340, kind)
    steps, ids = merge_steps(vocabulary, 40)
    words = [count_words(vocabulary, [text]) for text in texts]
    log = log_pairs(words, [1, 1], steps, ids)
    counts = log.start.copy()
    merged: list[tuple[str, str]] = []
    for step, chosen in enumerate(log.chosen):
        expected = [recount(sample, merged) for sample in words]
        for pair, spelled in enumerate(log.spelled):
            assert counts[pair].tolist() == [sample[spelled] for sample in expected]
        # And a BPE trained on this very text merged its most frequent pair.
        assert counts[chosen].sum() == counts.sum(axis=1).max()
        counts[log.changed[step]] += log.change[step]
        merged.append(log.spelled[int(chosen[0])])
    assert np.abs(counts[log.chosen[0]]).max() == 0


def recount(words: Counter[str], merged: list[tuple[str, str]]) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for word, n in words.items():
        tokens = list(word)
        for left, right in merged:
            at = 0
            while at < len(tokens) - 1:
                if (tokens[at], tokens[at + 1]) == (left, right):
                    tokens[at : at + 2] = [left + right]
                at += 1
        for pair in pairwise(tokens):
            counts[pair] += n
    return counts


def test_words_of_a_tokenizer_that_cuts_nothing_are_cut_as_sentencepiece_does() -> None:
    found = count_words(made("sentencepiece_bpe"), ["the cat, 12 cats"])
    assert sorted(found) == sorted(["▁the", "▁cat", ",", "▁12", "▁cats"])


@pytest.mark.parametrize("name", ["unigram_bytes", "wordpiece_lower", "words"])
def test_a_tokenizer_without_merges_is_refused(name: str) -> None:
    with pytest.raises(TokenizerError, match=r"read off a merge list.*give a BPE tokenizer"):
        infer_mixture(made(name), {"a": ["text"], "b": ["text"]})


def test_what_cannot_be_inferred_is_refused() -> None:
    vocabulary = made("byte_level")
    with pytest.raises(UsageError, match="two or more"):
        infer_mixture(vocabulary, {"a": ["text"]})
    with pytest.raises(CorpusError, match="category b has no text"):
        infer_mixture(vocabulary, {"a": ["text"], "b": []})
    with pytest.raises(CorpusError, match="give more text"):
        infer_mixture(vocabulary, {"a": ["text"], "b": ["more"]})


def test_real_languages_are_recovered(assets: Path) -> None:
    shares = {"en": 0.5, "de": 0.3, "es": 0.2}
    given, samples = {}, {}
    for name, share in shares.items():
        lines = (assets / "corpora" / f"flores-{name}.txt").read_text("utf-8").splitlines(True)
        blocks = ["".join(lines[at : at + 50]) for at in range(0, len(lines), 50)]
        text = "".join(blocks[::2]).encode()[: int(200_000 * share)]
        given[name] = text.decode("utf-8", "ignore")
        samples[name] = ["".join(blocks[1::2])]
    found = infer_mixture(trained(list(given.values()), 1_500), samples)
    for name, share in of_bytes(given).items():
        assert found.shares[name] == pytest.approx(share, abs=TOLERANCE)


def test_a_published_tokenizer_is_known_by_its_text(assets: Path) -> None:
    from tokensurgeon.vocabulary import load_vocabulary

    folder = assets / "corpora"
    names = {"stories": "tinystories-train-head", "wiki": "wikitext2-valid", "german": "flores-de"}
    samples = {
        name: [(folder / f"{f}.txt").read_text("utf-8")[:300_000]] for name, f in names.items()
    }
    vocabulary = load_vocabulary(assets / "models" / "stories260K")
    assert infer_mixture(vocabulary, samples).shares["stories"] > 0.95
