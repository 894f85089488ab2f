"""A surgery on a CUDA device: calibrated, healed and measured as on CPU."""

from __future__ import annotations

import pytest

from tests.studies.test_hypernet import pair, recipe, texts  # noqa: F401 - a fixture
from tokensurgeon import transplant
from tokensurgeon.studies.hypernet import train_hypernet


@pytest.fixture
def cuda() -> str:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


@pytest.mark.gpu
def test_a_surgery_on_cuda_comes_near_one_on_cpu(cuda: str, pair, tmp_path):  # noqa: F811
    source, target, text = pair
    held_out = tmp_path / "held-out.txt"
    held_out.write_text(texts(40, seed=1))
    figures = []
    for device in ("cpu", cuda):
        result = transplant(
            source=source,
            tokenizer=target,
            output=tmp_path / device,
            init={"input": "hidden-residual", "output": "subword-mean"},
            text={"calibration": [str(text)], "evaluation": [str(held_out)]},
            device=device,
        )
        figures.append([entry.bits_per_byte for entry in result.evaluation.entries])
    assert figures[1] == pytest.approx(figures[0], rel=0.02)


@pytest.mark.gpu
def test_a_hypernetwork_trains_on_cuda(cuda: str, pair, tmp_path):  # noqa: F811
    source, _, text = pair
    asked = recipe(source, source, text={"calibration": [str(text)]}, device=cuda)
    found = train_hypernet(asked, tmp_path / "net", size=16, steps=(4, 20))
    rungs = found.card["rungs"]
    assert rungs[-1]["bits_per_byte"] <= rungs[1]["bits_per_byte"] + 1e-4
