"""The tokenizer's files of a patched checkpoint: the target's, with what the model expects.

Tokens, normalisation and merges are the target's. What the model was trained to get around them is
the source's: which inputs it takes, the side of padding, type ids of pairs, whether texts end with
a token. Each such decision is listed, and told where it changes what either side did.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tokensurgeon.checkpoint import encodings
from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.around_text import settle_around
from tokensurgeon.checkpoint.chat_template import BESIDE, choose_template
from tokensurgeon.checkpoint.checkpoint import Checkpoint
from tokensurgeon.checkpoint.files import check_inside, read_json, read_optional_json
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.checkpoint.tokenizer_methods import GENERIC, own_methods
from tokensurgeon.checkpoint.tokenizer_record import TokenizerFiles
from tokensurgeon.checkpoint.verify import difference_from
from tokensurgeon.text.seen import SEEN_FILE
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts
from tokensurgeon.vocabulary.parts import guarded

UNBOUNDED = 1 << 40
"""No model takes so many tokens: transformers writes 10³⁰ where it knows no bound."""
DROPPED = ("auto_map", "tokenizer_file", "vocab_file", "merges_file", "name_or_path",
            "special_tokens_map_file", "chat_template", "model_max_length", "backend",
            "is_local", "local_files_only", "processor_class", *BESIDE)  # fmt: skip
"""Keys of tokenizer_config.json that say where the target came from, or are said anew."""
_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
"""Inputs that a text alone gives; boxes and entities need the class that makes them."""
_SIDES = ("padding_side", "truncation_side")


def tokenizer_files(plan: PatchPlan) -> TokenizerFiles:
    """Return the tokenizer's files by name, with what was decided.

    Raises
    ------
    CheckpointError, UnknownNameError
        If the target's files or the chat template cannot be read.
    """
    target, folder = plan.target, _folder(plan.target)
    result = TokenizerFiles({}, _config(target))
    result.source = encodings.load(plan.checkpoint.path)
    result.target = _as_users_read(target, folder, result)
    _keep_roles(result, target)
    _keep_settings(result, plan)
    result.files["tokenizer.json"] = _table(result, plan, folder)
    chosen = choose_template(plan, folder)
    result.chat_template = chosen.template
    if chosen.origin == "target" and folder is not None and result.target is not None:
        result.template_folder = folder
    result.decide("chat template", "none" if chosen.template is None else "copied", chosen.origin,
                  *chosen.warnings)  # fmt: skip
    result.config |= chosen.beside
    if isinstance(chosen.template, str):
        result.files["chat_template.jinja"] = chosen.template.encode("utf-8")
    elif chosen.template is not None:
        result.config["chat_template"] = chosen.template
    if folder is not None and (folder / "special_tokens_map.json").exists():
        special = read_json(folder, "special_tokens_map.json")
        result.files["special_tokens_map.json"] = json_bytes(special)
    # So that an evaluation can refuse text that the vocabulary was trained on.
    if SEEN_FILE in target.carried:
        result.files[SEEN_FILE] = target.carried[SEEN_FILE]
    elif folder is not None and (folder / SEEN_FILE).exists():
        result.files[SEEN_FILE] = check_inside(folder, SEEN_FILE).read_bytes()
    return result


def _table(files: TokenizerFiles, plan: PatchPlan, folder: Path | None) -> bytes:
    """Return tokenizer.json: the target's byte for byte, unless what is around texts changes."""
    target = plan.target
    if folder is not None and _has_file(target, folder):
        table = check_inside(folder, "tokenizer.json").read_bytes()
    else:
        table = str(target.tokenizer.to_str(pretty=True)).encode("utf-8")
    post = settle_around(files, plan, _post_processor(target, folder, files.target))
    if post == part_of(target.tokenizer.post_processor):
        return table
    if files.target is not None:
        files.target.backend_tokenizer.post_processor = _post_processor_of(post)
    return json_bytes({**json.loads(table), "post_processor": post})


def json_bytes(data: dict[str, Any]) -> bytes:
    """Return a JSON file of a checkpoint, indented as transformers does it."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _folder(target: Vocabulary) -> Path | None:
    if target.folder is None:
        return None
    folder = Path(target.folder)
    return folder.parent if folder.is_file() else folder


def _has_file(target: Vocabulary, folder: Path) -> bool:
    """Say whether the target is the file tokenizer.json of its folder, and not one beside it."""
    file = folder / "tokenizer.json"
    if target.edited or not file.exists():
        return False
    table = guarded(f"{file} cannot be loaded", lambda: Tokenizer.from_file(str(file)).get_vocab())
    return bool(table == target.tokenizer.get_vocab())


def _config(target: Vocabulary) -> dict[str, Any]:
    """Return the target's own tokenizer_config.json, with a token for each of its roles."""
    config = {key: value for key, value in target.raw_config.items() if key not in DROPPED}
    for role in encodings.ROLES:
        if f"{role}_token" not in config and role in target.roles:
            config[f"{role}_token"] = target.spellings[target.roles[role]]
    config["tokenizer_class"] = GENERIC
    return config


def _as_users_read(target: Vocabulary, folder: Path | None, files: TokenizerFiles) -> Any:
    """Return the target as AutoTokenizer gives it; None, and a line, where that has other ids."""
    if folder is None or target.edited:
        return None
    loaded = encodings.load(folder)
    different = None if loaded is None else reads_otherwise(loaded, target)
    if different is None:
        return loaded
    same_class = files.source is not None and type(files.source) is type(loaded)
    if (same_class and own_methods(loaded)) or not _has_file(target, folder):
        return None  # the line on the source's class says it, or the target is another file
    files.warnings.append(
        f"AutoTokenizer reads the target's folder otherwise than its tokenizer.json ({different}); "
        "the file counts here"
    )
    return None


def _keep_roles(files: TokenizerFiles, target: Vocabulary) -> None:
    """Take the tokens that a class fills in where the target's configuration is silent.

    A role that was read from the target's own file stays as it was read there, for the model's
    configuration names its id.
    """
    for role in encodings.ROLES:
        key = f"{role}_token"
        token = getattr(files.target, key, None)
        if token is None or target.id_of(str(token)) is None:
            files.uncompared.append(key)
        elif key not in files.config:
            files.config[key] = str(token)
        elif key not in target.raw_config and files.config[key] != str(token):
            files.uncompared += [key, *([encodings.PADDED] if role == "pad" else [])]


def _keep_settings(files: TokenizerFiles, plan: PatchPlan) -> None:
    """Take from the source what concerns its model: inputs, sides of padding, longest text."""
    source, config = files.source, files.config
    chosen: dict[str, Any] = {}
    if source is not None:
        chosen = {side: str(getattr(source, side)) for side in _SIDES}
        inputs = [name for name in source.model_input_names if name in _INPUTS]
        chosen["model_input_names"] = inputs or ["input_ids", "attention_mask"]
    longest = _max_length(plan.checkpoint)
    if longest is not None:
        chosen["model_max_length"] = longest
    stored = read_optional_json(plan.checkpoint.path, "tokenizer_config.json") or {}
    if "processor_class" in stored:
        chosen["processor_class"] = stored["processor_class"]
    for name, value in chosen.items():
        config[name] = value
        files.decide(name, value, "source")
        if files.target is not None:
            setattr(files.target, name, value)
    files.uncompared += [name for name in ("model_max_length",) if name not in chosen]


def _max_length(checkpoint: Checkpoint) -> int | None:
    stored = read_optional_json(checkpoint.path, "tokenizer_config.json") or {}
    value = stored.get("model_max_length")
    if isinstance(value, int) and 0 < value < UNBOUNDED:
        return value
    return checkpoint.max_positions


def _post_processor(target: Vocabulary, folder: Path | None, as_read: Any) -> Any:
    """Return the target's post-processor; its class makes one where there is no tokenizer.json."""
    no_file = folder is not None and not (folder / "tokenizer.json").exists()
    backend = getattr(as_read, "backend_tokenizer", None) if no_file else None
    return part_of((target.tokenizer if backend is None else backend).post_processor)


def part_of(part: Any) -> Any:
    """Return a part of a tokenizer as tokenizer.json has it."""
    return None if part is None else json.loads(part.__getstate__())


def _post_processor_of(post: Any) -> Any:
    """Return what tokenizer.json says of a post-processor, as the tokenizers library has it."""
    model = {"type": "BPE", "vocab": {}, "merges": []}
    small = {"version": "1.0", "added_tokens": [], "model": model, "post_processor": post}
    return Tokenizer.from_str(json.dumps(small)).post_processor


def reads_otherwise(tokenizer: Any, target: Vocabulary) -> str | None:
    """Say what a tokenizer of transformers reads otherwise than the target, on hard texts."""
    with internals.quiet():
        different = encodings.tried(lambda: difference_from(tokenizer, target, hard_texts()))
    if isinstance(different, encodings.Failed):  # layout models take words with their boxes
        return f"{type(tokenizer).__name__} takes no plain text: {different}"
    return None if different is None else str(different)
