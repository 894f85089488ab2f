"""Which class of transformers a patched checkpoint's tokenizer names, so that nothing is lost.

Most classes only build what tokenizer.json holds; TokenizersBackend reads that file as it is. Some
have methods of their own (languages of translation, Whisper's timestamps): these are kept where
their class gives the very encodings that are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokensurgeon.checkpoint import encodings
from tokensurgeon.checkpoint.files import read_optional_json
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.checkpoint.tokenizer_files import (
    DROPPED,
    json_bytes,
    part_of,
    reads_otherwise,
)
from tokensurgeon.checkpoint.tokenizer_methods import (
    GENERIC,
    class_name,
    is_special,
    own_methods,
)
from tokensurgeon.checkpoint.tokenizer_record import TokenizerFiles
from tokensurgeon.vocabulary import Vocabulary

_SHOWN = 4
"""Most methods that a line names."""


@dataclass
class Candidate:
    """A class that may be written.

    Attributes
    ----------
    name : str
    origin : str
        Whose it is: ``"source"`` or ``"target"``.
    wanted : dict
        Whole encodings that it has to give.
    settings : dict
        Keys of tokenizer_config.json that it needs besides.
    uncompared : list of str
        Fields of these that do not count.
    """

    name: str
    origin: str
    wanted: encodings.Fields
    settings: dict[str, Any] = field(default_factory=dict)
    uncompared: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tried:
    """A folder loaded with a class named.

    Attributes
    ----------
    loaded : tokenizer of transformers, or None
    fields : dict
        Its whole encodings.
    why : str or None
        Why it will not do.
    """

    loaded: Any
    fields: encodings.Fields
    why: str | None = None


def what_is_lost(before: Any, written: Any) -> list[str]:
    """Return the own methods of a tokenizer's class that another one lacks."""
    return [name for name in own_methods(before) if name not in own_methods(written)]


def lost_line(before: Any, whose: str, lost: list[str], why: str) -> str:
    """Say that a class is not kept, why, and what its users will miss."""
    more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    return (
        f"the {whose}'s tokenizer class {class_name(before)} is not kept, for {why}; "
        f"what it alone can do is lost: {', '.join(lost[:_SHOWN])}{more}; do that in your own code"
    )


def settle_class(files: TokenizerFiles, plan: PatchPlan, folder: Path) -> str | None:
    """Choose the class in a folder that the files were written to, and write the configuration.

    The class of the source is kept where it has methods of its own and reads the new files right,
    else that of the target where it gives the same encodings as before, else the one that reads
    tokenizer.json as it is.

    Returns
    -------
    str or None
        The first field that users would get otherwise than from the target's folder.
    """
    refused: dict[str, str] = {}
    for candidate in _candidates(files, plan):
        tried = try_class(folder, files.config, candidate, plan.target)
        why = tried.why
        if why is None and candidate.origin == "source":
            why = _unlike_source(tried.loaded, files.source)
        if why is None:
            _finish(files, candidate.name, candidate.origin, tried, refused)
            return None
        refused[candidate.name] = why
    tried = _load_as(folder, files.config, GENERIC)
    told = _finish(files, GENERIC, "tokenizer.json", tried, refused)
    if files.target is None or tried.loaded is None:
        return None  # no encodings of before, or no tokenizer: told by the comparison of ids
    # What only the lost class did has been told.
    left_out = [*files.uncompared, *((encodings.LANGUAGES, encodings.DECODED) if told else ())]
    wanted = encodings.whole_encodings(files.target)
    different = encodings.difference(wanted, tried.fields, left_out)
    return different and f"{type(tried.loaded).__name__} gives {different}"


def _finish(
    files: TokenizerFiles, name: str, origin: str, tried: Tried, refused: dict[str, str]
) -> bool:
    """Note which class was written, and say which methods are lost; return whether any are."""
    files.fields = tried.fields
    files.decide("tokenizer class", name, origin)
    told: set[str] = set()
    for whose, before in (("source", files.source), ("target", files.target)):
        lost = what_is_lost(before, tried.loaded) if is_special(before) else []
        if lost and class_name(before) not in told:
            told.add(class_name(before))
            why = refused.get(class_name(before), f"the target's is {name}")
            files.warnings.append(lost_line(before, whose, lost, why))
    return bool(told)


def _candidates(files: TokenizerFiles, plan: PatchPlan) -> Iterable[Candidate]:
    """Yield the classes to try, the ones with methods that the model's users call first."""
    source, target = files.source, files.target
    same = target is not None and class_name(source) == class_name(target)
    if is_special(source) and own_methods(source) and not same:
        stored = read_optional_json(plan.checkpoint.path, "tokenizer_config.json") or {}
        settings = {
            key: _known_tokens(key, value, plan.target)
            for key, value in stored.items()
            if key not in (*files.config, *DROPPED, "added_tokens_decoder")
        }
        settings = {key: value for key, value in settings.items() if value is not None}
        yield Candidate(class_name(source), "source", {}, settings)
    if is_special(target):
        wanted = encodings.whole_encodings(target)
        yield Candidate(class_name(target), "target", wanted, uncompared=files.uncompared)


def _known_tokens(key: str, value: Any, target: Vocabulary) -> Any:
    """Return a setting of the source; of tokens only those that the target has, else None."""
    if key.endswith("_tokens") and isinstance(value, list):
        return [one for one in value if _known_tokens("_token", one, target) is not None]
    if key.endswith("_tokens") and isinstance(value, dict):
        return {k: v for k, v in value.items() if _known_tokens("_token", v, target) is not None}
    spelling = value.get("content") if isinstance(value, dict) else value
    if key.endswith("_token") and isinstance(spelling, str) and target.id_of(spelling) is None:
        return None
    return value


def _unlike_source(loaded: Any, source: Any) -> str | None:
    """Say what the source's class puts around a text otherwise than it did in the source."""
    for language in [None, *encodings.languages(source)]:
        if language is not None and not all(
            encodings.set_language(tokenizer, language) for tokenizer in (source, loaded)
        ):
            return f"it cannot be set to {language}"
        before, after = (
            [_spelled(tokenizer, ids) for ids in encodings.around(tokenizer)]
            for tokenizer in (source, loaded)
        )
        if before != after:
            return f"it puts {after} around a text and not {before}"
    return None


def _spelled(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    return [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]


def try_class(
    folder: Path, config: dict[str, Any], candidate: Candidate, target: Vocabulary,
) -> Tried:  # fmt: skip
    """Load a folder as AutoTokenizer would with a class named, and hold it against what is wanted.

    Parameters
    ----------
    folder : Path
        With config.json and tokenizer.json; its tokenizer_config.json is overwritten.
    config : dict
        tokenizer_config.json without a class.
    candidate : Candidate
    target : Vocabulary
    """
    tried = _load_as(folder, {**config, **candidate.settings}, candidate.name)
    loaded = tried.loaded
    if loaded is None:
        return replace(tried, why="AutoTokenizer cannot load it with these files")
    if class_name(loaded) != candidate.name:
        return replace(tried, why=f"AutoTokenizer loads {type(loaded).__name__} instead")
    different = reads_otherwise(loaded, target)
    if different is None:
        different = encodings.difference(candidate.wanted, tried.fields, candidate.uncompared)
    if different is None and not own_methods(loaded):
        different = _other_parts(loaded, target)
    if different is None:
        return tried
    return replace(tried, why=f"it reads the new files otherwise ({different})")


def _load_as(folder: Path, config: dict[str, Any], name: str) -> Tried:
    """Write tokenizer_config.json with a class, and load the folder."""
    data = json_bytes({**config, "tokenizer_class": name})
    (folder / "tokenizer_config.json").write_bytes(data)
    loaded = encodings.load(folder)
    return Tried(loaded, {} if loaded is None else encodings.whole_encodings(loaded))


def _other_parts(tokenizer: Any, target: Vocabulary) -> str | None:
    """Name a part that a class builds otherwise than the file has it.

    Texts that were not tried might then be read otherwise.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        if part_of(getattr(backend, name, None)) != part_of(getattr(target.tokenizer, name)):
            return f"another {name}"
    return None
