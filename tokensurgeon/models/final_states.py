"""Final states of a text, kept for as long as the input rows and the body stay.

What the output matrix is given depends on the body, the text and the input rows. So other output
rows are scored by a matrix product over states that are there already (`OutputHead`), not by a
forward pass. This holds for models whose logits are that product: `LanguageModel.plain_head`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from tokensurgeon.arrays import Float32
from tokensurgeon.checkpoint import BodyUpdate
from tokensurgeon.models.language_model import LanguageModel


class FinalStates:
    """A bounded cache of final states of a model under given input rows.

    Parameters
    ----------
    model : LanguageModel
        Its body is run; its own rows play no part.
    n_kept : int
        How many sets of states are kept, those asked for last. Each takes 4 · width bytes a token.

    Attributes
    ----------
    n_tokens : int
        Tokens run through the body so far.
    """

    def __init__(self, model: LanguageModel, n_kept: int = 2) -> None:
        self.model = model
        self.n_kept = n_kept
        self.n_tokens = 0
        self._kept: list[tuple[Float32, BodyUpdate | None, Hashable, Float32]] = []

    def of(
        self,
        input_rows: Float32,
        sequences: Sequence[Sequence[int]],
        key: Hashable,
        body: BodyUpdate | None = None,
    ) -> Float32:
        """Return what the output rows see at every position of some sequences, one after another.

        Parameters
        ----------
        input_rows : float32 (n_rows, width)
            Known again as the same object, so it must not be changed in place.
        sequences : sequence of ids
        key
            Names the sequences: equal keys, equal sequences.
        body : BodyUpdate or None
            Of the model's body; known again as the same object.

        Returns
        -------
        float32 (n_tokens, width)
            Kept and given out again: not to be changed.
        """
        for i, (rows, update, text, states) in enumerate(self._kept):
            if rows is input_rows and update is body and text == key:
                self._kept.append(self._kept.pop(i))
                return states
        del self._kept[: max(0, len(self._kept) + 1 - self.n_kept)]  # before memory is taken
        model = self.model.with_input_rows(input_rows, body)
        states = model.all_states(sequences, model.n_layers)
        self.n_tokens += len(states)
        self._kept.append((input_rows, body, key, states))
        return states
