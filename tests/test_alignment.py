"""Alignment: identity, permutation, controls, twins, normalisation, --map."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

from tests.vocabulary.tiny_tokenizers import TINY, made, shuffled_json
from tests.world import permuted
from tokensurgeon.alignment import Alignment, Match, align
from tokensurgeon.errors import UnknownNameError
from tokensurgeon.evaluation.boundaries import boundaries
from tokensurgeon.vocabulary import Kind, Vocabulary, load_vocabulary, vocabulary_from_tokenizer

KINDS = sorted(TINY)
PAIRS = [
    (a, b)
    for a, b in permutations(KINDS, 2)
    if {a, b} & {"byte_level", "sentencepiece_bpe", "wordpiece_lower"}
]


def config(**roles: str | None) -> dict[str, Any]:
    return {f"{role}_token": spelling for role, spelling in roles.items()}


@pytest.mark.parametrize("name", KINDS)
def test_a_vocabulary_is_identical_to_itself(name: str) -> None:
    vocabulary = made(name)
    alignment = align(vocabulary, vocabulary_from_tokenizer(vocabulary.tokenizer))
    assert alignment.is_identity
    assert not alignment.is_permutation
    assert alignment.source_ids.tolist() == list(range(vocabulary.n_rows))
    assert alignment.output_source_ids.tolist() == alignment.source_ids.tolist()
    assert (alignment.match == Match.EXACT).all()
    assert not len(alignment.missing)
    assert not len(alignment.unmatched_controls)


def test_holes_are_identical_to_themselves() -> None:
    document = json.loads(TINY["words"]().to_str())
    table = document["model"]["vocab"]
    document["model"]["vocab"] = {t: i if i < 10 else i + 2 for t, i in table.items()}
    vocabulary = vocabulary_from_tokenizer(Tokenizer.from_str(json.dumps(document)))
    alignment = align(vocabulary, vocabulary)
    assert alignment.is_identity
    assert alignment.source_ids.tolist() == list(range(vocabulary.n_rows))
    assert alignment.padding.tolist() == [10, 11]
    assert (alignment.match[[10, 11]] == Match.NONE).all()


@pytest.mark.parametrize("name", KINDS)
def test_a_permuted_vocabulary_is_matched_exactly(name: str) -> None:
    source = made(name)
    target = vocabulary_from_tokenizer(permuted(source.tokenizer))
    alignment = align(source, target)
    assert alignment.is_permutation
    assert not alignment.is_identity
    assert (alignment.match == Match.EXACT).all()
    assert sorted(alignment.source_ids.tolist()) == list(range(source.n_rows))
    for i, j in enumerate(alignment.source_ids.tolist()):
        assert target.spellings[i] == source.spellings[j]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_exact_and_byte_matches_have_equal_bytes(source: str, target: str) -> None:
    alignment = align(made(source), made(target))
    check(alignment)
    for i in alignment.missing.tolist():
        data = alignment.target.token_bytes[i]
        assert data
        assert not alignment.source.ids_of_bytes(data)


def check(alignment: Alignment) -> None:
    ours, theirs = alignment.source, alignment.target
    text = np.isin(theirs.kinds, (Kind.ORDINARY, Kind.BYTE))
    for i, (j, match) in enumerate(
        zip(alignment.source_ids.tolist(), alignment.match.tolist(), strict=True)
    ):
        assert (j == -1) == (match == Match.NONE)
        if match in (Match.EXACT, Match.BYTE):
            assert theirs.token_bytes[i] == ours.token_bytes[j]
        if match == Match.EXACT:
            assert theirs.spellings[i] == ours.spellings[j]
            assert theirs.kinds[i] == ours.kinds[j]
            continue
        if match == Match.NORMALISED:
            assert theirs.token_bytes[i] != ours.token_bytes[j]
        if match == Match.CONTROL:
            assert theirs.kinds[i] in (Kind.CONTROL, Kind.UNUSED)
            assert ours.kinds[j] in (Kind.CONTROL, Kind.UNUSED)
        elif j >= 0:
            assert text[i]
            assert ours.kinds[j] in (Kind.ORDINARY, Kind.BYTE)
    groups = (alignment.missing, alignment.unmatched_controls, alignment.padding, alignment.shared)
    assert sorted(np.concatenate(groups).tolist()) == list(range(theirs.n_rows))


@pytest.mark.parametrize("name", KINDS)
def test_the_order_of_the_file_does_not_change_an_alignment(name: str) -> None:
    for source, target in ((name, "sentencepiece_bpe"), ("sentencepiece_bpe", name)):
        plain = align(made(source), made(target))
        other = align(
            vocabulary_from_tokenizer(shuffled_json(made(source).tokenizer, 3)),
            vocabulary_from_tokenizer(shuffled_json(made(target).tokenizer, 4)),
        )
        assert plain.source_ids.tolist() == other.source_ids.tolist()
        assert plain.output_source_ids.tolist() == other.output_source_ids.tolist()
        assert plain.match.tolist() == other.match.tolist()


# Twins


def test_a_letter_is_never_matched_with_a_byte_token() -> None:
    source, target = made("sentencepiece_bpe"), made("byte_level")
    alignment = align(source, target)
    token = target.id_of("a")
    assert alignment.source_ids[token] == source.id_of("a")
    assert alignment.match[token] == Match.EXACT


def test_byte_tokens_are_matched_with_byte_tokens() -> None:
    source, target = made("sentencepiece_bpe"), made("metaspace_never")
    alignment = align(source, target)
    for spelling in ("<0x61>", "<0x00>", "<0xE3>", "a"):
        assert alignment.source_ids[target.id_of(spelling)] == source.id_of(spelling)


def test_a_byte_token_without_its_kind_takes_what_is_emitted_and_stays_silent() -> None:
    source, target = made("byte_level"), made("sentencepiece_bpe")
    alignment = align(source, target)
    letter, byte = target.id_of("a"), target.id_of("<0x61>")
    wanted = source.id_of("a")
    assert alignment.source_ids[letter] == alignment.source_ids[byte] == wanted
    assert alignment.output_source_ids[letter] == wanted
    assert alignment.output_source_ids[byte] == -1
    assert alignment.collisions[wanted] == tuple(sorted((letter, byte)))
    lone = target.id_of("<0xE3>")
    assert alignment.output_source_ids[lone] == alignment.source_ids[lone] >= 0


def test_duplicates_are_counted_on_both_sides() -> None:
    alignment = align(made("byte_level"), made("sentencepiece_bpe"))
    ours, theirs = alignment.duplicates
    assert (ours.side, ours.count) == ("source", 0)
    assert theirs.count > 10
    assert all(len(ids) > 1 for _, ids in theirs.examples)


# Normalisation


def test_what_only_normalisation_makes_equal_is_labelled() -> None:
    source = made("wordpiece_lower")
    tokenizer = TINY["byte_level"]()
    tokenizer.add_tokens([" The", " the", "the", "the ", "e\u0301"])
    target = vocabulary_from_tokenizer(tokenizer)
    alignment = align(source, target)
    assert alignment.match[target.id_of(" the")] == Match.BYTE
    for spelling in (" The", "the "):
        token = target.id_of(spelling)
        assert alignment.match[token] == Match.NORMALISED
        assert alignment.source_ids[token] == source.id_of("the")
        assert alignment.output_source_ids[token] == source.id_of("the")
    assert any("normalisation" in line for line in alignment.warnings)


def test_a_tokenizer_that_normalises_nothing_has_no_such_match() -> None:
    alignment = align(made("byte_level"), made("wordpiece_lower"))
    assert not (alignment.match == Match.NORMALISED).any()


# Controls


def test_controls_are_matched_by_role() -> None:
    source, target = made("sentencepiece_bpe"), made("wordpiece_lower")
    alignment = align(source, target)
    assert alignment.source_ids[target.id_of("[UNK]")] == source.id_of("<unk>")
    assert alignment.match[target.id_of("[UNK]")] == Match.CONTROL
    unmatched = {target.spellings[i] for i in alignment.unmatched_controls}
    assert unmatched == {"[PAD]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"}


def test_a_marker_of_the_same_spelling_is_a_control_match() -> None:
    source = made("byte_level")
    tokenizer = TINY["sentencepiece_bpe"]()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True)])
    target = vocabulary_from_tokenizer(tokenizer)
    alignment = align(source, target)
    token = target.id_of("<|im_start|>")
    assert alignment.match[token] == Match.CONTROL
    assert alignment.source_ids[token] == source.id_of("<|im_start|>")


def test_a_marker_is_never_matched_with_text_of_the_same_spelling() -> None:
    source = vocabulary_from_tokenizer(with_added("words", "<|im_start|>", special=False))
    tokenizer = TINY["words"]()
    tokenizer.add_tokens(["plain"])
    target = vocabulary_from_tokenizer(with_added("words", "plain", special=True))
    plain = vocabulary_from_tokenizer(tokenizer)
    assert align(plain, target).match[target.id_of("plain")] == Match.NONE
    assert align(target, plain).match[plain.id_of("plain")] == Match.NONE
    assert source.kinds[source.id_of("<|im_start|>")] == Kind.CONTROL


def with_added(name: str, spelling: str, *, special: bool) -> Tokenizer:
    tokenizer = TINY[name]()
    tokenizer.add_tokens([AddedToken(spelling, special=special)])
    return tokenizer


def test_spelling_outranks_role() -> None:
    names = config(eos="<|endoftext|>")
    source = vocabulary_from_tokenizer(TINY["byte_level"](), names)
    tokenizer = TINY["byte_level"]()
    tokenizer.add_tokens(["another"])
    target = vocabulary_from_tokenizer(tokenizer, config(eos="<|im_end|>"))
    alignment = align(source, target)
    for spelling in ("<|endoftext|>", "<|im_end|>"):
        assert alignment.source_ids[target.id_of(spelling)] == source.id_of(spelling)


def test_one_token_for_bos_and_eos_in_the_source_is_recorded() -> None:
    both = config(bos="<|endoftext|>", eos="<|endoftext|>")
    source = vocabulary_from_tokenizer(TINY["byte_level"](), both)
    target = vocabulary_from_tokenizer(TINY["sentencepiece_bpe"](), config(bos="<s>", eos="</s>"))
    alignment = align(source, target)
    assert alignment.source_ids[target.bos_id] == alignment.source_ids[target.eos_id]
    assert alignment.output_source_ids[target.eos_id] == source.eos_id
    assert alignment.output_source_ids[target.bos_id] == -1
    assert any("bos and eos" in line for line in alignment.warnings)


def test_one_token_for_bos_and_eos_in_the_target_takes_input_from_bos_and_output_from_eos() -> None:
    source = vocabulary_from_tokenizer(TINY["sentencepiece_bpe"](), config(bos="<s>", eos="</s>"))
    both = config(bos="<|endoftext|>", eos="<|endoftext|>")
    target = vocabulary_from_tokenizer(TINY["byte_level"](), both)
    alignment = align(source, target)
    assert alignment.source_ids[target.bos_id] == source.bos_id
    assert alignment.output_source_ids[target.bos_id] == source.eos_id
    assert any("output row" in line for line in alignment.warnings)


# --map


def test_a_map_outranks_everything() -> None:
    source, target = made("byte_level"), made("sentencepiece_bpe")
    alignment = align(source, target, {"<s>": "<|im_start|>", "a": "b"})
    assert alignment.source_ids[target.id_of("<s>")] == source.id_of("<|im_start|>")
    assert alignment.source_ids[target.id_of("a")] == source.id_of("b")
    assert alignment.match[target.id_of("a")] == Match.MAP


def test_a_mapped_vocabulary_is_no_identity() -> None:
    vocabulary = made("byte_level")
    alignment = align(vocabulary, vocabulary, {"a": "b"})
    assert not alignment.is_identity
    assert not alignment.is_permutation


@pytest.mark.parametrize("mapping", [{"<|im_strat|>": "a"}, {"a": "<|im_strat|>"}])
def test_a_map_of_nothing_names_the_nearest_spelling(mapping: dict[str, str]) -> None:
    with pytest.raises(UnknownNameError, match=r"<\|im_start\|>"):
        align(made("byte_level"), made("byte_level_prefix"), mapping)


# Facts


def test_number_schemes_that_differ_are_warned_of() -> None:
    alignment = align(made("byte_level"), made("byte_level_single_digits"))
    assert any("arithmetic" in line for line in alignment.warnings)


def test_the_summary_counts_every_id_once_and_is_json() -> None:
    alignment = align(made("byte_level"), made("sentencepiece_bpe"))
    summary = alignment.summary()
    parts = ("shared", "missing", "unmatched_controls", "padding")
    assert sum(summary[part] for part in parts) == summary["target_rows"]
    assert sum(summary["by_match"].values()) == summary["shared"]
    assert json.loads(json.dumps(summary)) == summary


def test_matches_can_be_taken_away() -> None:
    alignment = align(made("byte_level"), made("byte_level"))
    ids, match = alignment.source_ids.copy(), alignment.match.copy()
    ids[5], match[5] = -1, Match.NONE
    less = alignment.with_matches(ids, match, "one is gone")
    assert less.missing.tolist() == [5]
    assert less.output_source_ids[5] == -1
    assert less.warnings[-1] == "one is gone"
    assert not less.is_identity
    assert alignment.is_identity


def kept(alignment: Alignment, texts: list[str]) -> float:
    return boundaries(alignment.source, alignment.target, texts).kept


def test_boundaries_are_all_kept_by_the_same_tokenizer_and_by_finer_ones() -> None:
    texts = ["the cat sat on the mat", "größer 2048", ""]
    same = align(made("byte_level"), made("byte_level"))
    assert kept(same, texts) == 1.0
    finer = align(made("words"), made("characters"))
    assert kept(finer, ["the cat sat"]) == 1.0
    coarser = align(made("characters"), made("words"))
    assert 0 < kept(coarser, ["the cat sat"]) < 0.5
    assert kept(same, []) == 1.0


# Other people's tokenizers


def family(assets: Path, name: str) -> Vocabulary:
    for room in ("tokenizers", "models"):
        if (assets / room / name / "tokenizer.json").is_file():
            return load_vocabulary(assets / room / name)
    pytest.skip(f"no {name} among the assets")


@pytest.mark.parametrize(
    ("source", "target", "missing"),
    [
        ("stories260K", "storyllamas-4096", 3627),
        ("technical-base", "technical-donor", 6439),
        ("spm-en-1k", "stories260K", None),
        ("minimind-6400", "storyllamas-4096", None),
        ("kl3m-004-char-8k", "spm-ja-8k", None),
    ],
)
def test_real_pairs(assets: Path, source: str, target: str, missing: int | None) -> None:
    alignment = align(family(assets, source), family(assets, target))
    check(alignment)
    assert missing is None or len(alignment.missing) == missing
    ours, theirs = alignment.source, alignment.target
    for i in alignment.missing.tolist():
        pieces = ours.pieces_of(theirs.token_bytes[i] or b"")
        if ours.segmentation["byte_coverage"] == 256:
            assert pieces is not None
        assert pieces is None or ours.bytes_of(pieces) == theirs.token_bytes[i]


@pytest.mark.parametrize("name", ["storyllamas-4096", "stories260K"])
def test_both_spellings_of_a_byte_are_found_in_real_vocabularies(assets: Path, name: str) -> None:
    vocabulary = family(assets, name)
    twins = vocabulary.repeated_bytes()
    assert len(twins) == {"storyllamas-4096": 57, "stories260K": 88}[name]
    for data, ids in twins.items():
        emitted = vocabulary.emits(data)
        assert emitted is None or vocabulary.kinds[emitted] == Kind.ORDINARY
        assert vocabulary.kinds[ids[0]] == Kind.ORDINARY
