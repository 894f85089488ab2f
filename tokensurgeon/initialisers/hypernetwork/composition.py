"""From a hypernetwork to rows: its composers over a source's own rows, on a device. Needs torch."""

from __future__ import annotations

import torch

from tokensurgeon.arrays import Float32
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.initialisers.fallback_rows import trained_rows
from tokensurgeon.initialisers.hypernetwork.network_file import Arrays, Hypernet, matrices_of
from tokensurgeon.initialisers.hypernetwork.row_network import (
    NetworkComposer,
    RowNetwork,
    rows_on_device,
)
from tokensurgeon.initialisers.numerics.clip import longest_norm
from tokensurgeon.initialisers.numerics.composer import finite


def rows_of(hypernet: Hypernet, context: InitContext) -> list[Float32]:
    """Return rows for the context's missing tokens, of each matrix."""
    return composer_of(hypernet, context).values(context.pieces)


def new_network(hypernet: Hypernet, context: InitContext) -> RowNetwork:
    """Return a network that corrects nothing yet, the same for the same seed."""
    widths = [context.width] * len(hypernet.sides)
    features = sum(side.whitening.turn.shape[1] for side in hypernet.sides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        return RowNetwork(features, widths, hypernet.size, hypernet.layers)


def composer_of(
    hypernet: Hypernet, context: InitContext, network: RowNetwork | None = None
) -> NetworkComposer:
    """Bring a hypernetwork to the context's device, over the context's own rows.

    A `network` that is given takes the place of the hypernetwork's own.
    """
    if network is None and hypernet.network is not None:
        network = new_network(hypernet, context)
        network.load_state_dict({n: torch.from_numpy(v) for n, v in hypernet.network.items()})
    whitenings = [side.whitening for side in hypernet.sides]
    key = ("hypernetwork", tuple(map(id, whitenings)), context.device)
    if key not in context.cache:
        matrices = matrices_of(context)
        rows = rows_on_device(hypernet.sides, [finite(one) for one in matrices], context.device)
        limits = [longest_norm(trained_rows(one, context.anchors)) for one in matrices]
        # With the whitenings, whose identity the key stands on.
        context.cache[key] = rows, limits, whitenings
    rows, limits, _ = context.cache[key]
    return NetworkComposer(hypernet.sides, rows, limits, network)


def arrays_of(network: RowNetwork) -> Arrays:
    """Return a copy of the network's parameters by name, float32."""
    return {n: p.detach().float().cpu().numpy().copy() for n, p in network.named_parameters()}
