"""The tokenizer's files of a patched checkpoint: the target's, whole, and none of the source's.

Chat templates are text to be copied; none is ever rendered here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokensurgeon.checkpoint.checkpoint import Checkpoint
from tokensurgeon.checkpoint.files import check_inside, read_json, read_optional_json
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.errors import CheckpointError, UnknownNameError
from tokensurgeon.text.seen import SEEN_FILE
from tokensurgeon.vocabulary import Vocabulary

CLASS = "TokenizersBackend"
"""With any other class, or none, AutoTokenizer may rebuild the tokenizer and change its ids."""

UNBOUNDED = 1 << 40
"""No model takes so many tokens: transformers writes 10³⁰ where it knows no bound."""
_ROLES = ("bos", "eos", "unk", "pad", "sep", "cls", "mask")
_DROPPED = ("auto_map", "tokenizer_file", "vocab_file", "merges_file", "name_or_path",
            "special_tokens_map_file", "chat_template", "model_max_length", "backend",
            "is_local", "local_files_only")  # fmt: skip
"""Keys of tokenizer_config.json that say where the target came from, or are said anew."""
_MARKER = re.compile(r"<\|[^|<>\s]{1,64}\|>")
"""How most chat templates spell their control tokens."""


def tokenizer_files(plan: PatchPlan) -> tuple[dict[str, bytes], list[str]]:
    """Return the tokenizer's files by name, and warnings.

    Raises
    ------
    CheckpointError, UnknownNameError
        If the target's files or the chat template cannot be read.
    """
    target = plan.target
    folder = _folder(target)
    if folder is not None and (folder / "tokenizer.json").exists() and not target.edited:
        table = check_inside(folder, "tokenizer.json").read_bytes()
    else:
        table = str(target.tokenizer.to_str(pretty=True)).encode("utf-8")
    files = {"tokenizer.json": table}
    config = {key: value for key, value in target.raw_config.items() if key not in _DROPPED}
    for role in _ROLES:
        if f"{role}_token" not in config and role in target.roles:
            config[f"{role}_token"] = target.spellings[target.roles[role]]
    config["tokenizer_class"] = CLASS
    longest = _max_length(plan.checkpoint)
    if longest is not None:
        config["model_max_length"] = longest
    template, warnings = _template(plan)
    if isinstance(template, str):
        files["chat_template.jinja"] = template.encode("utf-8")
    elif template is not None:
        config["chat_template"] = template
    if folder is not None and (folder / "special_tokens_map.json").exists():
        special = read_json(folder, "special_tokens_map.json")
        files["special_tokens_map.json"] = json_bytes(special)
    if folder is not None and (folder / SEEN_FILE).exists():
        # So that an evaluation can refuse text that the vocabulary was trained on.
        files[SEEN_FILE] = check_inside(folder, SEEN_FILE).read_bytes()
    files["tokenizer_config.json"] = json_bytes(config)
    return files, warnings


def json_bytes(data: dict[str, Any]) -> bytes:
    """Return a JSON file of a checkpoint, indented as transformers does it."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _folder(target: Vocabulary) -> Path | None:
    if target.folder is None:
        return None
    folder = Path(target.folder)
    return folder.parent if folder.is_file() else folder


def _max_length(checkpoint: Checkpoint) -> int | None:
    stored = read_optional_json(checkpoint.path, "tokenizer_config.json") or {}
    value = stored.get("model_max_length")
    if isinstance(value, int) and 0 < value < UNBOUNDED:
        return value
    return checkpoint.max_positions


def _template(plan: PatchPlan) -> tuple[Any, list[str]]:
    """Return the chosen template (text, or transformers' list of named ones) and warnings."""
    choice = plan.chat_template
    if choice is None:
        return None, []
    if choice == "source":
        template = _stored_template(plan.checkpoint.path)
    elif choice == "target":
        folder = _folder(plan.target)
        stored = _stored_template(folder) if folder is not None else None
        template = stored or plan.target.chat_template
    else:
        try:
            template = Path(choice).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UnknownNameError(
                f"the chat template {choice!r} is neither 'source', 'target' nor a "
                "readable file; check the path"
            ) from error
    if template is None:
        return None, []
    return template, _missing_markers(template, plan)


def _stored_template(folder: Path) -> Any:
    """Return the template of a folder, from whichever place holds it."""
    if (folder / "chat_template.jinja").exists():
        path = check_inside(folder, "chat_template.jinja")
        try:
            return path.read_text(encoding="utf-8")
        except ValueError as error:
            raise CheckpointError(f"{path} is not UTF-8 text; restore the file") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        stored = read_optional_json(folder, name) or {}
        template = stored.get("chat_template")
        if isinstance(template, (str, list)):
            return template
    return None


def _missing_markers(template: Any, plan: PatchPlan) -> list[str]:
    """Warn of special tokens that a template names and the target lacks."""
    text = template if isinstance(template, str) else json.dumps(template, ensure_ascii=False)
    markers = dict.fromkeys(_MARKER.findall(text))
    stored = read_optional_json(plan.checkpoint.path, "tokenizer.json") or {}
    added = stored.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        spelling = token.get("content") if isinstance(token, dict) else None
        if isinstance(spelling, str) and len(spelling) > 2 and spelling in text:
            markers[spelling] = None
    lost = [marker for marker in markers if plan.target.id_of(marker) is None]
    if not lost:
        return []
    shown = ", ".join(lost[:8]) + (", …" if len(lost) > 8 else "")
    return [
        f"the chat template names {len(lost)} special tokens that the target tokenizer lacks "
        f"({shown}); they will be read as plain text"
    ]
