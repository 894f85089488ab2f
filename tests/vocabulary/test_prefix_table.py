"""The algebra of prefixes, against a search through all tokens."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokensurgeon.vocabulary.prefix_table import PrefixTable

written = st.lists(st.none() | st.text("abc", max_size=4).map(str.encode), max_size=20)


@given(written, st.text("abc", max_size=3).map(str.encode), st.integers(0, 5))
def test_tokens_are_found_and_summed_by_what_comes_next(
    tokens: list[bytes | None], begun: bytes, seed: int
) -> None:
    table: PrefixTable[bytes] = PrefixTable(tokens)
    longer = [
        i for i, one in enumerate(tokens) if one and one.startswith(begun) and len(one) > len(begun)
    ]
    found = table.after(begun)
    assert found.tokens.tolist() == longer
    assert table.goes_on(begun) == bool(longer)
    assert table.exactly(begun).tolist() == [
        i for i, one in enumerate(tokens) if one == begun if one
    ]
    masses = np.random.default_rng(seed).random(len(longer))
    sums: dict[int, float] = {}
    for i, mass in zip(longer, masses.tolist(), strict=True):
        symbol = (tokens[i] or b"")[len(begun)]
        sums[symbol] = sums.get(symbol, 0.0) + mass
    assert dict(zip(found.next_symbols.tolist(), found.sums(masses).tolist(), strict=True)) == sums
    assert table.longest == max((len(one) for one in tokens if one), default=0)


def test_ids_are_symbols_as_well() -> None:
    table: PrefixTable[tuple[int, ...]] = PrefixTable([(5, 7), (5,), (), (5, 7, 2), None, (9, 1)])
    assert table.after((5,)).tokens.tolist() == [0, 3]
    assert table.after((5,)).next_symbols.tolist() == [7]
    assert table.after(()).symbols.tolist() == [5, 5, 5, 9]
    assert len(table.after((9, 1))) == 0
