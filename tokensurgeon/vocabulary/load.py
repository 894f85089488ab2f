"""Loads a vocabulary from a folder, a tokenizer.json or the hub's cache.

The file is checked as JSON before the tokenizers library reads it. The loaded ids are compared with
those in the file, because that library renumbers added tokens without a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary.hub import is_name, snapshot
from tokensurgeon.vocabulary.originals import (
    NAMES,
    SUFFIXES,
    differences,
    is_tiktoken,
    load_original,
    open_sentencepiece,
    original_of,
)
from tokensurgeon.vocabulary.parts import guarded
from tokensurgeon.vocabulary.quarantine import try_in_child
from tokensurgeon.vocabulary.reading import (
    read_bytes,
    read_json,
    read_optional_json,
    read_template,
)
from tokensurgeon.vocabulary.vocabulary import MAX_ROWS, Vocabulary, most_rows

CONFIG = "tokenizer_config.json"
LISTS = ("vocab.json", "merges.txt", "vocab.txt")
"""Files of a tokenizer without tokenizer.json, which transformers converts."""
_HUB_FILES = [
    "tokenizer.json",
    CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    *NAMES,
    "*.tiktoken",
    *LISTS,
]


def load_vocabulary(path: str | Path) -> Vocabulary:
    """Load the tokenizer of a folder, of a tokenizer.json, or of a model on the hub.

    Parameters
    ----------
    path : str or Path
        A folder with tokenizer.json, such a file itself, or a hub id (the local cache is searched
        first), which may name a revision: ``org/model@v2``. A SentencePiece model or a tiktoken
        file is rebuilt and compared with its own library, and `Vocabulary.notes` says what differs.
        A folder of vocab files is converted by transformers.

    Raises
    ------
    TokenizerError
        If there is no tokenizer, or it cannot be read, or its ids are inconsistent.
    """
    if not str(path).strip():
        raise TokenizerError("the tokenizer has an empty name; give its folder, file or model id")
    location = Path(path).expanduser()
    if location.is_file():
        if location.suffix in SUFFIXES:
            return load_original(location, None, **_beside(location.parent))
        if location.suffix not in (".json", ""):  # a hub's cache names files by their hash alone
            raise TokenizerError(
                f"{path} is no tokenizer file; give a tokenizer's folder, or a file "
                f"{', '.join(('.json', *sorted(SUFFIXES)))}"
            )
        return _from_file(location, location.parent)
    if not location.is_dir():
        if not is_name(str(path)):
            raise TokenizerError(
                f"{path} is neither a folder, a tokenizer.json nor a hub id; check the path"
            )
        location = _from_hub(str(path))
    file = location / "tokenizer.json"
    if file.is_file():
        return _from_file(file, location)
    has_lists = any((location / name).is_file() for name in ("vocab.json", "vocab.txt"))
    if has_lists or original_of(location) is not None:
        return _converted(location)
    code = next(iter(sorted(location.glob("tokenization_*.py"))), None)
    only = "" if code is None else f", only {code.name}, which is code and never run"
    raise TokenizerError(
        f"{location} has no tokenizer.json, SentencePiece model, tiktoken file, vocab.json or "
        f"vocab.txt{only}; save one there with tokenizer.save_pretrained(folder)"
    )


def vocabulary_from_tokenizer(
    tokenizer: Tokenizer, config: Mapping[str, Any] | None = None
) -> Vocabulary:
    """Return the vocabulary of a tokenizer in memory; the tokenizer itself is not changed.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    config : mapping, optional
        What tokenizer_config.json would say: `bos_token`, `eos_token`, `chat_template`, ...

    Raises
    ------
    TokenizerError
        If it has no tokens or its ids are inconsistent.
    """
    copy = guarded("the tokenizer cannot be copied", lambda: Tokenizer.from_str(tokenizer.to_str()))
    return guarded("the tokenizer cannot be used", lambda: Vocabulary(copy, config))


def _from_file(file: Path, folder: Path) -> Vocabulary:
    document = read_json(file)
    check_document(document, str(file))
    try_in_child(file, document)
    tokenizer = guarded(
        f"{file} cannot be loaded and must be restored", lambda: Tokenizer.from_file(str(file))
    )
    for token in document.get("added_tokens") or []:
        loaded = tokenizer.token_to_id(token["content"])
        if loaded != token["id"]:
            raise TokenizerError(
                f"{file}: added token {token['content'][:40]!r} has the id {token['id']} in the "
                f"file and {loaded} once loaded; fill the holes before it, or correct its id"
            )
    beside = _beside(folder)
    vocabulary = guarded(
        f"{file} cannot be used", lambda: Vocabulary(tokenizer, folder=folder, **beside)
    )
    # The folder may hold another tokenizer under the name that its readers look for.
    vocabulary.edited |= file.name != "tokenizer.json"
    return vocabulary


def _beside(folder: Path) -> dict[str, Any]:
    """Return what the other files of a folder say, as `Vocabulary` takes it."""
    return {
        "config": read_optional_json(folder / CONFIG),
        "special_tokens_map": read_optional_json(folder / "special_tokens_map.json"),
        "chat_template": read_template(folder),
    }


def check_document(document: Mapping[str, Any], name: str) -> None:
    """Refuse a tokenizer.json with ids that cannot be right.

    Raises
    ------
    TokenizerError
        If there is no model, or an id is negative, not a number, past 10 million or used twice,
        or an added token is empty.
    """
    model = document.get("model")
    table = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(table, (dict, list)):
        raise TokenizerError(
            f"{name} has no model vocabulary; it is not a tokenizer.json; restore the file"
        )
    added = document.get("added_tokens") or []
    if not isinstance(added, list):
        raise TokenizerError(f"{name} has added tokens that are no list; restore the file")
    if len(table) >= MAX_ROWS:
        raise TokenizerError(f"{name} has {len(table)} tokens; more than {MAX_ROWS} are refused")
    if isinstance(table, list):
        if not all(isinstance(p, list) and p and isinstance(p[0], str) for p in table):
            raise TokenizerError(f"{name} has a piece without text; restore the file")
        entries: list[tuple[str, Any]] = [(piece[0], i) for i, piece in enumerate(table)]
    else:
        entries = list(table.items())
    model_ids = dict(entries)
    added_ids: dict[str, Any] = {}
    for token in added:
        spelling = token.get("content") if isinstance(token, dict) else None
        if not isinstance(spelling, str) or not spelling:
            raise TokenizerError(f"{name} has an added token without content; remove it")
        token_id = token.get("id")
        if spelling in added_ids:
            raise TokenizerError(
                f"{name} lists the added token {spelling[:40]!r} twice, with the ids "
                f"{str(added_ids[spelling])[:20]} and {str(token_id)[:20]}; remove one of the two"
            )
        added_ids[spelling] = token_id
        if type(token_id) is not int or model_ids.get(spelling) != token_id:
            entries.append((spelling, token_id))
    ids: dict[int, str] = {}
    for spelling, token_id in entries:
        if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
            raise TokenizerError(
                f"{name}: token {spelling[:40]!r} has the id {str(token_id)[:40]!r}, "
                "which is not an id; correct it"
            )
        if token_id >= most_rows(len(entries)):
            raise TokenizerError(
                f"{name}: token {spelling[:40]!r} has the id {str(token_id)[:40]}; "
                f"correct it, for ids of {len(entries)} tokens are below {most_rows(len(entries))}"
            )
        if token_id in ids:
            raise TokenizerError(
                f"{name}: {ids[token_id][:40]!r} and {spelling[:40]!r} both have the id "
                f"{token_id}; give every token its own"
            )
        ids[token_id] = spelling


def _from_hub(name: str) -> Path:
    import huggingface_hub

    error: Exception | None = None
    for local_only in (True, False):
        try:
            folder = snapshot(name, _HUB_FILES, local_only=local_only)
        except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as caught:
            error = caught
            continue
        if (folder / "tokenizer.json").is_file() or original_of(folder) is not None:
            return folder
    raise TokenizerError(
        f"{name} is not a folder here, and the hub has no tokenizer of that name within reach; "
        "check the path"
    ) from error


def _converted(folder: Path) -> Vocabulary:
    """Load a folder without tokenizer.json: from its original file, or through transformers.

    If the folder names a tokenizer class, that class may have ids of its own. Then transformers
    converts it, and its pieces instead of its ids are compared with SentencePiece.
    """
    beside, original = _beside(folder), original_of(folder)
    named = "tokenizer_class" in beside["config"] or (folder / "config.json").is_file()
    if original is not None and (not named or is_tiktoken(original)):
        return load_original(original, folder, **beside)
    reader = None if original is None else open_sentencepiece(original)[1]
    for name in LISTS:
        if (folder / name).exists():
            read_bytes(folder / name)  # within its bound: the converter reads all of it
    import transformers

    loaded = guarded(
        f"{folder} has no tokenizer.json, and transformers cannot convert its other files, which "
        "must be restored",
        lambda: transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False),
    )
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise TokenizerError(
            f"{folder} holds a slow tokenizer only; convert it to tokenizer.json first"
        )
    copy = guarded(f"{folder} cannot be copied", lambda: Tokenizer.from_str(backend.to_str()))
    vocabulary = Vocabulary(copy, folder=folder, **beside)
    if original is not None and reader is not None:
        read = partial(reader.encode, out_type=str)
        vocabulary.notes += tuple(differences(vocabulary, read, original.name, pieces=True))
    return vocabulary
