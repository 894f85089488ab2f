"""A push: a sound checkpoint, whole, without paths of this machine; one line where it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.handover.hub_stand_in import TOKEN, Hub
from tokensurgeon import transplant
from tokensurgeon.checkpoint import recheck
from tokensurgeon.checkpoint.manifest import NAME as MANIFEST
from tokensurgeon.checkpoint.tokenizer_files import json_bytes
from tokensurgeon.cli.main import main
from tokensurgeon.errors import CheckpointError, HubError, UsageError
from tokensurgeon.handover import hub_push as pushing
from tokensurgeon.handover.card_metadata import licence_of, split_card, with_metadata
from tokensurgeon.handover.hub_push import check_repository, push
from tokensurgeon.handover.pushed_copy import pushed_copy
from tokensurgeon.outputs.ownership import list_files
from tokensurgeon.report import SurgeryReport, surgery_page
from tokensurgeon.report.records import unreadable

NAME = "me/patched"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""The client sends a large file in a way that the library beneath it calls old."""


def written(hub: Hub, folder: Path, branch: str = "main") -> Path:
    """Write what the hub has into a folder, as a download would."""
    for name, data in hub.files(NAME, branch).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def signed(folder: Path, name: str, text: str) -> None:
    """Change a file of a checkpoint, and its manifest with it."""
    (folder / name).write_text(text)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = list_files(folder, MANIFEST)
    (folder / MANIFEST).write_bytes(json_bytes(manifest))


def test_what_arrives_is_the_checkpoint_and_verifies(hub: Hub, patched: Path, tmp_path) -> None:
    (patched / "notes.png").write_bytes(b"mine")
    seen: list[tuple[int, int, str]] = []
    copy = pushed_copy(patched, NAME, base_model="org/source")
    pushed = push(copy, private=True, progress=lambda *step: seen.append(step))
    assert pushed.url == f"{hub.url}/{NAME}"
    assert hub.repositories[NAME]["private"]
    folder = written(hub, tmp_path / "arrived")
    checked = recheck(folder)
    assert not checked.problems + unreadable(folder)
    files, before = hub.files(NAME), list_files(patched)
    assert set(files) - {".gitattributes"} == set(before) - {"notes.png"}
    same = {name for name in before if files.get(name) == (patched / name).read_bytes()}
    changed = {"README.md", "report.json", "report.html", MANIFEST, "notes.png"}
    assert set(before) - same == changed
    assert copy.left_out == ("notes.png",)
    assert seen[-1] == (copy.size, copy.size, "push")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_no_path_of_this_machine_goes(hub: Hub, made: Path, patched: Path) -> None:
    config = json.loads((patched / "config.json").read_text())
    signed(patched, "config.json", json.dumps({**config, "_name_or_path": str(made / "source")}))
    for base_model in (None, "org/source"):
        push(pushed_copy(patched, NAME, base_model=base_model), force=True)
        for name, data in hub.files(NAME).items():
            assert str(made).encode() not in data, name
            assert str(patched).encode() not in data, name
        report = SurgeryReport.from_json(hub.files(NAME)["report.json"])
        source = base_model or "source"
        assert (report.source.path, report.target.path) == (source, "target")
        assert (report.written_to, report.recipe["output"]) == ("patched", "patched")
        recipe = json.loads(hub.files(NAME)[MANIFEST])["recipe"]
        assert yaml.safe_load(recipe) == report.recipe
        assert recipe in hub.files(NAME)["README.md"].decode()
        page = hub.files(NAME)["report.html"].decode()
        assert page == surgery_page(report, NAME)
        assert f"vllm serve {NAME}" in page
        assert json.loads(hub.files(NAME)["config.json"])["_name_or_path"] == "source"


def test_the_card_names_source_and_licence(hub: Hub, made: Path, patched: Path) -> None:
    push(pushed_copy(patched, NAME, base_model="org/source"))
    card = hub.files(NAME)["README.md"].decode()
    metadata, body = split_card(card)
    assert metadata == {
        "base_model": ["org/source"],
        "base_model_relation": "finetune",
        "license": "apache-2.0",
        "library_name": "transformers",
        "tags": ["tokensurgeon", "tokenizer-transplant"],
    }
    assert body.startswith("# org/source with the tokenizer target")
    assert f'from_pretrained("{NAME}")' in body
    unknown = split_card(with_metadata(card, None, licence_of("nowhere/at-all")))[0]
    assert unknown == metadata  # what a card says stays
    with pytest.raises(UsageError, match="'My own!' is no licence's id"):
        licence_of("nowhere/at-all", "My own!")
    bare = with_metadata("# A card\n", None, licence_of("nowhere/at-all", "mit"))
    assert split_card(bare) == ({"license": "mit"}, "# A card\n")


def test_a_base_model_that_is_not_known_is_left_out(patched: Path) -> None:
    copy = pushed_copy(patched, NAME)
    card = next(file for file in copy.files if file.name == "README.md").data
    assert copy.base_model is None
    assert card is not None
    assert "base_model" not in split_card(card.decode())[0]
    with pytest.raises(UsageError, match="is no model of the hub"):
        pushed_copy(patched, NAME, base_model="/no/model/at/all")


def test_a_source_of_the_hubs_cache_is_the_base_model(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "cache" / "models--org--source"
    shutil.copytree(made / "source", model / "snapshots" / ("a" * 40))
    (model / "refs").mkdir()
    (model / "refs" / "v2").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    both = {"input": "subword-mean", "output": "subword-mean"}
    output = tmp_path / "out"
    transplant(source="org/source@v2", tokenizer=made / "target", init=both, output=output)
    copy = pushed_copy(output, NAME)
    assert (copy.base_model, copy.licence.id) == ("org/source", "apache-2.0")
    data = {file.name: file.data or b"" for file in copy.files}
    pushed = SurgeryReport.from_json(data["report.json"])
    assert (pushed.source.path, pushed.recipe["source"]) == ("org/source@v2",) * 2
    assert split_card(data["README.md"].decode())[0]["base_model"] == ["org/source"]


def test_a_dry_run_says_all_and_asks_nothing(hub: Hub, patched: Path) -> None:
    said = CliRunner().invoke(main, ["push", str(patched), NAME, "--dry-run", "--json"])
    facts = json.loads(said.output)
    copy = pushed_copy(patched, NAME)
    assert facts["files"] == {file.name: file.size for file in copy.files}
    assert facts["bytes"] == sum(facts["files"].values())
    assert (facts["license"], facts["pushed"]) == ("apache-2.0", None)
    words = CliRunner().invoke(main, ["push", str(patched), NAME, "--dry-run", "--private"]).output
    assert f"{NAME}, private" in words
    assert f"{copy.size:,}" in words
    assert hub.calls == []


@pytest.mark.parametrize("name", ["patched", "a/b/c", "me/", "me/a--b", "me/a..b", "me/x y", "é/x"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no repository"):
        check_repository(name)


def test_a_folder_that_is_not_sound_stays_here(hub: Hub, patched: Path, tmp_path: Path) -> None:
    config = (patched / "config.json").read_text()
    (patched / "config.json").write_text(config + "\n")
    with pytest.raises(CheckpointError, match="is not sound, so nothing was pushed"):
        pushed_copy(patched, NAME)
    signed(patched, "LICENSE.txt", f"see {tmp_path}/patched/terms")
    with pytest.raises(CheckpointError, match=r"names the folder .* of this machine"):
        pushed_copy(patched, NAME)
    with pytest.raises(CheckpointError, match="is no folder"):
        pushed_copy(tmp_path / "none", NAME)
    assert hub.calls == []


def test_what_is_there_is_not_written_over_unasked(hub: Hub, patched: Path) -> None:
    copy = pushed_copy(patched, NAME)
    push(copy)
    others = {"model-00001-of-00002.safetensors": b"old", "figure.png": b"mine"}
    hub.commit(NAME, "main", {**hub.files(NAME), **others})
    before = dict(hub.files(NAME))
    with pytest.raises(HubError, match=r"is there already, with \d+ files: name another"):
        push(copy)
    with pytest.raises(HubError, match="already and public"):
        push(copy, private=True, force=True)
    request = push(copy, create_pr=True)
    assert request.url.endswith("/discussions/1")
    push(copy, branch="next")
    with pytest.raises(HubError, match="the branch next of"):
        push(copy, branch="next")
    with pytest.raises(UsageError, match="leave out --branch"):
        push(copy, branch="next", create_pr=True)
    assert hub.files(NAME) == before
    assert set(hub.files(NAME, "refs/pr/1")) == set(before) - set(request.removed)
    pushed = push(copy, force=True)
    assert pushed.removed == ("model-00001-of-00002.safetensors",)
    assert set(hub.files(NAME)) == set(before) - set(pushed.removed)


def test_a_pull_request_needs_a_repository(hub: Hub, patched: Path) -> None:
    with pytest.raises(HubError, match="to open a pull request in"):
        push(pushed_copy(patched, NAME), create_pr=True)
    assert hub.repositories == {}


def test_a_new_repository_can_begin_with_a_branch(hub: Hub, patched: Path) -> None:
    push(pushed_copy(patched, NAME), branch="first")
    assert set(hub.files(NAME)) == {".gitattributes"}
    assert "model.safetensors" in hub.files(NAME, "first")


def test_an_interrupted_push_goes_on(hub: Hub, patched: Path, monkeypatch) -> None:
    monkeypatch.setattr(pushing, "ONE_BY_ONE", 1000)
    copy = pushed_copy(patched, NAME)
    hub.refuse = lambda method, path: (403, "no") if "/commit/" in path else None
    with pytest.raises(HubError, match=r"may not write to me/patched \(403: no"):
        push(copy)
    assert set(hub.files(NAME)) == {".gitattributes"}
    sent = hub.sent()
    assert sent == len(hub.blobs) > 1
    hub.refuse = lambda method, path: None
    push(copy)
    assert hub.sent() == sent
    assert hub.files(NAME)["model.safetensors"] == (patched / "model.safetensors").read_bytes()


REFUSALS = {
    "no more room": (
        "/lfs/objects/batch",
        403,
        "storage limit reached",
        "takes no more for .*free",
    ),
    "too large": ("/commit/", 413, "payload too large", "takes no more for .*free some room"),
    "no right": ("/repos/create", 403, "you have no rights here", "may not write to me/patched"),
    "meanwhile": ("/commit/", 412, "a commit has happened", "changed meanwhile .*run it again"),
    "a bad card": ("/commit/", 400, "bad metadata", r"the hub refused me/patched \(400"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_line_and_loses_nothing(case: str, hub: Hub, patched: Path) -> None:
    where, status, why, said = REFUSALS[case]
    hub.refuse = lambda method, path: (status, why) if where in path else None
    before = list_files(patched)
    with pytest.raises(HubError, match=said) as raised:
        push(pushed_copy(patched, NAME))
    assert "\n" not in str(raised.value)
    assert set(
        hub.repositories.get(NAME, {}).get("branches", {}).get("main", {}).get("files", ())
    ) <= {".gitattributes"}
    assert list_files(patched) == before


def test_who_may_not_push_is_told_before_anything_is_sent(
    hub: Hub, patched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    copy = pushed_copy(patched, NAME)
    hub.role = "read"
    with pytest.raises(HubError, match="the token of me may only read"):
        push(copy)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubError, match=r"does not know the token \(401"):
        push(copy)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match="there is no token for the hub; run 'hf auth login'"):
        push(copy)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"the hub was not reached: .*check the network"):
        push(copy)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push(copy)
    assert {call.split(" ")[1] for call in hub.calls} == {"/api/whoami-v2"}


def test_transplant_pushes_what_it_wrote(hub: Hub, made: Path, tmp_path: Path) -> None:
    words = [
        "transplant", str(made / "source"), "--tokenizer", str(made / "target"),
        "--init", "subword-mean", "-o", str(tmp_path / "out"),
        "--push", NAME, "--base-model", "org/source", "--json",
    ]  # fmt: skip
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 0, run.stderr
    facts = json.loads(run.stdout)
    assert facts["push"]["pushed"]["url"] == f"{hub.url}/{NAME}"
    assert facts["push"]["base_model"] == "org/source"
    assert not recheck(written(hub, tmp_path / "arrived")).problems


def test_a_process_takes_the_hub_of_its_environment(hub: Hub, patched: Path) -> None:
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tokensurgeon", "-q", "push", str(patched), NAME]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1].startswith(f"pushed         {hub.url}/{NAME}, commit ")
    assert "model.safetensors" in hub.files(NAME)


def test_transplant_asks_the_hub_before_the_work(hub: Hub, made: Path, tmp_path: Path) -> None:
    push(pushed_copy(made / "patched", NAME))
    options = ["--tokenizer", str(made / "target"), "-o", str(tmp_path / "out"), "--push", NAME]
    run = CliRunner().invoke(main, ["transplant", str(made / "source"), *options])
    assert (run.exit_code, (tmp_path / "out").exists()) == (1, False)
    assert "is there already" in run.output
    for wrong in (["--private"], ["--push", NAME, "--dry-run"]):
        few = ["transplant", str(made / "source"), "--tokenizer", str(made / "target"), *wrong]
        assert CliRunner().invoke(main, [*few, "--dry-run"]).exit_code == 2
