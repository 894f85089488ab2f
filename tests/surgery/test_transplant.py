"""The main job, end to end, on real tiny models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tokensurgeon import InitContext, NewRows, Recipe, SideRows, compare, transplant
from tokensurgeon.checkpoint import verify_manifest
from tokensurgeon.errors import InitialiserError, TokenizerError, UsageError
from tokensurgeon.evaluation import Entry, evaluate
from tokensurgeon.models.load import load_model
from tokensurgeon.report import SurgeryReport
from tokensurgeon.report.words import figures
from tokensurgeon.vocabulary import load_vocabulary

Checkpoints = Callable[..., Path]


def test_the_reported_figure_is_that_of_the_written_checkpoint(
    checkpoints: Checkpoints, world: Path, donor: Path, tmp_path: Path
) -> None:
    result = transplant(
        source=str(checkpoints()),
        donor=str(donor),
        init={"settings": {"omp": {"k": 8}}},
        text={"evaluation": [str(world / "evaluation.jsonl")]},
        output=str(tmp_path / "out"),
    )
    texts = [json.loads(x)["text"] for x in (world / "evaluation.jsonl").read_text().splitlines()]
    out = tmp_path / "out"
    again = evaluate(
        [
            Entry("source", load_model(checkpoints()), load_vocabulary(checkpoints())),
            Entry("patched", load_model(out), load_vocabulary(out)),
        ],
        texts,
    )
    said = {one["name"]: one for one in result.evaluation.to_dict()["entries"]}
    found = {one["name"]: one for one in again.to_dict()["entries"]}
    for name in ("source", "patched"):
        assert found[name]["bits_per_byte"] == pytest.approx(said[name]["bits_per_byte"], abs=1e-5)
    assert set(said) == {"source", "patched", "subword-mean"}


def test_everything_that_belongs_to_a_checkpoint_is_there(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    result = transplant(
        source=str(checkpoints()), tokenizer=str(world / "target"), output=str(tmp_path / "out")
    )
    out = tmp_path / "out"
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "manifest.json",
        "report.json",
        "README.md",
        "new_token_ids.json",
        "surgery/tokens.json",
        "surgery/input_weights.npz",
        "surgery/output_weights.npz",
    } <= names
    assert verify_manifest(out) == []
    report = SurgeryReport.from_json((out / "report.json").read_text())
    assert report.rows.total == result.alignment.target.n_rows
    new = json.loads((out / "new_token_ids.json").read_text())
    control = result.alignment.target.id_of("<|note|>")
    assert new["new_token_ids"] == sorted([control, *result.alignment.missing.tolist()])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_side_that_is_named_gets_the_plain_default_beside_it(
    checkpoints: Checkpoints, world: Path, donor: Path
) -> None:
    source = str(checkpoints())
    init = {"output": "subword-mean"}
    alone = transplant(source=source, tokenizer=str(world / "target"), init=init).report
    assert (alone.input.method, alone.output.method) == ("hidden-residual", "subword-mean")
    tied = transplant(
        source=str(checkpoints(tied=True)), tokenizer=str(world / "target"), init=init
    ).report
    assert (tied.input.method, tied.output.method) == ("subword-mean", "subword-mean")
    named = {"input": "omp", "settings": {"omp": {"k": 4}}}
    helped = transplant(source=source, donor=str(donor), init=named).report
    assert (helped.input.method, helped.output.method) == ("omp", "omp")
    assert helped.donor_methods == ("patched",)
    # What was left open is reported as it was used.
    assert alone.input.settings["layer"] == 1
    assert helped.input.settings["k"] == 4
    assert alone.donor_methods == ()


@dataclass(frozen=True)
class Reader:
    """A plug-in that looks at the calibration text."""

    name: ClassVar[str] = "reader"

    def __call__(self, context: InitContext) -> NewRows:
        value = float(len(context.texts))
        rows = np.full((context.n_missing, context.width), value, dtype=np.float32)
        return NewRows(input=SideRows(dense=rows), output=SideRows(dense=rows))


@dataclass(frozen=True)
class Broken:
    """A plug-in with a mistake."""

    name: ClassVar[str] = "broken"

    def __call__(self, context: InitContext) -> NewRows:
        raise KeyError("rows")


def test_a_plugin_that_fails_is_blamed_by_name(checkpoints: Checkpoints, world: Path) -> None:
    recipe = Recipe.parse({"source": str(checkpoints()), "tokenizer": str(world / "target")})
    with pytest.raises(
        InitialiserError, match="'broken' fails: KeyError: there is no 'rows'; mend"
    ):
        transplant(recipe, initialiser=Broken())


def test_the_report_says_which_methods_saw_the_text(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.txt").write_text("A text of its own, for methods to look at.")
    text = {
        "evaluation": [str(world / "evaluation.jsonl")],
        "calibration": [str(tmp_path / "other.txt")],
    }
    recipe = Recipe.parse(
        {"source": str(checkpoints()), "tokenizer": str(world / "target"), "text": text}
    )
    plain = transplant(recipe)  # too little text to choose or calibrate by
    assert plain.report.text_methods == ()
    assert any("nothing was chosen or calibrated" in line for line in plain.report.warnings)
    report = transplant(recipe, initialiser=Reader()).report
    assert report.text_methods == ("patched",)
    given = {figure.name: figure.text_bytes for figure in figures(report)}
    assert given["patched: reader"] == report.calibration_bytes > 0
    assert given["subword-mean"] == given["source"] == 0


def test_a_dry_run_computes_no_rows_and_writes_nothing(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    result = transplant(
        source=str(checkpoints()),
        tokenizer=str(world / "target"),
        output=str(tmp_path / "out"),
        dry_run=True,
    )
    full = transplant(source=str(checkpoints()), tokenizer=str(world / "target"), calibrate=())
    assert result.rows is None
    assert not (tmp_path / "out").exists()
    assert result.report.estimate["seconds"] > 0
    assert result.report.estimate["memory_bytes"] > 2 * 350 * 32 * 4
    for side in ("input", "output"):
        planned, made = getattr(result.report, side), getattr(full.report, side)
        for key in ("copied", "initialised", "unspellable", "controls", "padding"):
            assert getattr(planned, key) == getattr(made, key), (side, key)


def test_a_dry_run_counts_calibration_and_healing(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    text = tmp_path / "calibration.txt"
    text.write_text("Rows and tables. " * 6_000)
    fields: dict[str, Any] = {"source": str(checkpoints()), "tokenizer": str(world / "target")}
    fields["text"] = {"calibration": [str(text)]}
    fields["init"] = {"input": "mean", "output": "mean"}

    def took(**more: Any) -> dict[str, float]:
        return transplant(**fields, **more, dry_run=True).report.estimate

    none = took(calibrate=())
    healed = took(calibrate=(), heal=3)
    assert healed["seconds"] >= 180
    assert healed["memory_bytes"] > none["memory_bytes"]
    fitted = {"calibrate": ("unigram",)}
    assert took(**fitted)["memory_bytes"] > none["memory_bytes"]
    # The budget bounds what calibration may take; a named method is not calibrated unasked.
    assert took(**fitted, budget=0)["memory_bytes"] == none["memory_bytes"]
    assert took()["memory_bytes"] == none["memory_bytes"]


def test_a_dry_run_counts_arithmetic_where_no_model_runs(
    tiny_source: Path, tiny_donor: Path
) -> None:
    def making(name: str) -> float:
        init = {"input": name, "output": name}
        fields: dict[str, Any] = {"source": str(tiny_source), "donor": str(tiny_donor)}
        report = transplant(**fields, init=init, budget=0, dry_run=True).report
        (step,) = (step for step in report.steps if step.step == "initialise")
        return step.seconds

    assert making("omp") > making("subword-mean") == 0


def test_a_vocabulary_is_trained_and_transplanted_by_one_recipe(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text((world / "evaluation.jsonl").read_text() * 30)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"source: {checkpoints()}\n"
        "tokenizer: {method: bpe, corpus: [corpus.txt], size: 300, save: vocabulary}\n"
        "output: out\n"
    )
    result = transplant(Recipe.from_yaml(recipe))
    assert result.output == tmp_path / "out"
    assert (tmp_path / "vocabulary/tokenizer.json").exists()
    assert load_vocabulary(tmp_path / "out").fingerprint == result.alignment.target.fingerprint


@pytest.mark.parametrize("other", ["calibration", "vocabulary"])
def test_a_text_that_served_another_purpose_is_not_measured_on(
    other: str, checkpoints: Checkpoints, world: Path
) -> None:
    text = [str(world / "evaluation.jsonl")]
    tokenizer: object = str(world / "target")
    if other == "vocabulary":
        tokenizer = {"method": "bpe", "corpus": text, "size": 260}
    with pytest.raises(UsageError, match=f"{other}.*share none"):
        transplant(
            source=str(checkpoints()),
            tokenizer=tokenizer,
            text={"evaluation": text, "calibration": text if other == "calibration" else []},
        )


def test_documents_that_share_thirteen_words_with_the_calibration_text_are_left_out(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    texts = [json.loads(x)["text"] for x in (world / "evaluation.jsonl").read_text().splitlines()]
    (tmp_path / "near.txt").write_text(f"Before it. {texts[0].upper()} After it.")
    (tmp_path / "rest.jsonl").write_text("\n".join(map(json.dumps, texts[1:])))

    def run(evaluation: Path) -> SurgeryReport:
        return transplant(
            source=str(checkpoints()),
            tokenizer=str(world / "target"),
            text={"evaluation": [str(evaluation)], "calibration": [str(tmp_path / "near.txt")]},
        ).report

    report, rest = run(world / "evaluation.jsonl"), run(tmp_path / "rest.jsonl")
    assert any("1 of 5 evaluation documents share 13 words" in line for line in report.warnings)
    assert not any("13 words" in line for line in rest.warnings)
    assert report.evaluation["text"] == rest.evaluation["text"]
    (tmp_path / "near.txt").write_text(" ".join([texts[0], texts[1], texts[4]]))
    with pytest.raises(UsageError, match="3 of 5 evaluation documents share 13 words in a row"):
        run(world / "evaluation.jsonl")


def test_untying_says_what_it_costs_and_what_it_buys(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {
        "source": str(checkpoints(tied=True)),
        "tokenizer": str(world / "target"),
        "text": {"evaluation": [str(world / "evaluation.jsonl")]},
        "pad_to_multiple_of": 64,
    }
    plain = {"input": "subword-mean", "output": "subword-mean"}
    tied = transplant(**fields, init=plain, output=str(tmp_path / "tied"))
    two = transplant(**fields, untie=True, output=str(tmp_path / "two"))
    assert tied.report.untied is None
    weights = [tmp_path / name / "model.safetensors" for name in ("tied", "two")]
    more = weights[1].stat().st_size - weights[0].stat().st_size
    # The header of the file grows by a line.
    assert 0 <= more - two.report.untied.extra_bytes < 200
    beside = two.evaluation[two.report.untied.tied_entry]
    assert beside.bits_per_byte == pytest.approx(tied.evaluation["patched"].bits_per_byte)
    buys = beside.bits_per_byte - two.evaluation["patched"].bits_per_byte
    card = (tmp_path / "two" / "README.md").read_text("utf-8")
    said = f"buys {buys:.4f} bits" if buys > 0 else "buys nothing"
    assert f"the second matrix adds {two.report.rows.total * 32 * 4 // 1000} kB and {said}" in card


def test_the_result_and_the_baselines_each_have_the_split_by_cuts(
    checkpoints: Checkpoints, world: Path
) -> None:
    report = transplant(
        source=str(checkpoints()),
        tokenizer=str(world / "target"),
        init={"input": "mean", "output": "mean"},
        baselines=["subword-mean"],
        text={"evaluation": [str(world / "evaluation.jsonl")]},
    ).report
    splits = {entry["name"]: entry["by_span"] for entry in report.evaluation["entries"]}
    assert splits.pop("source") is None
    assert set(splits) == {"patched", "subword-mean"}
    same = ("relation", "tokens", "bytes", "source_bits_per_byte")
    ours, theirs = splits.values()
    assert [[part[key] for key in same] for part in ours] == [
        [part[key] for key in same] for part in theirs
    ]
    assert ours[0]["relation"] == "one source token"
    assert ours[0]["on_source_states"] != theirs[0]["on_source_states"] > 0


def test_comparing_puts_every_method_under_one_protocol(
    checkpoints: Checkpoints, world: Path, donor: Path
) -> None:
    text = {"evaluation": [str(world / "evaluation.jsonl")]}
    recipe = Recipe.parse({"source": str(checkpoints()), "donor": str(donor), "text": text})
    methods = ["mean", "subword-mean", "omp", "hidden-residual/subword-mean"]
    table = compare(recipe, methods)
    assert table.rows[0]["method"] == "source"
    rows = {row["method"]: row for row in table.rows}
    assert set(rows) == {"source", *methods}
    # omp's default k is larger than what these vocabularies share: it says so in its row.
    assert rows["omp"]["error"] is None or "share" in rows["omp"]["error"]
    assert rows["mean"]["forward_tokens"] == 0
    assert rows["hidden-residual/subword-mean"]["forward_tokens"] > 0
    alone = transplant(
        source=str(checkpoints()),
        tokenizer=str(world / "target"),
        init={"input": "subword-mean", "output": "subword-mean"},
        text={"evaluation": [str(world / "evaluation.jsonl")]},
    )
    patched = next(x for x in alone.evaluation.to_dict()["entries"] if x["name"] == "patched")
    assert rows["subword-mean"]["bits_per_byte"] == pytest.approx(patched["bits_per_byte"])
    assert table.to_csv().count("\n") == 1 + len(table.rows)


def test_untrained_blocks_are_no_anchors() -> None:
    from tokensurgeon.checkpoint.trained_rows import row_hashes

    rows = np.random.default_rng(1).normal(size=(9000, 6)).astype(np.float32)
    rows[100] = rows[8999]
    rows[5] = rows[6] * -1
    hashes = row_hashes(rows)
    assert np.unique(hashes).size == 8999
    assert hashes[100] == hashes[8999]


def test_a_tokenizer_that_would_be_read_otherwise_is_refused_before_the_work(
    model_of: Checkpoints, tmp_path: Path
) -> None:
    target = shutil.copytree(model_of("qwen2"), tmp_path / "target")
    stored = json.loads((target / "tokenizer.json").read_text())
    regex = {**stored["pre_tokenizer"], "use_regex": False}
    digits = {"type": "Digits", "individual_digits": True}
    stored["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, regex]}
    (target / "tokenizer.json").write_text(json.dumps(stored))
    fields: dict[str, Any] = {
        "source": str(model_of("qwen2")),
        "tokenizer": str(target),
        "dry_run": True,  # ends before any row is computed
    }
    output = tmp_path / "out"
    with pytest.raises(TokenizerError, match="AutoTokenizer loads"):
        transplant(**fields, output=str(output))
    transplant(**fields, output=str(output), allow_autotokenizer_mismatch=True)
    told = transplant(**fields).report.warnings  # nothing is written, so nothing is refused
    assert any("AutoTokenizer loads" in line for line in told)
    assert not output.exists()


@pytest.mark.parametrize("as_draft", [False, True])
def test_report_and_card_say_what_the_tokenizer_has_from_whom(
    model_of: Checkpoints, tmp_path: Path, as_draft: bool
) -> None:
    target = shutil.copytree(model_of(), tmp_path / "target")
    stored = json.loads((target / "tokenizer.json").read_text())
    ended = {"type": "BertProcessing", "cls": ["<s>", 0], "sep": ["</s>", 1]}
    (target / "tokenizer.json").write_text(json.dumps({**stored, "post_processor": ended}))
    named = {"for_draft" if as_draft else "tokenizer": str(target)}
    settings: dict[str, Any] = {
        "source": str(model_of()), **named, "init": {"input": "mean", "output": "mean"},
        "output": str(tmp_path / "out"),
    }  # fmt: skip
    planned = transplant(**settings, dry_run=True).report
    report = transplant(**settings).report
    around = {one.what: (one.value, one.origin) for one in report.tokenizer}["around a text"]
    if as_draft:
        assert around == ("<s> text </s>", "target")
    else:
        assert around == ("<s> text", "target, its end as in the source")
    line = "add_special_tokens=False" if as_draft else "--special-tokens target"
    assert [sum(line in one for one in each.warnings) for each in (planned, report)] == [1, 1]
    assert f"| around a text | {around[0]} |" in (tmp_path / "out" / "README.md").read_text()
