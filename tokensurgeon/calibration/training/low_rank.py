"""A low-rank update of the blocks' linear weights, trained while the weights themselves stay.

Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685): a weight W of a block acts as W + A·B, and
only A and B are trained. What comes of it is a `BodyUpdate`, to be merged into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from tokensurgeon.arrays import to_float32
from tokensurgeon.calibration.training.steps import RowAdam
from tokensurgeon.checkpoint import BodyUpdate
from tokensurgeon.errors import CalibrationError
from tokensurgeon.models import LanguageModel

if TYPE_CHECKING:
    import torch

LONGEST_GRADIENT = 1.0
"""Norm that the gradients of all factors together are cut to: the usual bound in the training of
language models, so that one odd batch does not swell Adam's moments for many steps."""


class LowRank:
    """Attaches A and B to linear layers of a model, and trains them by Adam.

    Each layer's output gains (x Bᵀ) Aᵀ by a forward hook, so gradients of any loss of the model
    flow to A and B. A starts as zeros, so that the model starts as it was; B is drawn at random. No
    weight of the model is changed, and copies of the model (`LanguageModel.patched`) have the same
    hooks, over the same A and B.

    Parameters
    ----------
    model : LanguageModel
        In float32, bfloat16 or float16; the factors are float32.
    rank : int
        Of each update; less where a weight is smaller.
    first, last : int
        How many of the first and of the last blocks take part.
    allowed : collection of str, optional
        Names of weights that may change, as `CalibrationData.body_weights`; all linear ones if
        not given.
    seed : int
        Of B.

    Attributes
    ----------
    names : tuple of str
        The weights that take part.

    Raises
    ------
    CalibrationError
        If the rank is below 1, or these blocks have no linear weight that may change.
    """

    def __init__(
        self,
        model: LanguageModel,
        rank: int,
        *,
        first: int,
        last: int,
        allowed: Collection[str] | None = None,
        seed: int = 0,
    ) -> None:
        import torch

        if rank < 1:
            raise CalibrationError(f"an update of the body has rank {rank}: give 1 or more")
        layers = dict(_linear_layers(model, first, last, allowed))
        if not layers:
            raise CalibrationError(
                f"the first {first} and last {last} blocks of {type(model.model).__name__} have no "
                "linear weights that can be changed: leave out --heal-body"
            )
        self.names = tuple(layers)
        generator = torch.Generator().manual_seed(seed)
        self._factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._steps: list[tuple[torch.Tensor, RowAdam]] = []
        self._hooks = []
        for name, layer in layers.items():
            (n_out, n_in), device = layer.weight.shape, layer.weight.device
            own = min(rank, n_out, n_in)
            a = torch.zeros((n_out, own), device=device)
            b = (torch.randn((own, n_in), generator=generator) * n_in**-0.5).to(device)
            for factor in (a, b):
                self._steps.append((factor.requires_grad_(True), RowAdam(factor.detach())))
            self._factors[name] = a, b
            self._hooks.append(layer.register_forward_hook(_adding(a, b)))

    def step(self, rate: float) -> None:
        """Move A and B against the gradients that have gathered, and forget these.

        Parameters
        ----------
        rate : float
            How far Adam moves a number of A or B at most, about.
        """
        import torch

        gradients = [factor.grad for factor, _ in self._steps if factor.grad is not None]
        if not gradients:
            return
        norm = torch.stack([gradient.norm().cpu() for gradient in gradients]).norm()
        share = min(1.0, LONGEST_GRADIENT / max(float(norm), 1e-20))
        for factor, adam in self._steps:
            if factor.grad is not None:
                adam.step(slice(None), factor.grad * share, rate)
            factor.grad = None

    def update(self) -> BodyUpdate:
        """Return the update of the given model's weights as it stands, a copy.

        Where that model had a changed body already, add this to that change (`BodyUpdate.plus`).
        """
        return BodyUpdate(
            {
                name: (to_float32(a).copy(), to_float32(b).copy())
                for name, (a, b) in self._factors.items()
            }
        )

    def detach(self) -> None:
        """Remove the hooks: the model is again as it was given. The update stays to be read."""
        for hook in self._hooks:
            hook.remove()


def _linear_layers(
    model: LanguageModel, first: int, last: int, allowed: Collection[str] | None
) -> Iterator[tuple[str, torch.nn.Linear]]:
    """Yield the linear layers of the first and the last blocks with the names of their weights."""
    import torch

    blocks = list(model.layers)
    chosen = {*range(first), *range(len(blocks) - last, len(blocks))}
    within = {
        id(module)
        for i, block in enumerate(blocks)
        if i in chosen
        for module in block.modules()
        if isinstance(module, torch.nn.Linear)
    }
    for name, module in model.model.named_modules():
        weight = f"{name}.weight"
        if id(module) in within and (allowed is None or weight in allowed):
            yield weight, module


def _adding(a: torch.Tensor, b: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Return a hook that adds what the factors give; copies of a model share it and the factors."""

    def add(module: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = args[0]
        return output + (x @ b.to(x.dtype).T) @ a.to(x.dtype).T

    return add
