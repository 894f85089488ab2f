"""The one module that touches what transformers does not promise to keep.

Two things are taken: the renaming of file keys to module names (GPT-NeoX stores `embed_out.weight`
and calls it `lm_head.weight`), and a model without memory from a configuration. A contract test
holds them; where the renaming is gone, names are matched as they are or by their prefix.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tokensurgeon.errors import UnsupportedCheckpointError, reason

if TYPE_CHECKING:
    from torch import nn


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' log lines, warnings and progress bars; errors are raised as ever."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def load_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Return transformers' configuration object of a folder.

    Raises
    ------
    UnsupportedCheckpointError
        If transformers does not know the family, or refuses the configuration.
    """
    from transformers import AutoConfig

    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if isinstance(config, dict):
            check_counts(config)  # before transformers makes a list of as many layers
        with quiet():
            return AutoConfig.from_pretrained(
                folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
    except UnsupportedCheckpointError:
        raise
    except Exception as error:
        raise UnsupportedCheckpointError(
            f"transformers cannot read {folder}/config.json: {reason(error)}; restore the file"
        ) from error


_REPEATED = re.compile(r"layer|block|expert|depth")
"""Keys that count modules."""
_MOST_REPEATED = 10_000
"""Of layers and the like: far above any model, far below what fills memory with modules."""


def check_counts(values: Mapping[str, Any], where: str = "") -> None:
    """Refuse a configuration that asks for more modules than any model has.

    A model without memory still has a Python object per module.

    Raises
    ------
    UnsupportedCheckpointError
        Naming the key.
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            check_counts(value, f"{where}{key}.")
        elif (
            isinstance(value, (int, float))
            and not (isinstance(value, bool) or abs(value) <= _MOST_REPEATED)
            and _REPEATED.search(key)
            and not re.search("size|dim|length|vocab", key)
        ):
            raise UnsupportedCheckpointError(
                f"config.json says {where}{key} {value}; more than {_MOST_REPEATED:,} are refused"
            )


def model_class(config: Any) -> Any:
    """Return the class that a checkpoint says it is of, of transformers' own.

    Encoders, encoder–decoders, models of images and text, and models without output rows are
    named by their class; everything else is a causal language model.
    """
    import transformers

    name = declared(config)
    if name and not name.endswith(CAUSAL_SUFFIXES):
        cls = getattr(transformers, name, None)
        if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel):
            return cls
    return transformers.AutoModelForCausalLM


CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel")
"""How the classes of causal language models end."""


def declared(config: Any) -> str:
    """Return the class that a configuration names, or nothing."""
    names = getattr(config, "architectures", None)
    return str((names[0] if names else "") if isinstance(names, (list, tuple)) else names or "")


def skeleton(config: Any, *, trust_remote_code: bool = False) -> nn.Module:
    """Return the model of a configuration, without memory (meta device).

    Raises
    ------
    UnsupportedCheckpointError
        If it does not build.
    """
    import torch

    cls = model_class(config)
    try:
        with quiet(), torch.device("meta"):
            if hasattr(cls, "_model_mapping"):  # an auto class
                model: nn.Module = cls.from_config(config, trust_remote_code=trust_remote_code)
            else:
                model = cls(config)
            return model
    except Exception as error:
        family = getattr(config, "model_type", "?")
        raise UnsupportedCheckpointError(
            f"no language model can be built from the configuration of model type "
            f"{family!r}: {reason(error)}; restore config.json"
        ) from error


def module_names(model: nn.Module, keys: Iterable[str]) -> dict[str, str]:
    """Map each file key to the name of the parameter that transformers would load it into.

    Keys that it would not load keep some name that the model does not have.
    """
    return {key: name for key, (name, _) in _renamed(model, keys).items()}


def unconverted_names(model: nn.Module, keys: Iterable[str]) -> dict[str, str]:
    """Return `module_names` of the keys that are loaded as they are: not fused, split or turned."""
    return {key: name for key, (name, how) in _renamed(model, keys).items() if how is None}


class LoadedNames(NamedTuple):
    """Which parameters transformers loads from which file keys.

    Attributes
    ----------
    one : dict of str
        File key → the parameter that it is loaded into, or some name that the model does not have.
    unconverted : dict of str
        Those of `one` that are loaded as they are: not fused, split or turned.
    every : set of str
        All names that are loaded: what is split has several.
    """

    one: dict[str, str]
    unconverted: dict[str, str]
    every: set[str]


def loaded_names(model: nn.Module, keys: Iterable[str]) -> LoadedNames:
    """Return which parameters transformers loads from the files' keys."""
    renamed = _renamed(model, keys)
    every = {name for name, _ in renamed.values()}
    with contextlib.suppress(ImportError, AttributeError, TypeError):
        from transformers.conversion_mapping import get_model_conversion_mapping

        patterns = {
            source: transform.target_patterns
            for transform in get_model_conversion_mapping(model)
            for source in transform.source_patterns
        }
        for name, how in renamed.values():
            targets = patterns.get(str(how), ())
            every |= {name.replace(targets[0], other) for other in targets}
    return LoadedNames(
        {key: name for key, (name, _) in renamed.items()},
        {key: name for key, (name, how) in renamed.items() if how is None},
        every,
    )


def missing_names(model: Any, loaded: Container[str]) -> list[str]:
    """Return the tensors of a model that nothing is loaded into.

    What is tied, or is one parameter under several names, needs one of them.
    """
    groups: dict[str, set[str]] = {name: {name} for name in model.state_dict()}
    same: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        same.setdefault(id(parameter), []).append(name)
    ties = dict(getattr(model, "all_tied_weights_keys", None) or {})
    for names in (*same.values(), *([target, source] for target, source in ties.items())):
        union: set[str] = set().union(*(groups.get(name, {name}) for name in names))
        groups |= dict.fromkeys(union, union)
    ignored = _any_of(getattr(model, "_keys_to_ignore_on_load_missing", None))
    return [
        name
        for name in model.state_dict()
        if not any(other in loaded for other in groups[name]) and not ignored(name)
    ]


def ignored_by_transformers(model: Any) -> Callable[[str], bool]:
    """Return what tells names in a file that a model's class is known to have no use for."""
    return _any_of(getattr(model, "_keys_to_ignore_on_load_unexpected", None))


def _any_of(patterns: Iterable[str] | None) -> Callable[[str], bool]:
    pattern = re.compile("|".join(f"({one})" for one in patterns or ()) or "(?!)")
    return lambda name: pattern.search(name) is not None


def _renamed(model: nn.Module, keys: Iterable[str]) -> dict[str, tuple[str, str | None]]:
    """Return the parameter of each file key, and the pattern of what converts it, if anything."""
    known = dict(model.state_dict())
    prefix = str(getattr(model, "base_model_prefix", "") or "")
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key

        transforms = get_model_conversion_mapping(model)
        converters = [t for t in transforms if isinstance(t, WeightConverter)]
        renamings = [t for t in transforms if not isinstance(t, WeightConverter)]

        def rename(key: str) -> tuple[str, str | None]:
            name, how = rename_source_key(key, renamings, converters, prefix or None, known)
            if name not in known and key in known:  # as transformers loads it: under its own name
                name, how = rename_source_key(key, [], [], prefix or None, known)
            return name, how

        return {key: rename(key) for key in keys}
    except (ImportError, TypeError, AttributeError):
        return {key: (plain_name(key, prefix, known), None) for key in keys}


def plain_name(key: str, prefix: str, known: dict[str, Any]) -> str:
    """Match a file key without transformers' help: as it is, or with its prefix added or cut."""
    if key in known or not prefix:
        return key
    if f"{prefix}.{key}" in known:
        return f"{prefix}.{key}"
    cut = key.removeprefix(f"{prefix}.")
    return cut if cut in known else key


def file_key(model: nn.Module, name: str) -> str:
    """Return the key under which transformers itself would store a parameter.

    The answer is proven by mapping it back; where no proof is had, the name is returned.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            PrefixChange,
            WeightConverter,
            rename_source_key,
        )

        transforms = [
            transform.reverse_transform()
            for transform in get_model_conversion_mapping(model, add_legacy=False)[::-1]
            if not isinstance(transform, PrefixChange)
        ]
        converters = [t for t in transforms if isinstance(t, WeightConverter)]
        renamings = [t for t in transforms if not isinstance(t, WeightConverter)]
        key = str(rename_source_key(name, renamings, converters, reverse=True)[0])
    except (ImportError, TypeError, AttributeError, ValueError):
        return name
    return key if module_names(model, [key])[key] == name else name


def ids_that_must_be(config: Any) -> frozenset[str]:
    """Return the ids that a configuration class takes as a number only, never as none."""
    fields = dataclasses.fields(config) if dataclasses.is_dataclass(config) else ()
    return frozenset(f.name for f in fields if f.name.endswith("_token_id") and f.type is int)
