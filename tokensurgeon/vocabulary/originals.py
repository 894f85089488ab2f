"""Tokenizers in files of other libraries: SentencePiece models and tiktoken's tables of ranks.

Each is rebuilt for the tokenizers library, and compared with its own library on difficult texts.
Remaining differences are reported.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tokensurgeon.errors import MissingExtraError, TokenizerError, reason
from tokensurgeon.vocabulary.charsmap import charsmap_problem
from tokensurgeon.vocabulary.hard_text import hard_texts
from tokensurgeon.vocabulary.parts import SPACE_MARK, guarded
from tokensurgeon.vocabulary.patterns import PATTERNS
from tokensurgeon.vocabulary.quarantine import LETTERS, try_parts
from tokensurgeon.vocabulary.ranks import add_tokens, check_lengths, read_ranks
from tokensurgeon.vocabulary.reading import read_bytes
from tokensurgeon.vocabulary.token_bytes import to_alphabet
from tokensurgeon.vocabulary.vocabulary import MAX_ROWS, Vocabulary

NAMES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model", "source.spm",
         "tiktoken.model")  # fmt: skip
SUFFIXES = (".model", ".spm", ".tiktoken")
PLAIN = (
    "The quick brown fox jumps over the lazy dog.",
    " A  line  with  two  spaces, and a tab\there.\n",
    "In 2024, 1,234 people paid $5.99 (or 3 % more).",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
)
"""Ordinary texts, compared besides the hard ones."""

NEVER = -1e9
"""The score of a piece that no text may be cut into: far below any sum of log probabilities."""

Reader = Callable[[str], Sequence[Any]]


def original_of(folder: Path) -> Path | None:
    """Return the original file of a folder, or None."""
    models = [folder / name for name in NAMES if (folder / name).is_file()]
    tables = [file for file in sorted(folder.glob("*.tiktoken")) if file.is_file()]
    others = (f for f in sorted(folder.glob("*.model")) if f.is_file() and is_tiktoken(f))
    return next(chain(models, tables, others), None)


def is_tiktoken(file: Path) -> bool:
    """Return whether a file is a table of ranks, not a SentencePiece model.

    By its first line, whatever its suffix; else by its name.
    """
    with file.open("rb") as stream:
        found = re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", stream.read(400)) is not None
    return found or "tiktoken" in file.name


def load_original(
    file: Path, folder: Path | None, config: Mapping[str, Any], **beside: Any
) -> Vocabulary:
    """Rebuild a tokenizer from its original file, and compare the two.

    Parameters
    ----------
    file : Path
    folder : Path or None
        The folder that was named; None if the file itself was.
    config : mapping
        tokenizer_config.json, if there is one; for tiktoken its `pattern` says how text is cut.
    **beside
        What else its folder says, as `Vocabulary` takes it.

    Raises
    ------
    TokenizerError
        If the file is damaged, or of a kind that cannot be rebuilt.
    MissingExtraError
        If the library that reads it is not installed.
    """
    if is_tiktoken(file):
        tokenizer, roles, read, notes = from_tiktoken(file, config)
    else:
        tokenizer, roles, read, notes = from_sentencepiece(file)
    vocabulary = guarded(
        f"{file} cannot be used",
        lambda: Vocabulary(tokenizer, {**roles, **config}, folder=folder, **beside),
    )
    if read is not None:
        notes += differences(vocabulary, read, file.name)
    vocabulary.notes += tuple(notes)
    return vocabulary


def differences(vocabulary: Vocabulary, read: Reader, name: str, pieces: bool = False) -> list[str]:
    """Return a note if the original library gives other ids (or pieces) on some texts."""
    first, count, texts = "", 0, (*hard_texts(), *PLAIN)
    for text in texts:
        ours: list[Any] = vocabulary.encode(text)
        if pieces:
            ours = [vocabulary.spellings[i] for i in ours]
        try:
            theirs = list(guarded("its own library fails", partial(read, text)))
        except TokenizerError as error:
            return [f"{name}: {error} on {text[:30]!r}, so it was not compared"]
        if ours == theirs:
            continue
        count += 1
        same = takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))
        at = len(list(same))
        first = first or (
            f"such as {text[:30]!r}, from token {at}: {ours[at : at + 3]} instead of "
            f"{theirs[at : at + 3]}"
        )
    if not count:
        return []
    what = "pieces" if pieces else "ids"
    return [f"{name}: its own library gives other {what} on {count} of {len(texts)} texts, {first}"]


def from_sentencepiece(file: Path) -> tuple[Tokenizer, dict[str, Any], Reader, list[str]]:
    """Rebuild a SentencePiece model; return its tokenizer, its roles, its own reader and notes."""
    model, reader = open_sentencepiece(file)
    trainer, rules = model.trainer_spec, model.normalizer_spec
    kinds = type(model).SentencePiece
    pieces = [(p.piece, float(p.score), int(p.type)) for p in model.pieces]
    if not 0 < len(pieces) < MAX_ROWS:
        raise TokenizerError(f"{file} has {len(pieces)} pieces; restore the file")
    if not all(isinstance(text, str) for text, _, _ in pieces):  # bytes, where they are not UTF-8
        raise TokenizerError(f"{file} has a piece that is not UTF-8; restore the file")
    check_lengths(file, (text.encode() for text, _, _ in pieces))
    unknown = next((i for i, p in enumerate(pieces) if p[2] == kinds.UNKNOWN), None)
    fallback = any(kind == kinds.BYTE for _, _, kind in pieces)
    notes: list[str] = []
    if trainer.model_type == 1:
        highest = max((score for _, score, kind in pieces if kind == kinds.NORMAL), default=0.0)
        table = [(text, _score(text, score, kind, highest, kinds)) for text, score, kind in pieces]
        tokenizer = Tokenizer(models.Unigram(table, unknown, fallback))
    elif trainer.model_type in (2, 4):
        ids = {text: i for i, (text, _, _) in enumerate(pieces)}
        scores = {t: -s for t, s, kind in pieces if kind == kinds.NORMAL}
        merges = _merges(scores) if trainer.model_type == 2 else []
        unk = None if unknown is None else pieces[unknown][0]
        bpe = models.BPE(ids, merges, unk_token=unk, fuse_unk=True, byte_fallback=fallback)
        tokenizer = Tokenizer(bpe)
        if any(kind == kinds.USER_DEFINED for _, _, kind in pieces):
            notes.append(f"{file.name}: symbols that its maker defined are cut out of text first")
    else:
        raise TokenizerError(
            f"{file} is a model of words, which is not rebuilt; give a tokenizer.json"
        )
    tokenizer.normalizer = normalizers.Sequence(_normalizers(rules))
    steps = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if rules.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    special = [t for t, _, kind in pieces if kind in (kinds.CONTROL, kinds.UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    if trainer.model_type != 1:
        own = [t for t, _, kind in pieces if kind == kinds.USER_DEFINED]
        tokenizer.add_tokens([AddedToken(t, normalized=False) for t in own])
    ids_of_roles = {role: getattr(reader, f"{role}_id")() for role in ("bos", "eos", "unk", "pad")}
    named = {role: i for role, i in ids_of_roles.items() if 0 <= i < len(pieces)}
    roles = {f"{role}_token": pieces[i][0] for role, i in named.items()}
    return tokenizer, roles, reader.encode, notes


def open_sentencepiece(file: Path) -> tuple[Any, Any]:
    """Return a SentencePiece model as its protobuf message and as its own processor.

    Raises
    ------
    TokenizerError
        If the file is no SentencePiece model.
    MissingExtraError
        If sentencepiece or protobuf is not installed.
    """
    lacking = [name for name in ("sentencepiece", "google.protobuf") if not installed(name)]
    if lacking:
        raise MissingExtraError(
            f"{file} needs {' and '.join(lacking)}; run: pip install sentencepiece protobuf"
        )
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2
    data = read_bytes(file)
    try:
        model = messages.ModelProto.FromString(data)
        for rules in (model.normalizer_spec, model.denormalizer_spec):
            problem = rules.precompiled_charsmap and charsmap_problem(rules.precompiled_charsmap)
            if problem:
                raise TokenizerError(f"{file}: its charsmap {problem}; restore the file")
        reader = sentencepiece.SentencePieceProcessor(model_proto=data)
    except TokenizerError:
        raise
    except Exception as error:  # whatever the message parser or the library raises
        raise TokenizerError(
            f"{file} is no SentencePiece model: {reason(error)}; restore the file"
        ) from error
    return model, reader


def _score(text: str, score: float, kind: int, highest: float, kinds: Any) -> float:
    """Return the score of a piece, as SentencePiece computes it.

    A user-defined symbol scores by its length; controls and bytes are never found in a text.
    """
    if kind == kinds.NORMAL:
        return score
    if kind != kinds.USER_DEFINED:
        return NEVER
    return len(text.encode()) * highest - 0.1


def _normalizers(rules: Any) -> list[Any]:
    """Return the normalisation that SentencePiece applies before it cuts."""
    steps: list[Any] = []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [
            normalizers.Replace(Regex("^ +| +$"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    if rules.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE_MARK))
    if rules.escape_whitespaces:
        steps.append(normalizers.Replace(" ", SPACE_MARK))
    return steps


def _merges(ranks: Mapping[Any, float]) -> list[tuple[Any, Any]]:
    """Return every pair of tokens that join to a third, ordered by the rank of that one."""
    merges = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ranks and right in ranks:
                merges.append((rank, ranks[left], ranks[right], left, right))
    merges.sort(key=lambda merge: merge[:3])
    return [(left, right) for *_, left, right in merges]


def from_tiktoken(
    file: Path, config: Mapping[str, Any]
) -> tuple[Tokenizer, dict[str, Any], Reader | None, list[str]]:
    """Rebuild a table of ranks as a byte-level BPE."""
    ranks = read_ranks(file)
    pattern, notes = config.get("pattern"), []
    if not isinstance(pattern, str):
        stem = file.name.replace("r50k", "gpt2").replace("p50k", "gpt2")
        name = next((name for name in PATTERNS if stem.startswith(name)), "")
        pattern = PATTERNS[name or "cl100k"]
        if not name:
            notes.append(
                f"{file.name} does not say how text is cut before ranks count; cl100k's pattern is "
                "taken (tokenizer_config.json may name another as 'pattern')"
            )
    merges = [(to_alphabet(a), to_alphabet(b)) for a, b in _merges(ranks)]
    ids = {to_alphabet(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(ids, merges, ignore_merges=True))
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    try_parts(str(file), {"pre_tokenizer": cut})
    try:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
    except Exception as error:
        raise TokenizerError(
            f"the pattern of {file} cannot be read: {reason(error)}; correct it"
        ) from error
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    notes += add_tokens(tokenizer, file.parent, config.get("added_tokens_decoder"))
    why = _not_comparable(ranks, pattern)
    if why is not None:
        notes.append(f"{file.name} was not compared with tiktoken, which {why}")
        return tokenizer, {}, None, notes
    import tiktoken

    own = guarded(
        f"tiktoken cannot open {file}",
        lambda: tiktoken.Encoding(
            file.stem, pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
        ),
    )
    return tokenizer, {}, own.encode_ordinary, notes


def _not_comparable(ranks: Mapping[bytes, int], pattern: str) -> str | None:
    """Return why tiktoken cannot read a table with a pattern; it would panic."""
    if not installed("tiktoken"):
        return "is not installed"
    lacking = 256 - sum(bytes([byte]) in ranks for byte in range(256))
    if lacking:
        return f"needs all bytes; of the 256 the table lacks {lacking}"
    marked = normalizers.Replace(Regex(pattern), "|")
    if any(len(marked.normalize_str(letter)) > 1 for letter in LETTERS):
        return f"fails on the pattern {pattern[:40]!r}, for it matches the empty text"
    return None


def installed(name: str) -> bool:
    """Say whether a package can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
