"""Reports: JSON reads back, the card and the table say what the report says."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from tokensurgeon.errors import CheckpointError
from tokensurgeon.recipe import Recipe
from tokensurgeon.report import (
    DonorFacts,
    ModelFacts,
    RowAudit,
    RowCounts,
    SideReport,
    SurgeryReport,
    TokenFact,
    TokenizerFacts,
    model_card,
    words,
)
from tokensurgeon.report.terminal import comparison_table, print_report


def entry(name: str, bits: float, gap: tuple[float, float, float] | None) -> dict[str, Any]:
    difference = gap and {
        "estimate": gap[0],
        "low": gap[1],
        "high": gap[2],
        "level": 0.95,
        "resamples": 1000,
        "unit": "documents",
    }
    part = {"bits_per_byte": bits, "tokens": 10, "bytes": 40, "mean_nats": 2.0}
    return {
        "name": name,
        "bits_per_byte": bits,
        "difference": difference,
        "perplexity_ratio": None if gap is None else 2.5,
        "bytes_per_token": 3.25,
        "by_match": None if gap is None else {"shared": part, "missing": part},
        "by_kind": {"words": part, "digits": part},
    }


def make_report(**fields: Any) -> SurgeryReport:
    side = SideReport(
        method="omp",
        settings={"k": 64, "centre": True},
        copied=4_000,
        initialised=2_100,
        unspellable=1,
        controls=2,
        padding=41,
        audit=RowAudit(
            new={"p1": 0.5, "p50": 1.0, "p99": 2.0, "max": 3.0},
            trained={"p1": 0.4, "p50": 1.1, "p99": 2.1, "max": 2.5},
        ),
    )
    values: dict[str, Any] = {
        "recipe": Recipe(source="models/source", donor="models/donor").model_dump(mode="json"),
        "source": ModelFacts(
            path="models/source",
            fingerprint="a" * 64,
            model_type="llama",
            n_tokens=4_096,
            n_rows=4_096,
            width=144,
            tied=False,
            dtype="bfloat16",
            max_positions=256,
        ),
        "target": TokenizerFacts(path="models/donor", fingerprint="b" * 64, n_tokens=6_103),
        "donor": DonorFacts(
            path="models/donor",
            fingerprint="c" * 64,
            n_rows=6_144,
            width=80,
            same_tokenizer=True,
            known_missing=2_100,
        ),
        "alignment": {"matches": {"exact": 3_990, "byte": 10}, "shared": 0.65, "lossy": False},
        "rows": RowCounts(total=6_144, used=6_103, padding=41),
        "tied": False,
        "input": side,
        "output": side.model_copy(update={"method": "subword-mean", "settings": {}}),
        "unspellable": (TokenFact(id=7, spelling="<weird|>"),),
        "unmatched_controls": (TokenFact(id=8, spelling="<|pad|>"),),
        "ids": {"config.json:eos_token_id": [2, 1], "config.json:pad_token_id": [3, None]},
        "evaluation": {
            "entries": [
                entry("source", 1.5, None),
                entry("patched", 2.0, (0.5, 0.45, 0.55)),
                entry("subword-mean", 2.25, (0.75, 0.7, 0.8)),
            ]
        },
        "baselines": ("subword-mean",),
        "donor_methods": ("patched",),
        "timings": {"read": 0.5, "total": 3.0},
        "peak_memory": 10**9,
        "warnings": ("the two cut digits differently: arithmetic will suffer",),
        "written_to": "out",
    }
    return SurgeryReport(**{**values, **fields})


def shown(report: SurgeryReport, width: int = 200) -> str:
    buffer = io.StringIO()
    print_report(Console(file=buffer, width=width), report)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "report",
    [make_report(), make_report(donor=None, evaluation=None, not_evaluated="no text")],
    ids=["whole", "bare"],
)
def test_json_reads_back_to_an_equal_report(report: SurgeryReport) -> None:
    text = report.to_json()
    assert SurgeryReport.from_json(text) == report
    assert json.loads(text)["schema_version"] == 1


def test_json_has_no_nan() -> None:
    """An infinite perplexity of a ruined model is null: JSON has no infinity."""
    evaluation = {
        "entries": [{"name": "source", "perplexity": math.inf, "by_kind": {"a": math.nan}}]
    }
    report = make_report(evaluation=evaluation)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(report.to_json(), parse_constant=refuse)
    assert data["evaluation"]["entries"][0]["perplexity"] is None
    assert SurgeryReport.from_json(report.to_json()) == report


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema_version": 2}', "\x00"])
def test_what_is_no_report_is_named(text: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"^here is not a report of schema version 1"
    ) as caught:
        SurgeryReport.from_json(text, where="here")
    assert "\n" not in str(caught.value)


def test_an_unknown_key_is_refused() -> None:
    data = json.loads(make_report().to_json())
    with pytest.raises(CheckpointError, match="extra_key"):
        SurgeryReport.from_json(json.dumps({**data, "extra_key": 1}))


def test_versions_are_filled_in() -> None:
    versions = make_report().versions
    assert {"python", "tokensurgeon", "torch", "transformers", "tokenizers"} <= set(versions)


def test_the_card_holds_every_figure_and_every_warning() -> None:
    report = make_report()
    card = model_card(report)
    for figure in ("1.5000", "2.0000", "2.2500", "+0.5000", "+0.4500 … +0.5500", "2.500", "3.25"):
        assert figure in card
    assert report.warnings[0] in card
    for word in ("`omp`", "k = 64, centre = true", "`subword-mean`", "donor rows", "'<|pad|>'"):
        assert word.replace("|", "\\|") in card, word
    assert "| `config.json:pad_token_id` | 3 | removed |" in card
    assert "AutoModelForCausalLM" in card
    assert "source: models/source" in card


def test_the_card_says_what_the_tokenizer_has_from_whom() -> None:
    decided = {"what": "padding_side", "value": "left", "origin": "source"}
    card = model_card(make_report(tokenizer=(decided,)))
    assert "| padding side | left | the source |" in card
    assert "What the tokenizer has from whom" not in model_card(make_report())


def tables(card: str) -> list[list[str]]:
    """Return the Markdown tables of a card as lists of lines."""
    found: list[list[str]] = []
    for before, line in zip(["", *card.splitlines()], card.splitlines(), strict=False):
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append(line)
    return found


@pytest.mark.parametrize(
    "report",
    [
        make_report(),
        make_report(evaluation=None, not_evaluated="no evaluation text was given"),
        make_report(tied=True, donor=None, warnings=(), ids={}, unspellable=()),
        make_report(warnings=("a | b",), alignment={"odd|key": "x|y", "list": list(range(9))}),
    ],
    ids=["whole", "unmeasured", "tied", "pipes"],
)
def test_the_card_is_well_formed_markdown(report: SurgeryReport) -> None:
    card = model_card(report)
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "\n\n\n\n" not in card
    assert card.count("```") % 2 == 0
    for table in tables(card):
        columns = {line.replace("\\|", "").count("|") for line in table}
        assert len(columns) == 1, table
        assert set(table[1]) <= set("|- "), table


def test_a_lossy_tokenizer_is_marked_not_comparable() -> None:
    lossy = {**entry("patched", 2.0, (0.5, 0.4, 0.6)), "chunks_not_comparable": 3}
    report = make_report(evaluation={"entries": [entry("source", 1.5, None), lossy]})
    for text in (model_card(report), shown(report)):
        assert "not comparable on 3 chunks where its tokenizer loses text" in text
    assert "not comparable" not in model_card(make_report()) + shown(make_report())


def test_the_card_says_when_nothing_was_measured() -> None:
    card = model_card(make_report(evaluation=None, not_evaluated="no evaluation text was given"))
    assert "It was not measured: no evaluation text was given." in card
    assert "none here" in card


def test_the_recipe_of_the_card_makes_the_same_surgery() -> None:
    import yaml

    block = model_card(make_report()).split("```yaml\n")[1].split("```")[0]
    assert Recipe.parse(yaml.safe_load(block)) == Recipe(
        source="models/source", donor="models/donor"
    )


def test_the_title_names_no_folder() -> None:
    facts = make_report().source.model_copy(update={"path": "/very/private/place/model"})
    title = model_card(make_report(source=facts)).splitlines()[6]
    assert title.startswith("# model with the tokenizer")


def test_the_terminal_shows_figures_and_warnings() -> None:
    text = shown(make_report())
    for word in (
        "4,000 copied (65 %)",
        "2,100 made by omp",
        "2 unmatched controls",
        "patched: omp (input), subword-mean (output)",
        "2.0000",
        "+0.5000",
        "warning: the two cut digits",
        "written out (3.0 s, peak memory 1.0 GB)",
    ):
        assert word in text, word


def test_rows_that_were_copied_and_then_calibrated_are_both() -> None:
    side = make_report().output.model_copy(update={"copied": 1, "recalibrated": 3_221})
    report = make_report(output=side)
    assert "3,222 copied (52 %), of them 3,221 then calibrated, 2,100 made by" in shown(report)
    card = model_card(report)
    assert "| 3,222 (52 %), of them 3,221 then calibrated | 2,100 |" in card
    assert "bit for bit, but for those that calibration then changed. " in card
    assert "then calibrated" not in model_card(make_report()) + shown(make_report())


def test_a_dry_run_says_what_it_would_take() -> None:
    estimate = {"seconds": 300.0, "memory_bytes": 2.5e9, "output_bytes": 5e6}
    text = shown(make_report(evaluation=None, dry_run=True, estimate=estimate, written_to=None))
    assert "dry run about 5 min, 2.5 GB of memory, 5.0 MB on disk" in text
    assert "to be made by omp" in text


def test_markup_in_names_is_shown_as_it_is() -> None:
    facts = make_report().source.model_copy(update={"path": "[bold]model[/bold]"})
    assert "[bold]model[/bold]" in shown(make_report(source=facts, warnings=("[red]x",)))
    assert "[red]x" in shown(make_report(warnings=("[red]x",)))


def test_a_comparison_shows_figures_and_the_reason_of_a_failure() -> None:
    rows: list[dict[str, Any]] = [
        {"method": "source", "bits_per_byte": 1.5, "gap": None, "interval": None, "error": None},
        {
            "method": "omp",
            "bits_per_byte": 2.0,
            "gap": 0.5,
            "interval": [0.4, 0.6],
            "perplexity_ratio": 2.0,
            "bytes_per_token": 3.0,
            "seconds": 1.25,
            "donor": True,
            "text_bytes": 250_000,
            "error": None,
        },
        {"method": "broken", "bits_per_byte": None, "error": "needs a donor: add --donor"},
    ]
    buffer = io.StringIO()
    Console(file=buffer, width=200).print(comparison_table(rows))
    text = buffer.getvalue()
    assert "+0.4000 … +0.6000" in text
    assert "donor rows, 250 kB of text" in text
    assert "broken: needs a donor: add --donor" in text


@pytest.mark.parametrize("width", [70, 80, 110, 200])
def test_no_figure_is_cut_on_a_narrow_terminal(width: int) -> None:
    row = {"method": "hidden-residual/subword-mean", "bits_per_byte": 2.0, "gap": 0.5,
           "interval": [0.4, 0.6], "perplexity_ratio": 123.25, "bytes_per_token": 3.07,
           "seconds": 23.5, "donor": True, "text_bytes": 250_000}  # fmt: skip
    buffer = io.StringIO()
    Console(file=buffer, width=width).print(comparison_table([row], width))
    for figure in ("2.0000", "+0.5000", "+0.4000 … +0.6000", "123.250", "3.07"):
        assert figure in buffer.getvalue(), figure
    assert ("23.5" in buffer.getvalue()) == (width >= 110)


@pytest.mark.parametrize("width", [70, 80, 110, 200])
def test_no_figure_after_further_training_is_cut_on_a_narrow_terminal(width: int) -> None:
    row = {"method": "hidden-residual/subword-mean", "bits_per_byte": 2.0, "after_steps": 1.75,
           "gap": 0.5, "interval": [0.4, 0.6], "perplexity_ratio": 123.25, "bytes_per_token": 3.07,
           "seconds": 23.5}  # fmt: skip
    buffer = io.StringIO()
    table = comparison_table([row], width, "after 50 steps")
    Console(file=buffer, width=width).print(table)
    lines = buffer.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "after 50 steps" in lines[0]
    assert lines[1].index("2.0000") < lines[1].index("1.7500") < lines[1].index("+0.5000")
    assert "+0.4000 … +0.6000" in lines[1]
    assert ("123.250" in lines[1]) == ("ppl ratio" in lines[0]) == (width >= 110)


def test_a_report_of_an_earlier_version_is_read() -> None:
    data = json.loads(make_report().to_json())
    audit = data["output"]["audit"]
    fact = {"id": 4, "spelling": "boo", "probability": 0.25, "first": 0.5, "reach": 2.0}
    del audit["over_predicted"], audit["n_over_predicted"]
    audit |= {"loud": [fact], "n_loud": 1}
    read = SurgeryReport.from_json(json.dumps(data)).output.audit
    assert read.over_predicted[0].spelling == "boo"
    assert read.n_over_predicted == 1


def test_what_rounds_to_zero_has_no_minus() -> None:
    assert words.percent(-0.0004) == "0 %"
    assert words.percent(-0.5) == "-50 %"
    assert words.number(-0.0004, 3) == "0.000"
    assert words.number(-0.0004, 3, sign=True) == "+0.000"
    assert words.number(-0.0006, 3, sign=True) == "-0.001"
