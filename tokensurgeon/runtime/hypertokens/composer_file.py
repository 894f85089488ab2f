"""A trained composer as a file: its numbers, its limits, the model that it is for, and LoRA."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensurgeon.errors import CheckpointError, UsageError, reading
from tokensurgeon.models import LanguageModel
from tokensurgeon.outputs import check_file
from tokensurgeon.outputs.own_tensors import read_own_tensors
from tokensurgeon.outputs.paths import safetensors_with
from tokensurgeon.outputs.whole_file import write_whole
from tokensurgeon.runtime.hypertokens.codec import Limits
from tokensurgeon.runtime.hypertokens.composers import composer_names
from tokensurgeon.runtime.hypertokens.hyper_model import base_rows
from tokensurgeon.runtime.hypertokens.learned_composer import LearnedComposer
from tokensurgeon.runtime.hypertokens.lora import add_lora, lora_tensors, set_lora
from tokensurgeon.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

FORMAT = "tokensurgeon-composer-1"
AGAIN = "train another with runtime train-composer"
IS_COMPOSER = safetensors_with("format", FORMAT)


@dataclass(frozen=True)
class ComposerFile:
    """What is written of a training.

    Attributes
    ----------
    composer : LearnedComposer
    limits : Limits
        That the composer was trained with.
    vocabulary : str
        Fingerprint of the vocabulary.
    lora_rank : int
        0 where the model's own weights were not adapted.
    card : mapping
        Facts about the training, for people.
    """

    composer: LearnedComposer
    limits: Limits
    vocabulary: str
    lora_rank: int = 0
    card: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, model: LanguageModel) -> None:
        """Write the file, whole or not at all; the adapter is read from the model."""
        from safetensors.torch import save

        tensors = {f"composer.{k}": v for k, v in self.composer.state_dict().items()}
        if self.lora_rank:
            tensors |= {f"lora.{k}": v for k, v in lora_tensors(model).items()}
        facts = {
            "start": self.composer.start,
            "hidden": self.composer.hidden,
            "max_ids": self.limits.max_ids,
            "max_hypertokens": self.limits.max_hypertokens,
            "n_ids": self.limits.n_ids,
            "width": self.composer.rows[0].shape[1],
            "vocabulary": self.vocabulary,
            "lora_rank": self.lora_rank,
            "card": dict(self.card),
        }
        data = save(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            metadata={"format": FORMAT, "facts": json.dumps(facts)},
        )
        write_whole(path, data)


def check_output(path: str | Path, *, force: bool) -> Path:
    """Return the path of a composer that is to be written, or refuse it (see `check_file`)."""
    if Path(path).suffix != ".safetensors":
        raise UsageError(f"{path}: a composer's file ends in .safetensors; name it so")
    return check_file(path, force=force, what="a composer", is_ours=IS_COMPOSER)


def load_composer(
    path: str | Path, model: LanguageModel, vocabulary: Vocabulary, controls: frozenset[int]
) -> ComposerFile:
    """Read a composer for a model; its adapter is put into the model, where there is one.

    Raises
    ------
    CheckpointError
        If there is no such file, it is none of ours, or it is for another model.
    MissingExtraError
        If it holds an adapter and peft is not installed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"there is no composer {path}; train one with runtime train-composer, or "
            f"give one of {', '.join(composer_names())}"
        )
    with reading(path, AGAIN):
        found = read_own_tensors(path, FORMAT, "pt")
        if found is None:
            raise CheckpointError(
                f"{path} is not a composer of this version; train one with runtime train-composer"
            )
        facts, tensors = found
        rows = base_rows(model)
        known = (("n_ids", model.n_rows, "rows"), ("width", rows[0].shape[1], "values a row"))
        for key, own, what in known:
            if int(facts[key]) != own:
                raise CheckpointError(
                    f"{path} is a composer for a model with {facts[key]:,} {what}, and this one "
                    f"has {own:,}; train a composer for it"
                )
        if facts["vocabulary"] != vocabulary.fingerprint:
            raise CheckpointError(
                f"{path} is a composer for another tokenizer; train one for this checkpoint"
            )
        max_ids = int(facts["max_ids"])
        limits = Limits(model.n_rows, int(facts["max_hypertokens"]), max_ids, controls)
        composer = LearnedComposer(rows, str(facts["start"]), max_ids, int(facts["hidden"]))
        composer.load_state_dict(_under("composer.", tensors))
        rank = int(facts["lora_rank"])
    composer.requires_grad_(False)
    if rank:
        add_lora(model, rank)
        set_lora(model, _under("lora.", tensors))
    return ComposerFile(composer, limits, str(facts["vocabulary"]), rank, facts["card"])


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin so, without that."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
