"""Models that do not read from left to right: encoders, encoder–decoders, models without a head.

Rows, patching and logits they inherit from a causal model. An encoder's losses are
pseudo-log-likelihoods, an encoder–decoder's those of its decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Mask, blocks
from tokensurgeon.checkpoint.embeddings import ENCODER_DECODER, HEADLESS, MASKED
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models.batches import TOKENS_PER_BATCH
from tokensurgeon.models.language_model import LanguageModel

if TYPE_CHECKING:
    import torch


class MaskedModel(LanguageModel):
    """An encoder that fills gaps."""

    kind = MASKED

    def pseudo_nll(self, ids: Sequence[int], hidden: Mask, frame: tuple[int, int, int]) -> Float64:
        """Return the loss in nats of each id of a text, it and others hidden.

        Parameters
        ----------
        ids : sequence of int
        hidden : bool (len(ids), len(ids))
            Row i says which ids are masked while id i is asked for; itself always is.
        frame : tuple of int
            The ids of the start, the end and the mask.

        Returns
        -------
        float64 (len(ids),)
        """
        import torch
        from torch.nn.functional import cross_entropy

        start, end, mask = frame
        whole = [start, *ids, end]
        self._check([[*whole, mask]], None)
        losses = np.zeros(len(ids))
        text = self._tensor([whole])
        for block in blocks(len(ids), TOKENS_PER_BATCH // len(whole)):
            asked = torch.arange(block.start, block.stop, device=text.device)
            gaps = torch.from_numpy(hidden[block]).to(text.device)
            batch = text.repeat(len(asked), 1)
            batch[:, 1:-1][gaps] = mask
            index = (torch.arange(len(asked), device=text.device), asked + 1)
            with torch.inference_mode():
                if self.plain_head:
                    logits = self._head(self._run(batch, self.n_layers, None)[index])
                else:
                    logits = self._forward(batch).logits[index].float()
                loss = cross_entropy(logits, text[0, 1:-1][asked], reduction="none")
            losses[block] = loss.double().cpu().numpy()
        return losses

    def _forward(self, batch: torch.Tensor, positions: torch.Tensor | None = None) -> Any:
        import torch

        output = self.model(input_ids=batch, attention_mask=torch.ones_like(batch))
        if not hasattr(output, "logits"):  # a head beside this one has the name
            output.logits = output.prediction_logits
        return output


class EncoderDecoderModel(LanguageModel):
    """An encoder–decoder; `decoder_start` is the id that its decoder begins with."""

    kind = ENCODER_DECODER

    def __init__(self, model: Any, *, logit_scale: float = 1.0, softcap: float | None = None):
        super().__init__(model, logit_scale=logit_scale, softcap=softcap)
        start: int | None = getattr(model.config, "decoder_start_token_id", None)
        if start is None and model.generation_config is not None:
            start = model.generation_config.decoder_start_token_id
        self.decoder_start = start

    def decoder_nll(self, read: Sequence[int], written: Sequence[int]) -> Float64:
        """Return the loss in nats of each id that the decoder writes after what the encoder reads.

        A model that hears is given silence, and reads nothing.

        Returns
        -------
        float64 (len(written),)

        Raises
        ------
        EvaluationError
            If nothing says which id the decoder starts with.
        """
        import torch
        from torch.nn.functional import cross_entropy

        if self.decoder_start is None:
            raise EvaluationError(
                "nothing says which id the decoder starts with, or the target lacks that token: "
                "name one with --map, or leave the text out"
            )
        self._check([read, [self.decoder_start, *written]], None)
        goal = self._tensor([written])
        before = self._tensor([[self.decoder_start, *written[:-1]]])
        with torch.inference_mode():
            logits = self._write(self._tensor([read]), before).logits[0].float()
            return cross_entropy(logits, goal[0], reduction="none").double().cpu().numpy()

    def _forward(self, batch: torch.Tensor, positions: torch.Tensor | None = None) -> Any:
        return self._write(batch, batch)

    def _write(self, read: torch.Tensor, written: torch.Tensor) -> Any:
        import torch

        config = self.model.config
        options: dict[str, Any] = {"decoder_input_ids": written, "use_cache": False}
        if self.model.main_input_name == "input_features":
            like = self.model.get_output_embeddings().weight
            if hasattr(config, "num_mel_bins"):
                shape = (len(written), config.num_mel_bins, 2 * config.max_source_positions)
            else:
                shape = (len(written), 8, config.input_feat_per_channel)
            return self.model(input_features=like.new_zeros(shape), **options)
        return self.model(input_ids=read, attention_mask=torch.ones_like(read), **options)


class HeadlessModel(LanguageModel):
    """A body, or a classifier: it has input rows only, and no loss on a text."""

    kind = HEADLESS

    def logits(self, ids: Sequence[int]) -> Float32:
        """Return what the model gives for one sequence, its states or its classes, float32."""
        import torch

        self._check([ids], None)
        with torch.inference_mode():
            output: Float32 = self._forward(self._tensor([ids]))[0][0].float().cpu().numpy()
        return output

    def _forward(self, batch: torch.Tensor, positions: torch.Tensor | None = None) -> Any:
        import torch

        decoder = {}
        if getattr(self.model.config, "is_encoder_decoder", False):
            decoder["decoder_input_ids"] = batch
        return self.model(input_ids=batch, attention_mask=torch.ones_like(batch), **decoder)


CLASSES: dict[str, type[LanguageModel]] = {
    model_class.kind: model_class
    for model_class in (LanguageModel, MaskedModel, EncoderDecoderModel, HeadlessModel)
}
"""By kind, as in `Layout.kind`."""
