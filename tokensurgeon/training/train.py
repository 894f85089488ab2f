"""Train a vocabulary, check that it loses nothing, and write it as a folder with its card.

The folder holds a stock ``tokenizer.json`` and ``tokenizer_config.json`` that transformers loads as
they are, ``training.json`` with every fact, and ``README.md``, which says them in words. This
module reads and writes; what is counted and how is in `trainers` and `pretokenizers`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokensurgeon
from tokensurgeon.errors import CorpusError, OutputExistsError, SettingError, TokenizerError
from tokensurgeon.training.card import card
from tokensurgeon.training.corpus import Corpus, read_corpus
from tokensurgeon.training.hard_text import hard_texts
from tokensurgeon.training.pretokenizers import DIGITS, PRETOKENIZERS, check_choice, check_range
from tokensurgeon.training.trainers import METHODS, train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Progress = Callable[[int, int, str], None]

MAX_SIZE = 2_000_000
HELD_OUT_EVERY = 20
HELD_OUT_BYTES = 1_000_000
STOCK = ("bpe", "gpt2", "any")
"""The method, pre-tokenizer and digits of a plain byte-level BPE: what is printed beside."""


def no_progress(done: int, total: int, what: str) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class TrainedVocabulary:
    """A tokenizer that was trained here, and what is known of it.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
    settings : dict
        Method, size, pre-tokenizer, digits, control tokens.
    corpus : dict
        Hash, bytes, documents and files of the text given.
    figures : dict
        ``bytes_per_token`` on the held-out slice, beside ``stock_bpe_bytes_per_token`` of equal
        size; ``held_out_bytes``; ``hard_texts`` that came back unchanged; ``unused``, the share of
        tokens that the held-out slice never uses; ``longest_token`` in bytes; ``seconds``.
    versions : dict
    path : Path or None
        Where it was written.
    """

    tokenizer: Tokenizer
    settings: dict[str, Any]
    corpus: dict[str, Any]
    figures: dict[str, Any]
    versions: dict[str, str]
    path: Path | None = None

    @property
    def size(self) -> int:
        """Number of ids, control tokens included."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def fingerprint(self) -> str:
        """sha256 of tokenizer.json."""
        return hashlib.sha256(self._json().encode("utf-8")).hexdigest()

    def _json(self) -> str:
        return str(self.tokenizer.to_str(pretty=True)) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return every fact as plain values: what ``training.json`` holds."""
        return {
            "schema_version": 1,
            "sha256": self.fingerprint,
            "settings": self.settings,
            "corpus": self.corpus,
            "figures": self.figures,
            "versions": self.versions,
        }

    def config(self) -> dict[str, Any]:
        """Return what ``tokenizer_config.json`` holds."""
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
            If it is there already and `force` is not given.
        """
        output = Path(output)
        check_output(output, force)
        output.parent.mkdir(parents=True, exist_ok=True)
        files = {
            "tokenizer.json": self._json(),
            "tokenizer_config.json": _json(self.config()),
            "training.json": _json(self.to_dict()),
            "README.md": card(output.resolve().name, self.to_dict()),
        }
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        try:
            for name, text in files.items():
                (temporary / name).write_text(text, encoding="utf-8", newline="\n")
            temporary.chmod(0o755)
            _put(temporary, output, force)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return replace(self, path=output)


def train_vocabulary(
    corpus: Sequence[str | Path] | Corpus,
    *,
    method: str = "bpe",
    size: int,
    pretokenizer: str = "cl100k",
    digits: str = "left-3",
    output: str | Path | None = None,
    bos: str | None = None,
    eos: str = "<|endoftext|>",
    pad: str | None = None,
    extra_controls: Sequence[str] = (),
    field: str = "text",
    force: bool = False,
    progress: Progress = no_progress,
) -> TrainedVocabulary:
    """Train a vocabulary on text.

    Every twentieth document (or, where there are fewer than twenty, the last twentieth of the
    text) is held out: the trainer does not see it, and bytes per token are measured on it.

    Parameters
    ----------
    corpus : sequence of str or Path, or Corpus
        Files, folders or globs (see `read_corpus`), or a corpus in memory.
    method : {"bpe", "unigram", "superbpe"}
    size : int
        Number of ids, control tokens and the 256 bytes included.
    pretokenizer : {"gpt2", "cl100k", "o200k", "none"}
    digits : {"left-3", "right-3", "single", "any"}
    output : str, Path or None
        A folder to write; None keeps the result in memory.
    bos, eos, pad : str or None
        Control tokens by role; where `bos` is None, `eos` has that role too.
    extra_controls : sequence of str
        Control tokens without a role, such as chat markers.
    field : str
        The key that holds the text in JSON objects.
    force : bool
        Replace an existing output.
    progress : callable(done, total, what)

    Raises
    ------
    UsageError
        If a setting is out of range or unknown, or the output exists.
    CorpusError
        If the text cannot be read, or is too little for that size.
    TokenizerError
        If the result does not give a hard text back unchanged.
    """
    check_choice("method", method, METHODS)
    check_choice("pre-tokenizer", pretokenizer, PRETOKENIZERS)
    check_choice("digit scheme", digits, DIGITS)
    roles = {"bos": bos or eos, "eos": eos} | ({"pad": pad} if pad else {})
    controls = _distinct([*roles.values(), *extra_controls])
    check_range("size", size, 256 + len(controls) + 1, MAX_SIZE)
    if output is not None:
        check_output(Path(output), force)
    progress(0, 3, "reading")
    read = corpus if isinstance(corpus, Corpus) else read_corpus(corpus, field=field)
    training, held_out = split_held_out(read.texts)
    started = time.perf_counter()
    progress(1, 3, f"training {method}")
    tokenizer = train_tokenizer(
        training, method=method, size=size, preset=pretokenizer, digits=digits, controls=controls
    )
    seconds = time.perf_counter() - started
    progress(2, 3, "training a stock BPE to compare with")
    kept = round_trips(tokenizer)
    figures = {
        **_measure(tokenizer, held_out, size),
        "stock_bpe_bytes_per_token": _stock(tokenizer, training, held_out, size, controls)
        if (method, pretokenizer, digits) != STOCK
        else None,
        "hard_texts": kept,
        "longest_token": _longest(tokenizer, controls),
        "seconds": round(seconds, 1),
    }
    if figures["stock_bpe_bytes_per_token"] is None:
        figures["stock_bpe_bytes_per_token"] = figures["bytes_per_token"]
    trained = TrainedVocabulary(
        tokenizer=tokenizer,
        settings={
            "method": method,
            "size": size,
            "pretokenizer": pretokenizer,
            "digits": digits,
            "controls": roles,
            "extra_controls": [c for c in controls if c not in roles.values()],
        },
        corpus=read.to_dict(),
        figures=figures,
        versions=_versions(),
    )
    progress(3, 3, "trained")
    return trained if output is None else trained.write(output, force=force)


def split_held_out(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part texts into what is trained on and what is measured on.

    Raises
    ------
    CorpusError
        If nothing is left to train on.
    """
    if len(texts) >= HELD_OUT_EVERY:
        training = [t for i, t in enumerate(texts) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
        held_out = [t for i, t in enumerate(texts) if i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1]
    else:
        training, held_out = [], []
        for text in texts:
            cut = len(text) - len(text) // HELD_OUT_EVERY
            # At a line end, so that no word is cut.
            cut = text.rfind("\n", 0, cut) + 1 or cut
            training.append(text[:cut])
            held_out.append(text[cut:])
    held_out = [text for text in held_out if text]
    total = 0
    for number, text in enumerate(held_out):
        total += len(text.encode("utf-8"))
        if total > HELD_OUT_BYTES:
            held_out = held_out[: max(1, number)]
            break
    if not held_out:
        raise CorpusError(f"{sum(map(len, texts)):,} characters are too few to train on; give more")
    return training, held_out


def round_trips(tokenizer: Tokenizer) -> int:
    """Return how many hard texts come back unchanged, which is all of them.

    Raises
    ------
    TokenizerError
        If one does not: a tokenizer that loses text is never written.
    """
    for text in hard_texts():
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if tokenizer.decode(ids, skip_special_tokens=False) != text:
            raise TokenizerError(
                f"the trained tokenizer loses text: {text[:20]!r} does not come back; "
                "take another pre-tokenizer"
            )
    return len(hard_texts())


def check_output(output: Path, force: bool) -> None:
    """Refuse an output that exists, unless it may be replaced.

    Raises
    ------
    OutputExistsError
    """
    if output.exists() or output.is_symlink():
        if not force:
            raise OutputExistsError(f"{output} exists; give --force to replace it")
        if not output.is_dir() or output.is_symlink():
            raise OutputExistsError(f"{output} is no folder; remove it, or take another output")
        foreign = not (output / "tokenizer.json").exists() and any(output.iterdir())
        if foreign:
            raise OutputExistsError(
                f"{output} holds no tokenizer.json and is not replaced; take another output"
            )


def _put(temporary: Path, output: Path, force: bool) -> None:
    if not output.exists():
        temporary.rename(output)
        return
    check_output(output, force)
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent)) / "old"
    output.rename(old)
    try:
        temporary.rename(output)
    except OSError:
        old.rename(output)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _measure(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> dict[str, Any]:
    n_bytes = sum(len(text.encode("utf-8")) for text in texts)
    used: set[int] = set()
    n_tokens = 0
    for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
        n_tokens += len(encoding.ids)
        used.update(encoding.ids)
    return {
        "held_out_bytes": n_bytes,
        "held_out_tokens": n_tokens,
        "bytes_per_token": n_bytes / n_tokens,
        "unused": 1 - len(used) / size,
    }


def _stock(
    tokenizer: Tokenizer,
    training: Sequence[str],
    held_out: Sequence[str],
    size: int,
    controls: Sequence[str],
) -> float | None:
    method, preset, digits = STOCK
    try:
        stock = train_tokenizer(
            training, method=method, size=size, preset=preset, digits=digits, controls=controls
        )
    except CorpusError:
        return None  # its own cuts leave too few pairs for that many merges
    return float(_measure(stock, held_out, size)["bytes_per_token"])


def _longest(tokenizer: Tokenizer, controls: Sequence[str]) -> int:
    # In a byte-level spelling a character is a byte.
    return max(len(token) for token in tokenizer.get_vocab() if token not in controls)


def _distinct(controls: Sequence[str]) -> list[str]:
    found: list[str] = []
    for control in controls:
        if not control or control.isspace():
            raise SettingError("a control token is empty; give it a spelling such as <|endoftext|>")
        if len(control) == 1:
            raise SettingError(f"the control token {control!r} is a letter of text; spell it <…>")
        if control not in found:
            found.append(control)
    return found


def _versions() -> dict[str, str]:
    import tokenizers

    return {"tokensurgeon": tokensurgeon.__version__, "tokenizers": tokenizers.__version__}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
