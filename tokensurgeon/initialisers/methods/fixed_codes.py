"""Input rows that are codes, not meanings: the bits of an id, the picture of a token's text.

Starting points for training, not zero-shot rows: the blocks of a model that was trained with a
table have never seen such codes, and a transplant with them reads close to noise until the model
is trained on. Both put their code around the mean row, as wide as trained rows are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float32
from tokensurgeon.errors import InitialiserError, SettingError, reason
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows
from tokensurgeon.initialisers.fallback_rows import mean_row, trained_rows
from tokensurgeon.initialisers.registry import initialiser


@initialiser("binary-code")
@dataclass(frozen=True)
class BinaryCode:
    """The bits of the target id, as ±1, repeated to the model's width: a start for training.

    K = ⌈log2 V⌉ bits tell every id of a vocabulary of V apart ("Language Models Without a
    Trainable Input Embedding Table: Learning from Fixed Minimal Binary Token Codes", arXiv
    2605.09751, where models are *trained* with such codes). Here each bit is scaled to the
    standard deviation of the trained rows and set around their mean. Not zero-shot: nothing of a
    token's text is in its row.

    Input side only; the paper trains the output side as usual. Nothing is random, and there are no
    settings.
    """

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense input rows; no output rows."""
        bits = max(1, int(context.target.n_rows - 1).bit_length())
        shown = (context.missing[:, None] >> np.arange(bits)) & 1
        code = (2 * shown - 1).astype(np.float32)
        tiled = np.tile(code, (1, -(-context.width // bits)))[:, : context.width]
        return NewRows(input=_around_the_mean(context, tiled))


@initialiser("glyphs")
@dataclass(frozen=True)
class Glyphs:
    """The picture of the token's text, as its principal components: a start for training.

    Each token is drawn in one line, in a sans-serif font, and squeezed into a picture of 16 × 64
    points or more; the pictures' principal components, as many as the model is wide, are set
    around the mean row with the trained rows' standard deviation ("Emergent Semantics Beyond Token
    Embeddings: Transformer LMs with Frozen Visual Unicode Representations", arXiv 2507.04886,
    where models are *trained* with such rows). Not zero-shot: tokens that look alike get like
    rows, whatever the model knows of them.

    Input side only. Bytes that are no whole character are drawn as their number, a space as ␣, what
    the font lacks as its box for that.

    Parameters
    ----------
    font : str or None
        A TrueType or OpenType file; None takes DejaVu Sans, which comes with matplotlib
        (`pip install 'tokensurgeon[plots]'`).

    Notes
    -----
    Random: the start of the truncated SVD, by `context.seed`.
    """

    name: ClassVar[str]
    font: str | None = None

    def __post_init__(self) -> None:
        """Check that a font that is named is there."""
        if self.font is not None and not Path(self.font).is_file():
            raise SettingError(f"glyphs.font: no file {self.font}; check the path")

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense input rows; no output rows."""
        from tokensurgeon.spaces.svd import truncated_svd

        draw = _drawer(self.font, height=16 if context.width <= 1024 else 32)
        pictures = []
        for done, token in enumerate(context.missing.tolist()):
            pictures.append(sp.csr_array(draw(_shown(context.target.token_bytes[token] or b""))))
            if done % 1024 == 0:
                context.progress(done, context.n_missing, "glyphs: drawing")
        if not pictures:
            return NewRows(input=SideRows(dense=np.zeros((0, context.width), np.float32)))
        matrix = sp.csr_array(sp.vstack(pictures))
        mean = sp.csr_array(np.asarray(matrix.mean(axis=0), np.float32)[None, :])
        centred = sp.csr_array(matrix - sp.vstack([mean] * matrix.shape[0]))
        components = truncated_svd(centred, context.width, context.seed)
        code = np.zeros((context.n_missing, context.width), dtype=np.float32)
        code[:, : components.shape[1]] = components
        return NewRows(input=_around_the_mean(context, code))


def _around_the_mean(context: InitContext, code: Float32) -> SideRows:
    """Return the mean row plus the code, with the root mean square that trained rows have."""
    rows = trained_rows(context.input_rows, context.anchors)
    middle = mean_row(context.input_rows, context.anchors)
    scale = float(np.sqrt(np.mean((rows - middle) ** 2, dtype=np.float64)))
    size = float(np.sqrt(np.mean(code**2, dtype=np.float64))) if code.size else 0.0
    values: Float32 = middle + code * np.float32(scale / size if size else 0.0)
    return SideRows(dense=np.asarray(values, dtype=np.float32))


def _shown(data: bytes) -> str:
    """Return what is drawn of a token."""
    text = data.decode("utf-8", errors="backslashreplace")
    named = {" ": "␣", "\n": "↵", "\t": "→"}
    return "".join(named.get(c, c if c.isprintable() else f"<{ord(c):X}>") for c in text)


def _drawer(font: str | None, height: int) -> Callable[[str], Float32]:
    """Return a function that draws a text as points from 0 to 1, (1, height · 4 · height).

    Raises
    ------
    InitialiserError
        If nothing that draws is installed, or the font is none.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont

        if font is None:
            import matplotlib

            font = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    except ImportError as error:
        raise InitialiserError(
            "'glyphs' draws with matplotlib's font, which is not installed: "
            "pip install 'tokensurgeon[plots]'"
        ) from error
    try:
        pen = ImageFont.truetype(font, height - height // 4)
    except OSError as error:
        raise InitialiserError(
            f"'glyphs' cannot read the font {font}: {reason(error)}; give another as glyphs.font"
        ) from error

    def draw(text: str) -> Float32:
        width = max(4 * height, int(pen.getlength(text)) + 2)
        picture = Image.new("L", (width, height), 0)
        ImageDraw.Draw(picture).text((1, 0), text, fill=255, font=pen)
        squeezed = picture.resize((4 * height, height)) if width > 4 * height else picture
        points: Float32 = np.asarray(squeezed, dtype=np.float32).reshape(1, -1)
        return points / np.float32(255)

    return draw
