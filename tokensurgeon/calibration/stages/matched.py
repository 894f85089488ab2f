"""Published trainings of input rows on the source's own states."""

from __future__ import annotations

from tokensurgeon.calibration.contract import Candidate, Candidates
from tokensurgeon.calibration.data import CalibrationData
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.taught import MOST_TOKENS, NO_STEP, Taught, usable_chunks
from tokensurgeon.calibration.training.matched_states import (
    Observe,
    attention_outputs,
    last_states,
    match_states,
)


class _Matched(Taught):
    """Trains input rows of new tokens until some states are the source's."""

    observe: Observe

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield where the training led."""
        done = match_states(
            data.fast,
            data.spellings.source,
            data.spellings.target,
            usable_chunks(data, data.texts.documents),
            matrices,
            data.new,
            type(self).observe,
            clock=data.clock.within(self.seconds),
            max_tokens=MOST_TOKENS,
            seed=self.seed,
            progress=self.progress,
        )
        data.forward_tokens += 2 * done.n_tokens
        data.gradient_steps += done.n_steps
        if not done.n_steps:
            return NO_STEP
        yield Candidate.of({"tokens": done.n_tokens, "steps": done.n_steps}, done.matrices)
        return None


class TokenDistillation(_Matched):
    """E ← argmin of Σ ‖h′ − h‖² over common borders, h the source's last states, h′ the patched.

    Input rows of new tokens alone are trained (Token Distillation; Dobler et al., 2025, arXiv
    2505.20133). There contexts are sought for each new token; here the text is read as it is, so
    one step teaches all new tokens in it.
    """

    name = "token-distillation"
    observe = staticmethod(last_states)


class AttentionInfluence(_Matched):
    """E ← argmin of Σ ‖a′ − a‖² over common borders, a what attention adds in early blocks.

    Of the first third of the blocks; nothing above them is run (Attention Influence Modeling;
    Haltiuk and Smywiński-Pohl, 2025, arXiv 2510.21954). A variant: what all earlier tokens send to
    a border is compared as one sum, not stretch by stretch.
    """

    name = "attention-influence"
    observe = staticmethod(attention_outputs)
