"""Token ids in the configuration files move by their meaning."""

from __future__ import annotations

from typing import Any

import pytest

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
