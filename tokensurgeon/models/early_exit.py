"""A forward pass that ends where a module is reached, and gives what the module would be given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from tokensurgeon.errors import EvaluationError

if TYPE_CHECKING:
    import torch


class _ReachedError(Exception):
    """Carries the states out of a forward pass that need not go on; never leaves this module."""

    def __init__(self, states: torch.Tensor) -> None:
        self.states = states


def states_before(module: Any, run: Callable[[], object], what: str) -> torch.Tensor:
    """Run a model until `module` is called; return the states that it is called with.

    Parameters
    ----------
    module : torch.nn.Module
        A block, or the output matrix.
    run : callable()
        The forward pass; gradients are taken or not as the caller has set it.
    what : str
        The module, in the message.

    Raises
    ------
    EvaluationError
        If the pass ends without reaching the module.
    """

    def catch(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        name = "hidden_states" if "hidden_states" in kwargs else "input"
        raise _ReachedError(args[0] if args else kwargs[name])

    handle = module.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        run()
    except _ReachedError as reached:
        return reached.states
    finally:
        handle.remove()
    raise EvaluationError(f"{what} was never reached")
