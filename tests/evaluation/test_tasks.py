"""Tasks: made of text, asked for in a command that can be typed, and measured by the harness.

What needs lm-evaluation-harness skips without it; what does not is most of it: the commands of
reports, the making of tasks, how sure a difference is, and what is refused.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scripts import script
from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.cli.main import main
from tokensurgeon.errors import CorpusError, OutputExistsError, UsageError
from tokensurgeon.evaluation import evaluate_checkpoint, evaluate_tasks, make_tasks
from tokensurgeon.evaluation.tasks import STANDARD_TASKS
from tokensurgeon.evaluation.tasks.harness_command import (
    HarnessSettings,
    command_line,
    model_args,
)
from tokensurgeon.evaluation.tasks.task_table import figures_of, standard_error
from tokensurgeon.text.chunks import chunk_documents
from tokensurgeon.vocabulary import load_vocabulary

SHIPPED = Path(__file__).parent.parent.parent / "tokensurgeon" / "data"
TEXT = SHIPPED / "text" / "evaluation.jsonl"


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def parsed(command: str) -> tuple[dict, dict]:
    """Read a command as a shell and the harness do: the model's arguments, and the options."""
    program, *words = shlex.split(command)
    assert program == "lm_eval"
    assert len(words) % 2 == 0
    options = dict(zip(words[::2], words[1::2], strict=True))
    args = options.pop("--model_args")
    if args.startswith("{"):
        return json.loads(args), options
    pairs = dict(word.split("=", 1) for word in args.split(","))
    return {k: {"True": True, "False": False}.get(v, v) for k, v in pairs.items()}, options


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


# -- commands ------------------------------------------------------------------------------------


@given(name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
@settings(max_examples=200)
def test_a_command_holds_any_path_whole(name: str) -> None:
    args = {"pretrained": f"/models/{name}", "dtype": "float32", "add_bos_token": True}
    options = HarnessSettings(folder=Path(f"/tasks/{name}"), limit=5, device="cpu")
    found, others = parsed(command_line(args, ["a", "b"], options))
    assert found == args
    assert others["--tasks"] == "a,b"
    assert others["--include_path"] == str(options.folder)
    assert (others["--limit"], others["--batch_size"], others["--device"]) == ("5", "1", "cpu")


def test_a_path_with_what_separates_arguments_is_written_as_json(tiny_source: Path) -> None:
    """The harness parts ``key=value`` at commas, and takes a bare number for a number."""
    vocabulary = load_vocabulary(tiny_source)
    for name, plain in (("/a/b", True), ("/a/b,dtype=x", False), ("/a/{b}", False), ("12", True)):
        args = model_args(Path(name), vocabulary, HarnessSettings(), rolling=False)
        command = command_line(args, ["t"], HarnessSettings())
        assert ("pretrained=" in command) == plain
        assert parsed(command)[0]["pretrained"] == ("./12" if name == "12" else name)


def test_a_text_is_read_after_one_start_token_whatever_the_task(tiny_source: Path) -> None:
    vocabulary = load_vocabulary(tiny_source)
    after_context = model_args(tiny_source, vocabulary, HarnessSettings(), rolling=False)
    whole_text = model_args(tiny_source, vocabulary, HarnessSettings(), rolling=True)
    assert after_context["add_bos_token"] is True
    assert (whole_text["add_bos_token"], whole_text["prefix_token_id"]) == (False, 0)


def test_a_tokenizer_without_bos_is_not_asked_for_one(tmp_path: Path) -> None:
    """transformers would take the end-of-text token, or refuse."""
    folder = save_tokenizer(byte_level_bpe(300, ["</s>"]), tmp_path, eos_token="</s>")
    args = model_args(folder, load_vocabulary(folder), HarnessSettings(), rolling=False)
    assert args["add_bos_token"] is False


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("org/model", {"pretrained": "org/model"}),
        ("org/model@v2", {"pretrained": "org/model", "revision": "v2"}),
        ("patched", {"pretrained": "./patched"}),
        (Path("out/patched"), {"pretrained": "./out/patched"}),
    ],
)
def test_a_model_id_stays_one_and_a_folder_is_a_path(name, found, tiny_source: Path) -> None:
    options = HarnessSettings(device="auto", trust_remote_code=True)
    args = model_args(name, load_vocabulary(tiny_source), options, rolling=False)
    assert {key: args[key] for key in found} == found
    assert args["parallelize"] is args["trust_remote_code"] is True
    assert "--device" not in command_line(args, ["t"], options)


def test_a_report_says_how_source_and_patched_are_measured_on_tasks(
    tiny_source: Path, tiny_donor: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a folder" / "patched"
    transplant(
        source=str(tiny_source),
        tokenizer=str(tiny_donor),
        output=str(output),
        init={"input": "subword-mean", "output": "subword-mean"},
    )
    commands = json.loads((output / "report.json").read_text("utf-8"))["harness"]
    assert list(commands) == ["source", "patched"]
    for name, folder in (("source", tiny_source), ("patched", output)):
        args, options = parsed(commands[name])
        assert args == {
            "pretrained": str(folder),
            "dtype": "float32",
            "add_bos_token": True,
        }
        assert options["--tasks"] == ",".join(STANDARD_TASKS)
    card = (output / "README.md").read_text("utf-8")
    assert "\n".join(["```sh", *commands.values(), "```"]) in card


def test_a_report_without_a_checkpoint_names_no_command(tiny_source: Path, tiny_donor: Path):
    result = transplant(
        source=str(tiny_source),
        tokenizer=str(tiny_donor),
        init={"input": "subword-mean", "output": "subword-mean"},
    )
    assert result.report.harness == {}


# -- tasks of any text ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty items of each task, made of the text that ships."""
    return make_tasks(tmp_path_factory.mktemp("tasks") / "made", [TEXT], n=40, max_bytes=6_000)


def content(folder: Path) -> dict[str, bytes]:
    """What is in the files but for the folder's own path, and so without the list of hashes."""
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.stem != "tasks"}
    return {name: data.replace(bytes(folder), b"FOLDER") for name, data in files.items()}


def test_the_same_text_and_seed_give_the_same_bytes(tasks: Path, tmp_path: Path) -> None:
    again, other = (
        make_tasks(tmp_path / name, [TEXT], n=40, max_bytes=6_000, seed=seed)
        for name, seed in (("again", 0), ("other", 1))
    )
    assert content(again) == content(tasks)
    changed = {name for name, data in content(tasks).items() if content(other)[name] != data}
    assert changed == {"cloze.jsonl", "choice.jsonl", "arithmetic.jsonl"}


def test_items_are_what_the_text_says(tasks: Path) -> None:
    texts = [document["text"] for document in lines(TEXT)]
    whole = "\n".join(texts)
    for item in lines(tasks / "cloze.jsonl"):
        assert item["context"] + item["target"] in whole
        assert item["target"].strip().isalpha()
    answers = []
    for item in lines(tasks / "choice.jsonl"):
        follows = [item["context"] + choice in whole for choice in item["choices"]]
        assert follows.index(True) == item["answer"]
        assert follows.count(True) == 1
        assert len(set(item["choices"])) == 4
        answers.append(item["answer"])
    assert set(answers) == {0, 1, 2, 3}
    for item in lines(tasks / "arithmetic.jsonl"):
        sums = (item["context"] + item["target"]).splitlines()
        assert len(sums) == 5
        for line in sums:
            a, sign, b, _, result = line.split(" ")
            assert int(result) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
    chunks = chunk_documents(texts, max_bytes_total=6_000)
    assert [item["text"] for item in lines(tasks / "bits.jsonl")] == [c.text for c in chunks]


def test_each_task_file_names_its_items(tasks: Path) -> None:
    for name in ("cloze", "choice", "arithmetic", "bits"):
        task = yaml.safe_load((tasks / f"{name}.yaml").read_text("utf-8"))
        assert task["task"] == f"local_{name}"
        (file,) = task["dataset_kwargs"]["data_files"].values()
        assert Path(file) == tasks / f"{name}.jsonl"
        assert Path(file).is_absolute()


def test_only_tasks_of_ours_are_replaced(tmp_path: Path) -> None:
    folder = make_tasks(tmp_path / "made", [TEXT], n=10)
    with pytest.raises(OutputExistsError, match="add --force"):
        make_tasks(folder, [TEXT], n=10)
    make_tasks(folder, [TEXT], n=12, force=True)
    assert len(lines(folder / "cloze.jsonl")) == 12
    (folder / "mine.yaml").write_text("task: mine")
    with pytest.raises(OutputExistsError, match=r"mine\.yaml"):
        make_tasks(folder, [TEXT], n=10, force=True)
    assert len(lines(folder / "cloze.jsonl")) == 12


def test_what_makes_no_tasks_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    output = tmp_path / "made"
    short = tmp_path / "short.txt"
    short.write_text("One sentence of nine words is not enough here.")
    for error, said, text, n, prefix in (
        (UsageError, "9 items of a task say nothing", TEXT, 9, "local"),
        (UsageError, "cannot be named 'a,b'", TEXT, 10, "a,b"),
        (CorpusError, r"the text has 1 sentences for the last word", short, 10, "local"),
        (CorpusError, "there is no text file", tmp_path / "none.txt", 10, "local"),
    ):
        with pytest.raises(error, match=said):
            make_tasks(output, [text], n=n, prefix=prefix)
        assert not output.exists()


def test_the_script_makes_tasks_of_the_text_that_ships(tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = ["make_tasks.py", str(tmp_path / "made"), "--items", "10", "--prefix", "mine"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert script("make_tasks").main() == 0
    assert "mine_choice: 10 items, such as {" in capsys.readouterr().out
    assert script("make_tasks").main() == 2
    assert "exists already" in capsys.readouterr().err


# -- how sure a difference is --------------------------------------------------------------------


def mean(values):
    return sum(values) / len(values)


def root_mean_square(values):
    return math.sqrt(mean([value**2 for value in values]))


def test_the_error_of_a_difference_is_that_of_paired_items() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(size=300)  # what both models find hard
    first, last = (hard + 0.1 * rng.normal(size=300) for _ in range(2))
    paired = standard_error([first.tolist(), last.tolist()], mean)
    assert paired == pytest.approx((last - first).std(ddof=1) / math.sqrt(300))
    alone = standard_error([first.tolist()], mean)
    assert alone == pytest.approx(first.std(ddof=1) / math.sqrt(300))
    assert paired < 0.2 * math.hypot(alone, standard_error([last.tolist()], mean))


def test_a_figure_that_is_no_mean_has_the_error_of_a_bootstrap() -> None:
    """Of a mean under another name it is that of the formula; items are drawn in pairs."""
    values = np.random.default_rng(2).normal(size=200).tolist()

    def average(chosen):
        return mean(chosen)

    drawn = standard_error([values], average)
    assert drawn == pytest.approx(standard_error([values], mean), rel=0.15)
    assert drawn == standard_error([values], average)
    assert standard_error([values, values], root_mean_square) == 0.0


def test_no_error_is_made_up() -> None:
    assert standard_error([[1.0]], mean) is None
    assert standard_error([[1.0, 2.0]], None) is None
    assert standard_error([[1.0, 2.0], [1.0]], mean) is None


class _Accuracy:
    """What a task of the harness is asked for."""

    def aggregation(self):
        return {"acc": mean}


def test_figures_are_paired_by_item_in_whatever_order_they_come() -> None:
    def result(answers):
        samples = [{"doc_id": i, "filter": "none", "acc": a} for i, a in answers.items()]
        accuracy = mean(list(answers.values()))
        return {
            "results": {"t": {"alias": "t", "acc,none": accuracy, "acc_stderr,none": "N/A"}},
            "samples": {"t": samples},
            "groups": {"g": {"acc,none": accuracy}},
            "group_subtasks": {"g": ["t"]},
            "n-samples": {"t": {"original": 9, "effective": 3}},
            "higher_is_better": {"t": {"acc": True}},
        }

    results = [result({0: 1, 1: 0, 2: 1}), result({2: 0, 1: 0, 0: 1})]
    figure, group = figures_of(results, {"t": _Accuracy()})
    assert (group.task, group.n_items, group.higher_is_better) == ("g", 3, None)
    assert group.difference.value == pytest.approx(-1 / 3)
    assert group.difference.error is None  # the harness keeps no items of a group
    assert (figure.task, figure.metric, figure.n_items) == ("t", "acc", 3)
    assert figure.difference.value == pytest.approx(-1 / 3)
    assert figure.difference.error == pytest.approx(1 / 3)
    assert figures_of(results[:1], {"t": _Accuracy()})[0].difference is None


# -- the command line, without the harness ---------------------------------------------------------


def test_without_the_harness_one_line_says_what_to_install(
    tiny_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    result = run(tiny_source, "--tasks", "arc_easy")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "--tasks needs lm-eval, which is not installed; run: pip install lm-eval" in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to measure on; give TEXT, --tasks or both"),
        (["--tasks", "a", "--max-rise", "1", "--against", "b"], "--max-rise is about a text"),
        (["--tasks", "a", "--generate", "1"], "--generate is about a text"),
        (["--limit", "3", "TEXT"], "--limit and --num-fewshot are about tasks"),
        (["--tasks", "a", "--draft-for", "b", "TEXT"], "leave out --tasks"),
        (["--tasks", "a/b"], "there is no folder of tasks a/b"),
        (["--tasks-folder", "none"], "there is no folder of tasks"),
        (["--tasks", "FOLDER", "--tasks", "OTHER"], "2 folders of tasks are named"),
        (["--tasks", "FOLDER,arc_easy"], "a folder of tasks and names are given together"),
        (["--tasks", "TEXT"], "is a file; give its folder with --tasks-folder"),
        (["--tasks", ","], "no task is named"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_measured(
    arguments, said, tiny_source: Path, tiny_text: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    places = {"TEXT": tiny_text, "FOLDER": tmp_path, "OTHER": tmp_path / "other"}
    for name, path in places.items():
        arguments = [word.replace(name, str(path)) for word in arguments]
    result = run(tiny_source, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert result.stdout == ""


def test_other_kinds_of_models_are_refused_by_name(tmp_path: Path, tiny_source: Path) -> None:
    import transformers

    common = {"vocab_size": 320, "hidden_size": 16, "num_hidden_layers": 1}
    bert = transformers.BertConfig(num_attention_heads=2, intermediate_size=16, **common)
    t5 = transformers.T5Config(
        vocab_size=320, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    for name, model in (
        ("an encoder", transformers.BertForMaskedLM(bert)),
        ("an encoder–decoder", transformers.T5ForConditionalGeneration(t5)),
    ):
        folder = tmp_path / name
        model.save_pretrained(folder)
        for file in tiny_source.glob("tokenizer*.json"):
            (folder / file.name).write_bytes(file.read_bytes())
        result = run(folder, "--tasks", "arc_easy")
        assert result.exit_code == 1
        assert f"is {name}, and tasks are measured on causal language models" in result.stderr


def test_a_tokenizer_that_drops_out_or_starts_no_text_is_refused(
    tiny_source: Path, tmp_path: Path
) -> None:
    def changed(name, file, change):
        folder = make_model(tmp_path / name, n_rows=320, tokenizer=tiny_source)
        document = json.loads((folder / file).read_text("utf-8"))
        change(document)
        (folder / file).write_text(json.dumps(document), "utf-8")
        return folder

    dropping = changed("dropping", "tokenizer.json", lambda d: d["model"].update(dropout=0.1))
    assert "stores a BPE dropout" in run(dropping, "--tasks", "a").stderr
    nameless = make_model(tmp_path / "nameless", n_rows=300)
    save_tokenizer(byte_level_bpe(300), nameless)
    assert "neither a BOS nor an EOS token" in run(nameless, "--tasks", "a").stderr


# -- the harness itself --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def harness() -> None:
    """Skips without lm-evaluation-harness, which is not among what CI installs."""
    for name in ("lm_eval", "accelerate"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; run: pip install lm-eval accelerate")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def bits_agree(checkpoint: Path, text: Path, folder: Path, **options) -> None:
    ours = evaluate_checkpoint(checkpoint, [text], **options)
    made = make_tasks(
        folder, [text], n=10, max_bytes=options["max_bytes"], chunk_bytes=ours.chunk_bytes
    )
    table = evaluate_tasks(checkpoint, ["local_bits"], folder=made)
    (figure,) = table.figures
    assert ours.n_too_long == 0
    assert ours.entries[0].n_lost == 0
    assert figure.n_items == ours.n_chunks
    assert figure.values[0].value == pytest.approx(ours.entries[0].bits_per_byte, abs=1e-4)


@pytest.mark.usefixtures("harness", "own_cache")
class TestHarness:
    """With it installed."""

    def test_its_bits_per_byte_are_ours(self, tmp_path: Path) -> None:
        bits_agree(SHIPPED / "source", TEXT, tmp_path / "tasks", max_bytes=6_000)

    def test_they_are_where_the_tokenizer_adds_the_start_token(
        self, assets: Path, tmp_path: Path
    ) -> None:
        stories = tmp_path / "stories.jsonl"
        text = json.loads((assets / "corpora" / "tinystories-valid.json").read_text("utf-8"))
        model = assets / "models" / "stories260K"
        stories.write_text("\n".join(map(json.dumps, text[:60])), "utf-8")
        bits_agree(model, stories, tmp_path / "tasks", max_bytes=8_000, chunk_bytes=512)

    def test_both_are_measured_and_stdout_is_json_alone(
        self, tasks: Path, tiny_source: Path, tiny_donor: Path
    ) -> None:
        command = [sys.executable, "-m", "tokensurgeon", "-q", "evaluate", str(tiny_donor)]
        command += ["--against", str(tiny_source), "--tasks", str(tasks), "--limit", "5", "--json"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tasks)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        table = json.loads(ended.stdout)["tasks"]
        assert table["models"] == [str(tiny_source), str(tiny_donor)]
        names = {(figure["task"], figure["metric"]) for figure in table["figures"]}
        assert {("local_cloze", "acc"), ("local_bits", "bits_per_byte")} < names
        for figure in table["figures"]:
            assert figure["n_items"] == 5
            first, last = (value["value"] for value in figure["values"])
            assert figure["difference"]["value"] == pytest.approx(last - first)
            assert figure["difference"]["error"] is not None
        assert [len(own) for own in table["commands"].values()] == [2, 2]

    def test_a_checkpoint_differs_from_itself_by_nothing(
        self, tasks: Path, tiny_source: Path, tiny_text: Path
    ) -> None:
        result = run(
            *(tiny_source, tiny_text, "--against", tiny_source, "--limit", "4"),
            *("--tasks", "local_cloze,local_choice", "--tasks-folder", tasks),
        )
        assert result.exit_code == 0, result.output
        assert "bits per byte" in result.stdout
        assert "local_cloze" in result.stdout
        (cells,) = (line.split("  ") for line in result.stdout.splitlines() if "acc_norm" in line)
        assert cells[-1].strip() == "+0.0000 ± 0.0000"
        assert result.stdout.count("lm_eval --model hf") == 2

    @pytest.mark.parametrize(
        ("task", "code", "said"),
        [
            ("local_clozes", 2, "has no task 'local_clozes'"),
            ("far_away", 1, "the data of task 'far_away' cannot be had"),
        ],
    )
    def test_a_task_that_cannot_be_had_is_one_line(
        self, task, code, said, tasks: Path, tiny_source: Path, tmp_path: Path, monkeypatch
    ) -> None:
        file = {"task": "far_away", "dataset_path": "nobody/nothing", "test_split": "test"}
        more = {"output_type": "loglikelihood", "doc_to_text": "a", "doc_to_target": "b"}
        folder = tmp_path / "tasks"
        folder.mkdir()
        (folder / "far.yaml").write_text(yaml.safe_dump(file | more))
        (folder / "near.yaml").write_text((tasks / "cloze.yaml").read_text("utf-8"))
        result = run(tiny_source, "--tasks", task, "--tasks-folder", folder)
        assert result.exit_code == code, result.output
        assert result.stderr.count("\n") == 1
        assert said in result.stderr
        if code == 2:
            assert "take 'local_cloze'" in result.stderr

    def test_a_folder_without_tasks_is_refused(self, tiny_source: Path, tmp_path: Path) -> None:
        result = run(tiny_source, "--tasks", tmp_path)
        assert result.exit_code == 1
        assert "holds no task of lm-evaluation-harness" in result.stderr

    @pytest.mark.sweep
    def test_the_commands_measure_what_the_table_says(
        self, tasks: Path, tiny_source: Path, tiny_donor: Path, tmp_path: Path
    ) -> None:
        table = evaluate_tasks(tiny_donor, [str(tasks)], tiny_source, limit=5)
        for i, name in enumerate(table.models):
            expected = {(f.task, f.metric): f.values[i].value for f in table.figures}
            found: dict[tuple[str, str], float] = {}
            for number, command in enumerate(table.commands[name]):
                found |= harness_says(command, tmp_path / f"{i}-{number}")
            assert found == pytest.approx(expected, abs=1e-6)

    @pytest.mark.sweep
    def test_the_commands_of_a_report_run(
        self, tasks: Path, tiny_source: Path, tiny_donor: Path, tmp_path: Path
    ) -> None:
        """With tasks that are on the machine: those that it names are fetched."""
        output = tmp_path / "a folder, with a comma" / "patched"
        transplant(
            source=str(tiny_source),
            tokenizer=str(tiny_donor),
            output=str(output),
            init={"input": "subword-mean", "output": "subword-mean"},
        )
        commands = json.loads((output / "report.json").read_text("utf-8"))["harness"]
        for name, command in commands.items():
            here = command.replace(",".join(STANDARD_TASKS), "local_cloze")
            assert here != command
            here += f" --include_path {shlex.quote(str(tasks))} --limit 5"
            checkpoint = {"source": tiny_source, "patched": output}[name]
            table = evaluate_tasks(checkpoint, ["local_cloze"], folder=tasks, limit=5)
            found = harness_says(here, tmp_path / f"results {name}")
            expected = {(f.task, f.metric): f.values[0].value for f in table.figures}
            assert found == pytest.approx(expected, abs=1e-6)


def harness_says(command: str, output: Path) -> dict[tuple[str, str], float]:
    """Run a command of the harness as it was printed, and return its figures."""
    program = Path(sys.executable).parent / "lm_eval"
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    typed = f"{command} --output_path {shlex.quote(str(output))}"
    ended = subprocess.run(
        ["sh", "-c", typed], capture_output=True, text=True, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    (file,) = output.rglob("results_*.json")
    return {
        (task, key.partition(",")[0]): value
        for task, values in json.loads(file.read_text("utf-8"))["results"].items()
        for key, value in values.items()
        if key.endswith(",none") and "_stderr" not in key
    }
