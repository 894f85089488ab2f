"""A model that reads merged tokens: its input is embeddings, its output its own vocabulary.

After "Retrofitting (Large) Language Models with Dynamic Tokenization" (Feher, Vulić and Minixhofer,
2024, arXiv 2411.18553). No weight changes. The embedding of an own token is what the model itself
gives, so without merges the logits are the model's own, bit for bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensurgeon.arrays import Float32, Float64, to_float32
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.embeddings import CAUSAL, ENCODER_DECODER, HEADLESS, MASKED
from tokensurgeon.errors import EvaluationError, SettingError, UnknownNameError
from tokensurgeon.evaluation.model_kinds import frame_of
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.models.sampling import keeps_last, sample
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.runtime.merging.continuation import Prefilled, final_states, losses_after
from tokensurgeon.runtime.merging.merged_batch import MergedBatch
from tokensurgeon.runtime.merging.merged_rows import (
    DEFAULT_ROWS,
    MergedRows,
    context_of,
    merged_rows,
)
from tokensurgeon.runtime.merging.model_inputs import (
    POSITIONS,
    Inputs,
    embedding_scale,
    make_inputs,
    n_positions,
)
from tokensurgeon.runtime.merging.policies import (
    POLICIES,
    Limits,
    merge_frequent,
    merge_identifiers,
    merge_similar,
    vectors_of_rows,
)
from tokensurgeon.text.encoding import Frame
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

if TYPE_CHECKING:
    import torch


class DynamicModel:
    """A model and what merges the tokens of its input.

    Parameters
    ----------
    model : LanguageModel
        Causal, an encoder, or a body without output rows.
    vocabulary : Vocabulary
        The model's own.
    rows : MergedRows
        Makes the input rows of merged tokens.
    positions : {"packed", "spread"}
        See `model_inputs`; `spread` is for causal models that are told positions.

    Raises
    ------
    EvaluationError
        If the model is an encoder–decoder, or its embeddings are more than scaled rows.
    """

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: Vocabulary,
        rows: MergedRows,
        *,
        positions: str = "packed",
    ) -> None:
        if model.kind == ENCODER_DECODER:
            raise EvaluationError(
                "tokens of an encoder–decoder are not merged; give a causal model or an encoder"
            )
        if positions not in POSITIONS:
            raise UnknownNameError(f"no positions '{positions}'; there are {', '.join(POSITIONS)}")
        self.model, self.vocabulary, self.rows = model, vocabulary, rows
        takes = inspect.signature(model.model.forward).parameters
        if "inputs_embeds" not in takes:
            raise EvaluationError(
                f"{type(model.model).__name__} takes no embeddings in the place of ids; give "
                "another model"
            )
        self.causal = model.kind == CAUSAL
        self._told = self.causal and "position_ids" in takes
        if positions == "spread" and not self._told:
            raise SettingError(
                f"{type(model.model).__name__} is not told positions, so they cannot be spread; "
                "leave positions packed"
            )
        self.positions = positions

    @classmethod
    def open(
        cls,
        path: str | Path,
        rows: str = DEFAULT_ROWS,
        *,
        positions: str = "packed",
        device: str = "cpu",
        dtype: str = "float32",
        seed: int = 0,
        trust_remote_code: bool = False,
        progress: Progress = no_progress,
        **settings: Any,
    ) -> DynamicModel:
        """Load a checkpoint.

        Parameters
        ----------
        path : str or Path
        rows : str
            The method that makes rows of merged tokens; see `merged_rows`.
        positions, device, dtype, seed, trust_remote_code
        progress : callable(done, total, what)
        **settings
            Of the method, such as ``network="FILE"``.

        Examples
        --------
        >>> from importlib.resources import files
        >>> model = DynamicModel.open(files("tokensurgeon") / "data" / "source")
        >>> batch = model.merge(["the calendars and the calendar's days"] * 2, least_count=1)
        >>> batch.n_after < batch.n_before
        True
        """
        checkpoint = Checkpoint.open(path, trust_remote_code=trust_remote_code)
        vocabulary = load_vocabulary(path)
        context = context_of(checkpoint, vocabulary, seed=seed, device=device, progress=progress)
        made = merged_rows(context, rows, settings)
        model = load_model(path, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        return cls(model, vocabulary, made, positions=positions)

    def with_rows(self, rows: MergedRows) -> DynamicModel:
        """Return the same model with rows of another method."""
        return type(self)(self.model, self.vocabulary, rows, positions=self.positions)

    # Merging

    @cached_property
    def frame(self) -> Frame:
        """Ids before and after a text."""
        if self.model.kind == HEADLESS:
            return frame_of(self.vocabulary, MASKED)
        return frame_of(self.vocabulary, self.model.kind)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the model's own ids of texts, with those that stand before and after."""
        before, after = self.frame
        encodings = self.vocabulary.encode_many(texts)
        return [[*before, *encoding.ids, *after] for encoding in encodings]

    def merge(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        *,
        policy: str = "frequency",
        layer: int | None = None,
        least_cosine: float = 0.0,
        **limits: Any,
    ) -> MergedBatch:
        """Merge the tokens of a batch of texts, or of ids.

        Parameters
        ----------
        texts : sequence of str, or of sequences of int
        policy : {"frequency", "identifiers", "meaning"}
            See `policies`.
        layer : int or None
            `meaning` compares the states that this layer of the model gives, which takes a forward
            pass; None compares rows.
        least_cosine : float
            Of `meaning`.
        **limits
            Fields of `Limits`. Of a causal model the last token stays as it is if nothing is said.

        Raises
        ------
        UnknownNameError, SettingError
            If there is no such policy, or a limit is out of its range.
        """
        if policy not in POLICIES:
            raise UnknownNameError(f"no policy '{policy}'; there are {', '.join(POLICIES)}")
        bounds = Limits(**{"keep_last": int(self.causal), **limits})
        texts_alone = [text for text in texts if isinstance(text, str)]
        sequences = self.encode(texts_alone)
        if not texts_alone:
            sequences = [[int(token) for token in ids] for ids in texts]
        n_own = self.model.n_rows
        if policy == "frequency":
            return merge_frequent(sequences, self.vocabulary, n_own, bounds)
        if policy == "identifiers":
            return merge_identifiers(sequences, self.vocabulary, n_own, bounds)
        if layer is None:
            table = to_float32(self.model.model.get_input_embeddings().weight)
            vectors = vectors_of_rows(sequences, table, table.mean(axis=0))
        elif not 0 <= layer <= self.model.n_layers:
            raise SettingError(
                f"layer {layer} asked of a model with {self.model.n_layers} layers; give 0 to "
                f"{self.model.n_layers}"
            )
        else:
            vectors = self.model.every_state(sequences, layer)
        return merge_similar(
            sequences, self.vocabulary, n_own, bounds, vectors, least_cosine=least_cosine
        )

    # Forward passes

    @cached_property
    def _scale(self) -> float:
        return embedding_scale(self.model)

    def inputs(self, batch: MergedBatch, *, left: bool = False) -> Inputs:
        """Return what a forward pass is given for a batch, padded on the right, or on the left.

        Raises
        ------
        EvaluationError
            If a sequence is empty, or longer than the model's positions.
        """
        spread = self.positions == "spread"
        return make_inputs(
            self.model, batch, self.rows, self._scale, left=left, spread=spread, told=self._told
        )

    def _run(self, inputs: Inputs, **options: Any) -> Any:
        import torch

        if inputs.positions is not None:
            options["position_ids"] = inputs.positions
        if not self.causal or bool((inputs.mask == 0).any()) or inputs.positions is not None:
            options["attention_mask"] = inputs.mask
        if self.causal:
            options.setdefault("use_cache", False)
        with torch.inference_mode():
            return self.model.model(inputs_embeds=inputs.embeddings, **options)

    def logits(self, batch: MergedBatch) -> list[Float32]:
        """Return the logits at each token of each sequence, float32 (n_tokens, n_rows)."""
        output = self._run(self.inputs(batch))
        logits = output.logits if hasattr(output, "logits") else output.prediction_logits
        return self._parted(batch, logits)

    def states(self, batch: MergedBatch) -> list[Float32]:
        """Return the final states at each token: what the output rows, or a pooling, is given.

        Returns
        -------
        list of float32 (n_tokens, width)
        """
        inputs = self.inputs(batch)
        if self.model.kind == HEADLESS:
            return self._parted(batch, self._run(inputs)[0])
        return self._parted(batch, final_states(self.model, lambda: self._run(inputs)))

    def _parted(self, batch: MergedBatch, values: torch.Tensor) -> list[Float32]:
        table = values.float().cpu().numpy()
        return [row[: len(own)].copy() for row, own in zip(table, batch.sequences, strict=True)]

    def prefill(self, batch: MergedBatch) -> Prefilled:
        """Let a causal model read a batch.

        Raises
        ------
        EvaluationError
            If the model is not causal.
        """
        import torch

        self._require_causal()
        inputs = self.inputs(batch, left=True)
        output = self._run(inputs, use_cache=True, **keeps_last(self.model.model, 1))
        lengths = n_positions(batch, spread=self.positions == "spread")
        return Prefilled(
            output.past_key_values,
            inputs.mask,
            torch.tensor(lengths, device=inputs.mask.device),
            output.logits[:, -1].float().cpu().numpy(),
        )

    def nll_after(
        self, prefilled: Prefilled, continuations: Sequence[Sequence[int]]
    ) -> list[Float64]:
        """Return the loss in nats of each id that follows a prefill, the model's own ids.

        The cache of `prefilled` is used up.

        Parameters
        ----------
        prefilled : Prefilled
        continuations : sequence of sequences of int
            One for each sequence, of at least one id.

        Returns
        -------
        list of float64 (len(continuation),)
        """
        return losses_after(self.model, prefilled, continuations, told=self._told)

    def generate(
        self,
        batch: MergedBatch,
        max_new_tokens: int,
        *,
        seed: int = 0,
        temperature: float = 0.0,
        top_k: int | None = None,
        stop: Collection[int] = (),
    ) -> list[list[int]]:
        """Continue each sequence of a batch with the model's own tokens.

        The last token of each sequence is one of the model's own (`Limits.keep_last`); the model
        reads all before it merged, and goes on with its cache.

        Returns
        -------
        list of list of int
            What was written, without what was read.
        """
        import torch

        self._require_causal()
        written: list[list[int]] = []
        for sequence in batch.sequences:
            if sequence[-1] >= batch.n_own:
                raise EvaluationError(
                    "the last token of a sequence was merged; set keep_last=1 where it is to go on"
                )
            last = torch.tensor([[int(sequence[-1])]], device=self.model.device)
            cache = position = None
            if len(sequence) > 1:
                head = MergedBatch((sequence[:-1],), batch.merged, batch.n_own, batch.n_merges)
                read = self.prefill(head)
                cache = read.cache
                position = read.next_position if self.positions == "spread" else None
            (own,) = sample(
                self.model.model, last, max_new_tokens, seed, stop, temperature, top_k,
                cache=cache, position=position,
            )  # fmt: skip
            written.append(own)
        return written

    def _require_causal(self) -> None:
        if not self.causal:
            raise EvaluationError(
                f"a {self.model.kind} model continues nothing; give a causal model"
            )
