"""Rows that are codes: every id its own, as wide as trained rows, and no word of the text."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers import build, mean_row
from tokensurgeon.initialisers.check import example_context
from tokensurgeon.initialisers.methods.fixed_codes import _drawer, _shown


def test_bits_of_the_id_can_be_read_back():
    context = example_context()
    new = build("binary-code")(context)
    assert new.output is None
    rows = new.input.values(context.input_rows)
    code = rows - mean_row(context.input_rows, context.anchors)
    bits = int(context.target.n_rows - 1).bit_length()
    told = ((code > 0)[:, :bits] << np.arange(bits)).sum(axis=1)
    assert told.tolist() == context.missing.tolist()
    assert np.allclose(np.abs(code), np.abs(code[0, 0]), atol=1e-5)


@pytest.mark.parametrize("name", ["binary-code", "glyphs"])
def test_codes_are_as_wide_as_trained_rows(name: str):
    context = example_context()
    middle = mean_row(context.input_rows, context.anchors)
    trained = context.input_rows[context.anchors] - middle
    code = build(name)(context).input.values(context.input_rows) - middle
    assert np.sqrt((code**2).mean()) == pytest.approx(np.sqrt((trained**2).mean()), rel=1e-3)


def test_tokens_that_look_alike_get_like_rows():
    context = example_context()
    rows = build("glyphs")(context).input.values(context.input_rows)
    again = build("glyphs")(context).input.values(context.input_rows)
    assert np.array_equal(rows, again)
    assert len(np.unique(rows.round(5), axis=0)) > 0.9 * len(rows)
    draw = _drawer(None, 16)
    near, far = draw("house") - draw("houses"), draw("house") - draw("Ωπλ")
    assert np.abs(near).sum() < np.abs(far).sum()
    assert draw("x" * 200).shape == draw("x").shape == (1, 16 * 64)


def test_every_token_can_be_drawn():
    assert _shown(b" a\n") == "␣a↵"
    assert _shown(b"\xc3") == "\\xc3"
    assert _shown("\u200b".encode()) == "<200B>"
    assert _drawer(None, 16)(_shown(b"\xff\x00")).any()


def test_nothing_missing_is_no_row():
    context = example_context()
    none = dataclasses.replace(context, missing=context.missing[:0], pieces=())
    for name in ("binary-code", "glyphs"):
        assert build(name)(none).input.dense.shape == (0, context.width)


def test_a_font_that_is_none_is_said(tmp_path):
    with pytest.raises(SettingError, match="no file"):
        build("glyphs", {"font": str(tmp_path / "none.ttf")})
    (tmp_path / "bad.ttf").write_bytes(b"not a font")
    with pytest.raises(InitialiserError, match="cannot read the font"):
        build("glyphs", {"font": str(tmp_path / "bad.ttf")})(example_context())
