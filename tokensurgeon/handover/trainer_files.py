"""The files for each trainer, made of templates beside this module; nothing is written here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from tokensurgeon.handover.facts import Facts
from tokensurgeon.handover.two_stages import LORA_RATE, Stage, as_data, stages
from tokensurgeon.report.pages import fill

FOLDER = "continue"
"""Beside the checkpoint's own files."""
NO_NEW_ROWS = (
    "no row is new, so nothing has to be trained first: stage 1 is left out, and stage 2 takes its "
    "steps"
)


def hand_over_files(facts: Facts, names: Sequence[str]) -> dict[str, bytes | str]:
    """Return what is handed over, by path in the checkpoint's folder.

    The same facts and names give the same bytes.

    Parameters
    ----------
    facts : Facts
    names : sequence of str
        Of `TRAINERS`.
    """
    if not names:
        return {}
    rows, full = stages(bool(facts.ids), facts.longest)
    first = rows if facts.ids else None
    files: dict[str, str] = {}
    if facts.ids:
        indices = {module: list(facts.ids) for module in facts.modules}
        files["rows.json"] = json.dumps({"trainable_token_indices": indices}) + "\n"
    for name in names:
        files |= _FILES[name](facts, first, full)
    scripts = any(name in ("peft", "trl") for name in names)
    if scripts:
        files["common.py"] = _text("common.py.txt")
        files["stages.json"] = json.dumps(as_data(first, full), indent=2) + "\n"
    files["README.md"] = _filled(
        "README.md.jinja",
        facts,
        full,
        names=names,
        first=first,
        lora_rate=LORA_RATE,
        full_rate=full.rate,
    )
    return {f"{FOLDER}/{name}": files[name] for name in sorted(files)}


def ranges(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending ids as ranges, each from its first up to and without its end.

    Examples
    --------
    >>> ranges([3, 4, 5, 9])
    [(3, 6), (9, 10)]
    """
    found: list[tuple[int, int]] = []
    for i in ids:
        if found and found[-1][1] == i:
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return found


def _peft(facts: Facts, first: Stage | None, full: Stage) -> dict[str, str]:
    return {"train_peft.py": _text("train_peft.py.txt")}


def _trl(facts: Facts, first: Stage | None, full: Stage) -> dict[str, str]:
    return {"train_trl.py": _text("train_trl.py.txt")}


def _axolotl(facts: Facts, first: Stage | None, full: Stage) -> dict[str, str]:
    files = {"axolotl_stage2.yaml": _stage("axolotl", 2, facts, full)}
    if first is not None:
        spans = ranges(facts.ids)
        lines = [f"^{name}$[{a}:{b}]" for name in facts.parameters for a, b in spans]
        files["axolotl_stage1.yaml"] = _stage(
            "axolotl", 1, facts, first, ranges=lines, n_ranges=len(spans)
        )
    return files


def _llamafactory(facts: Facts, first: Stage | None, full: Stage) -> dict[str, str]:
    data = {"my_text": {"file_name": "text.jsonl", "columns": {"prompt": "text"}}}
    files = {
        "dataset_info.json": json.dumps(data, indent=2) + "\n",
        "llamafactory_stage2.yaml": _stage("llamafactory", 2, facts, full),
    }
    if first is not None:
        files["llamafactory_adapter.py"] = _text("llamafactory_adapter.py.txt")
        files["llamafactory_stage1.yaml"] = _stage("llamafactory", 1, facts, first)
        files["llamafactory_merge.yaml"] = _filled("llamafactory_merge.yaml.jinja", facts, first)
    return files


_FILES: dict[str, Callable[[Facts, Stage | None, Stage], dict[str, str]]] = {
    "peft": _peft,
    "trl": _trl,
    "axolotl": _axolotl,
    "llamafactory": _llamafactory,
}


def _stage(name: str, number: int, facts: Facts, stage: Stage, **values: Any) -> str:
    """Return a stage's YAML: its own part, and what both stages of the trainer say alike."""
    common = _filled(f"{name}_common.jinja", facts, stage)
    return _filled(f"{name}_stage{number}.yaml.jinja", facts, stage, common=common, **values)


def _text(name: str) -> str:
    return (resources.files("tokensurgeon.handover") / "templates" / name).read_text("utf-8")


def _filled(template: str, facts: Facts, stage: Stage, **values: Any) -> str:
    return fill(
        f"templates/{template}",
        cell=lambda value: value,
        package="tokensurgeon.handover",
        n_new=len(facts.ids),
        both=len(facts.parameters) > 1,
        dtype=facts.dtype,
        warmup_steps=round(stage.warmup * stage.steps),
        **{**vars(stage), "rate": f"{stage.rate:.1e}"},
        **values,
    )
