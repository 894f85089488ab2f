"""A trained vocabulary, and the folder it is written to.

The folder holds a stock ``tokenizer.json`` and ``tokenizer_config.json``, which transformers loads
without our code; ``training.json`` with all facts; ``seen.txt`` with hashes of lines it was trained
on; and ``README.md``, which states the facts in words.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer

from tokensurgeon.errors import TokenizerError
from tokensurgeon.outputs import check_folder, staged
from tokensurgeon.outputs.ownership import VOCABULARY, list_files
from tokensurgeon.outputs.paths import check_apart
from tokensurgeon.text.seen import SEEN_FILE, Seen
from tokensurgeon.trainers.mixture import CorpusLike, Part, as_parts
from tokensurgeon.trainers.vocabulary_card import card
from tokensurgeon.version import __version__
from tokensurgeon.vocabulary.hard_text import hard_texts
from tokensurgeon.vocabulary.written import check_written


@dataclass(frozen=True)
class TrainedVocabulary:
    """A trained tokenizer, and the facts about its training.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
    settings : dict
        Method, encoder, size, pre-tokenizer, digits, control tokens and the rest.
    corpus : dict
        Hash, bytes, documents, parts and files of the text given.
    figures : dict
        ``bytes_per_token`` on held-out text, and ``stock_bpe_bytes_per_token`` of a plain BPE of
        equal size; ``held_out_bytes``; ``hard_texts``, the number of them that decode to
        themselves; ``unused``, the share of tokens that the held-out text never uses;
        ``longest_token`` in bytes; ``seconds``; ``held_out_lines_seen``, the share of its longer
        lines that were trained on too; ``held_out``, all figures of `measure_vocabulary` on that
        text, and ``stock_bpe``, those of the plain BPE.
    versions : dict
    seen : Seen or None
        Hashes of lines trained on.
    chat_template : str or None
    base_config, base_files : dict or None
        tokenizer_config.json and other files of the tokenizer that this one was made from.
    path : Path or None
        The folder, once written.
    """

    tokenizer: Tokenizer
    settings: dict[str, Any]
    corpus: dict[str, Any]
    figures: dict[str, Any]
    versions: dict[str, str] = field(default_factory=lambda: versions())
    seen: Seen | None = None
    chat_template: str | None = None
    base_config: dict[str, Any] | None = None
    base_files: dict[str, str] | None = None
    path: Path | None = None

    @property
    def size(self) -> int:
        """Number of ids, control tokens included."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def fingerprint(self) -> str:
        """The sha256 of tokenizer.json."""
        return hashlib.sha256(self._json().encode("utf-8")).hexdigest()

    def _json(self) -> str:
        return str(self.tokenizer.to_str(pretty=True)) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return all facts as plain values, as in ``training.json``."""
        return {
            "schema_version": 2,
            "sha256": self.fingerprint,
            "settings": self.settings,
            "corpus": self.corpus,
            "figures": self.figures,
            "versions": self.versions,
        }

    def config(self) -> dict[str, Any]:
        """Return the content of ``tokenizer_config.json``."""
        if self.base_config is not None:
            return self.base_config
        roles = {f"{role}_token": token for role, token in self.settings["controls"].items()}
        return {
            "tokenizer_class": "TokenizersBackend",
            **roles,
            "clean_up_tokenization_spaces": False,
        }

    def write(self, output: str | Path, *, force: bool = False) -> TrainedVocabulary:
        """Write the folder: all of it, or nothing.

        Raises
        ------
        OutputExistsError
            If it exists and `force` is false, or holds anything but a vocabulary of ours.
        TokenizerError
            If the tokenizer would be refused as an input.
        """
        output = check_folder(output, force=force, kind=VOCABULARY)
        files = {
            **(self.base_files or {}),
            "tokenizer.json": self._json(),
            "tokenizer_config.json": _json(self.config()),
            "README.md": card(output.resolve().name, self.to_dict()),
        }
        if self.seen is not None:
            files[SEEN_FILE] = self.seen.to_text()
        if self.chat_template is not None:
            files["chat_template.jinja"] = self.chat_template
        with staged(output, force=force) as folder:
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
            facts = self.to_dict() | {"files": list_files(folder)}
            (folder / "training.json").write_text(_json(facts), encoding="utf-8", newline="\n")
            check_written(folder, self.tokenizer)
        return replace(self, path=output)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that train."""
    return {"tokensurgeon": __version__, "tokenizers": tokenizers.__version__}


def round_trips(tokenizer: Tokenizer) -> int:
    """Check that every hard text decodes to itself; return the number of hard texts.

    One that spells a control which takes the spaces around it along, as ModernBERT's ``[UNK]``
    does, is left out.

    Raises
    ------
    TokenizerError
        If one does not: a tokenizer that loses text is never written.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    greedy = [token.content for token in added if token.lstrip or token.rstrip]
    texts = [text for text in hard_texts() if not any(control in text for control in greedy)]
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if tokenizer.decode(ids, skip_special_tokens=False) != text:
            raise TokenizerError(
                f"the trained tokenizer loses text: {text[:20]!r} does not come back; "
                "take another pre-tokenizer"
            )
    return len(texts)


def check_output(
    output: str | Path,
    force: bool,
    corpus: CorpusLike = (),
    base: str | Path | None = None,
    kind: str = VOCABULARY,
) -> None:
    """Refuse an output that exists, unless it may be replaced, or in which something is read.

    Nor may it lie in a folder of the corpus: a later training would take it for text.

    Raises
    ------
    UsageError, OutputError
        As `tokensurgeon.outputs.check_folder`.
    """
    parts = [part for part in as_parts(corpus).values() if isinstance(part, Part)]
    patterns = [pattern for part in parts for pattern in part.patterns]
    checked = check_folder(output, force=force, keep=[*patterns, base], kind=kind)
    for pattern in patterns:
        if Path(pattern).expanduser().is_dir():
            check_apart(checked, pattern)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
