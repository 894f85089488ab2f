"""A surgery on a CUDA device: calibrated, healed and measured as on CPU."""

from __future__ import annotations

import json

import pytest

from tests.surgery.test_hypernet import pair, recipe  # noqa: F401 - a fixture
from tokensurgeon import transplant
from tokensurgeon.surgery.hypernet import train_hypernet


@pytest.fixture
def cuda() -> str:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


@pytest.mark.gpu
def test_a_surgery_on_cuda_comes_near_one_on_cpu(cuda: str, pair, tmp_path):  # noqa: F811
    source, target, text = pair
    figures = []
    for device in ("cpu", cuda):
        result = transplant(
            source=source,
            tokenizer=target,
            output=tmp_path / device,
            init={"input": "hidden-residual", "output": "subword-mean"},
            text={"calibration": [str(text)], "evaluation": [str(text)]},
            allow_seen_text=True,
            device=device,
        )
        report = json.loads((tmp_path / device / "report.json").read_text())
        figures.append(json.dumps(report).count("bits"))
        assert result is not None
    assert figures[0] == figures[1]


@pytest.mark.gpu
def test_a_hypernetwork_trains_on_cuda(cuda: str, pair, tmp_path):  # noqa: F811
    source, _, text = pair
    asked = recipe(source, source, text={"calibration": [str(text)]}, device=cuda)
    found = train_hypernet(asked, tmp_path / "net", size=16, steps=(4, 20))
    rungs = found.card["rungs"]
    assert rungs[-1]["bits_per_byte"] < rungs[0]["bits_per_byte"]
