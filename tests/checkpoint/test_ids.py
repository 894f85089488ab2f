"""Token ids in the configuration files move by their meaning."""

from __future__ import annotations

from typing import Any

import pytest

from tokensurgeon.checkpoint.id_keys import Form, form_of, named_ids
from tokensurgeon.checkpoint.ids import remap_configs
from tokensurgeon.errors import CheckpointError, UnsupportedCheckpointError

OLD, NEW = 100, 50
MAP: dict[int, int | None] = {1: 11, 2: 12, 3: 13, 4: None, 90: 40}


def remap(config: dict[str, Any], generation: dict[str, Any] | None = None, **options: Any) -> Any:
    settings: dict[str, Any] = {"n_old": OLD, "n_new": NEW, "id_map": MAP, "roles": {}, **options}
    return remap_configs(config, generation, **settings)


def test_sizes_change_at_every_level_that_has_the_old_one() -> None:
    config = {"vocab_size": OLD, "text_config": {"vocab_size": OLD}, "vision": {"vocab_size": 7}}
    found = remap(config).config
    assert found == {"vocab_size": NEW, "text_config": {"vocab_size": NEW},
                     "vision": {"vocab_size": 7}}  # fmt: skip
    assert config["vocab_size"] == OLD


@pytest.mark.parametrize(
    ("key", "old", "roles", "new"),
    [
        ("bos_token_id", 1, {}, 11),
        ("bos_token_id", 1, {"bos": 5}, 5),
        ("eos_token_id", 2, {"eos": 6}, 6),
        ("eos_token_id", [2, 3], {}, [12, 13]),
        ("eos_token_id", [2, 3], {"eos": 12}, [12, 13]),
        ("eos_token_id", [2, 3], {"eos": 6}, [6, 12, 13]),
        ("eos_token_id", [2, 4], {}, [12]),
        ("eos_token_id", [4], {"eos": 6}, [6]),
        ("pad_token_id", None, {"pad": 3}, None),
        ("pad_token_id", -1, {"pad": 3}, -1),
        ("pad_token_id", 4, {"pad": 3}, 3),
        ("pad_token_id", 4, {}, None),
        ("decoder_start_token_id", 1, {"bos": 5}, 11),
        ("forced_bos_token_id", 3, {}, 13),
        ("forced_eos_token_id", [2, 3], {}, [12, 13]),
        ("suppress_tokens", [1, 2, 4], {}, [11, 12]),
        ("begin_suppress_tokens", [90], {}, [40]),
        ("bad_words_ids", [[1], [2, 4], [3, 90]], {}, [[11], [13, 40]]),
        ("forced_decoder_ids", [[1, 2], [2, 4]], {}, [[1, 12]]),
        ("forced_decoder_ids", [[1, None], [2, 3]], {}, [[1, None], [2, 13]]),
        ("forced_decoder_ids", [[1, 4]], {}, None),
        ("bad_words_ids", [[4]], {}, None),
        ("stop_words_ids", [[2], [3]], {}, [[12], [13]]),
        ("force_words_ids", [[[1, 2], [4]], [[4]]], {}, [[[11, 12]]]),
        ("sequence_bias", [[[1, 2], -9.0], [[4], 2.0]], {}, [[[11, 12], -9.0]]),
        ("sequence_bias", {"(1, 2)": -9.0, "(4,)": 2.0}, {}, {"(11, 12)": -9.0}),
        ("sequence_bias", {f"({'9' * 6000},)": 1.0}, {}, None),
        ("sequence_bias", 5, {}, 5),
        ("suppress_tokens", [1, "a", None, [3]], {}, [11, "a", None, [13]]),
        ("lang_to_id", {"<|de|>": 1, "<|fr|>": 4}, {}, {"<|de|>": 11}),
        ("task_to_id", {"translate": 1, "transcribe": 3}, {}, {"translate": 11, "transcribe": 13}),
        ("text_decoder_lang_to_code_id", {"deu": 2}, {}, {"deu": 12}),
        ("id_to_text", {"2": "a", "4": "b"}, {}, {"12": "a"}),
        ("alignment_heads", [[1, 2], [3, 1]], {}, [[1, 2], [3, 1]]),
        ("suppress_tokens", [-1], {}, [-1]),
        ("suppress_tokens", [4], {}, None),
        ("prev_sot_token_id", 3, {}, 13),
        ("im_start_id", 2, {}, 12),
        ("pad_index", 4, {"pad": 3}, 3),
        ("mask_index", 2, {}, 12),
        ("t2u_pad_token_id", 1, {}, 1),
        ("vocoder_lang_code_to_id", {"deu": 2}, {}, {"deu": 2}),
        ("lang2id", {"de": 1}, {}, {"de": 1}),
        ("label2id", {"<e>": 1}, {}, {"<e>": 1}),
        ("num_assistant_tokens", 3, {}, 3),
        ("image_start_id", 1, {}, "refused"),
        ("thinking_token_id", 3, {}, 13),
        ("image_token_id", 60, {}, "refused"),
        ("num_hidden_layers", 2, {}, 2),
        ("max_new_tokens", 3, {}, 3),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "text_config"])
def test_an_id_moves_with_its_meaning(
    file: str, key: str, old: Any, roles: dict[str, int], new: Any
) -> None:
    def run() -> Any:
        if file == "generation_config.json":
            return remap({}, {key: old}, roles=roles)
        return remap({file: {key: old}} if file == "text_config" else {key: old}, roles=roles)

    if new == "refused":
        with pytest.raises(UnsupportedCheckpointError, match=key):
            run()
        return
    found = run()
    level = found.generation_config if file == "generation_config.json" else found.config
    level = level[file] if file == "text_config" else level
    if key == "eos_token_id" and old == 2 and file == "generation_config.json":
        new = [6, 12]  # the body still ends with the old token's row; both must stop it
    assert level[key] == new
    assert (found.changes == {}) == (new == old)


def test_what_is_lost_is_warned_of() -> None:
    found = remap({"pad_token_id": 4, "eos_token_id": [2, 4], "bos_token_id": 1})
    assert len(found.warnings) == 2
    assert "pad_token_id was 4" in found.warnings[0]
    assert found.changes["config.json:eos_token_id"] == [[2, 4], [12]]


def test_what_may_not_be_empty_gets_the_end() -> None:
    options: dict[str, Any] = {"needed": ("cls_token_id",), "roles": {"eos": 6}}
    found = remap({"cls_token_id": 4, "sep_token_id": 4}, **options)
    assert found.config["cls_token_id"] == 6
    assert found.config["sep_token_id"] is None
    assert "lacks that token: now 6" in found.warnings[0]
    assert "lacks that token: now null" in found.warnings[1]


def test_bos_equal_to_eos_becomes_two_and_two_become_one() -> None:
    shared = {"bos_token_id": 2, "eos_token_id": 2}
    found = remap(shared, dict(shared), roles={"bos": 12, "eos": 6})
    assert found.config == {"bos_token_id": 12, "eos_token_id": 6, "vocab_size": NEW}
    assert found.generation_config == {"bos_token_id": 12, "eos_token_id": 6}
    found = remap({"bos_token_id": 1, "eos_token_id": 2}, roles={"bos": 7, "eos": 7})
    assert found.config == {"bos_token_id": 7, "eos_token_id": 7, "vocab_size": NEW}


def test_an_id_that_stays_where_it_is_may_be_an_images() -> None:
    assert remap({"image_token_id": 3}, id_map={3: 3}).config["image_token_id"] == 3


def test_what_the_class_would_fill_in_is_remapped_too() -> None:
    found = remap({}, defaults={"eos_token_id": 2, "pad_token_id": None}, roles={"eos": 6})
    assert found.config == {"eos_token_id": 6, "vocab_size": NEW}
    assert remap({}, defaults={"eos_token_id": 2}, id_map={2: 2}).config == {"vocab_size": NEW}


def test_untying_sets_the_flag_wherever_it_counts() -> None:
    config = {"text_config": {"vocab_size": OLD}, "vision_config": {"depth": 3}}
    found = remap(config, untied=True).config
    assert found["tie_word_embeddings"] is False
    assert found["text_config"]["tie_word_embeddings"] is False
    assert "tie_word_embeddings" not in found["vision_config"]


def test_an_id_beyond_the_rows_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="50 rows"):
        remap({"eos_token_id": 2}, roles={"eos": 70})


def test_whispers_dictionaries_move_and_what_they_lose_is_named() -> None:
    generation = {
        "lang_to_id": {"<|de|>": 1, "<|fr|>": 4, "<|en|>": 2},
        "task_to_id": {"translate": 3},
        "alignment_heads": [[1, 2]],
    }
    found = remap({}, generation)
    assert found.generation_config == {
        "lang_to_id": {"<|de|>": 11, "<|en|>": 12},
        "task_to_id": {"translate": 13},
        "alignment_heads": [[1, 2]],
    }
    assert found.warnings == [
        "generation_config.json:lang_to_id lost 1 of its 3 entries, whose ids stand for no token "
        "of the target: <|fr|>"
    ]
    assert set(found.changes) == {
        "generation_config.json:lang_to_id", "generation_config.json:task_to_id",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("moved", "n_tokens", "said"),
    [
        ({10: 20, 11: 21, 12: 22}, 23, None),
        ({10: 20, 11: 22, 12: 21}, 23, "0 of the source's 2 times"),
        ({10: 20, 12: 21}, 22, "0 of the source's 1 times"),
        ({10: 20, 11: 21, 12: 22}, 30, "7 other tokens come after it"),
        ({10: 20}, 21, "0 of the source's 0 times"),
    ],
)
def test_times_have_to_follow_in_their_order(
    moved: dict[int, int], n_tokens: int, said: str | None
) -> None:
    generation = {"no_timestamps_token_id": 10}
    found = remap({}, generation, n_old=13, id_map=moved, n_tokens=n_tokens)
    assert found.generation_config == {"no_timestamps_token_id": 20}
    assert (said is None and not found.warnings) or said in found.warnings[0]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"stop_ids": [1, 2]}, "stop_ids ([1, 2])"),
        ({"turn_token": 1}, "turn_token (1)"),
        ({"head": {"speech_codes": {"<|de|>": 3}}}, "head.speech_codes ({'<|de|>': 3})"),
        ({"stop_ids": [50, 60]}, None),
        ({"a": [{"marker_id": 2}]}, "a[0].marker_id (2)"),
        ({"insert_layer_id": 1, "prompt_lookup_num_tokens": 2, "lang_id": 3}, None),
        ({"image_tokens_per_tile": 1, "max_image_tokens": 2, "speaker_id": {"a": 1}}, None),
    ],
)
def test_numbers_that_may_be_ids_are_said_and_left(config: dict[str, Any], named: str) -> None:
    found = remap(config, id_map={**MAP, 50: 50, 60: 60})
    assert {**found.config, "vocab_size": 0} == {**config, "vocab_size": 0}
    assert [named is not None and named in line for line in found.warnings] == [True] * bool(named)


def test_a_nested_vocabulary_of_another_size_keeps_its_ids() -> None:
    config = {
        "vocab_size": OLD,
        "codec": {"vocab_size": 7, "eos_token_id": 2, "more": {"pad_token_id": 1}},
        "parts": [{"eos_token_id": 2}],
    }
    found = remap(config).config
    assert found["codec"] == config["codec"]
    assert found["parts"] == [{"eos_token_id": 12}]
    assert dict(named_ids(config)) == {"parts[0].eos_token_id": [2]}


def test_every_id_is_named() -> None:
    config = {"lang_to_id": {"<|de|>": 3}, "forced_decoder_ids": [[1, None], [2, 9]],
              "sequence_bias": [[[4, 5], 1.0]], "id_to_text": {"6": "a"}, "stop_ids": [1],
              "alignment_heads": [[7, 8]]}  # fmt: skip
    assert dict(named_ids(config)) == {
        "lang_to_id": [3], "forced_decoder_ids": [9], "sequence_bias": [4, 5], "id_to_text": [6],
    }  # fmt: skip
    assert form_of("stop_ids", [1]) is Form.UNDECIDED


def test_what_a_module_needs_is_no_loss() -> None:
    """A score of a lost token, or of all tokens instead of a few, is another model."""
    others = {"1_LogitScore/config.json": {"true_token_id": 1, "false_token_id": None}}
    assert remap({}, others=others).others == {
        "1_LogitScore/config.json": {"true_token_id": 11, "false_token_id": None}
    }
    for key, value in (("true_token_id", 4), ("keep_only_token_ids", [4])):
        with pytest.raises(
            UnsupportedCheckpointError, match=r"1_M/config\.json needs the token of"
        ):
            remap({}, others={"1_M/config.json": {key: value}})
    found = remap({}, others={"processor_config.json": {"fill_token_id": 4}})
    assert found.others == {"processor_config.json": {"fill_token_id": None}}
    assert "processor_config.json:fill_token_id was 4" in found.warnings[0]


def test_what_the_outer_class_would_fill_in_is_remapped_too() -> None:
    found = remap({"text_config": {}}, outer_defaults={"end_token_id": 2, "start_token_id": 90})
    assert found.config == {
        "text_config": {"vocab_size": NEW}, "end_token_id": 12, "start_token_id": 40,
    }  # fmt: skip


def test_what_is_no_id_where_one_belongs_is_said_and_left() -> None:
    generation = {
        "eos_token_id": "1",
        "pad_token_id": True,
        "lang_to_id": {"<|de|>": "3", "<|en|>": 2},
        "forced_bos_token_id": -1,
    }
    found = remap({}, generation)
    assert found.generation_config == {**generation, "lang_to_id": {"<|de|>": "3", "<|en|>": 12}}
    assert [line.partition(" holds ")[0] for line in found.warnings] == [
        "generation_config.json:eos_token_id",
        "generation_config.json:pad_token_id",
        "generation_config.json:lang_to_id",
    ]
    assert all("is no token id: it is left as it is" in line for line in found.warnings)
