"""What of a finished checkpoint goes to the hub: its files, with names in the place of paths.

The files that the manifest lists go, the rest stays. The card, the report and the recipe name paths
of the machine that they were written on. Copies with names in their place are pushed, with a
manifest of these copies: what is downloaded can be verified as the folder can. The folder itself is
only read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tokensurgeon.checkpoint import recheck
from tokensurgeon.checkpoint.files import check_inside
from tokensurgeon.checkpoint.manifest import NAME as MANIFEST
from tokensurgeon.checkpoint.manifest import read_manifest, unlisted
from tokensurgeon.checkpoint.tokenizer_files import json_bytes
from tokensurgeon.errors import CheckpointError, UsageError
from tokensurgeon.handover.card_metadata import Licence, licence_of, with_metadata
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import NO_FILES
from tokensurgeon.recipe_parts import READ, WRITTEN
from tokensurgeon.report import surgery_page, words
from tokensurgeon.report.records import unreadable
from tokensurgeon.report.surgery_report import SurgeryReport
from tokensurgeon.vocabulary.hub import cached_file, is_name, split_revision

CARD, REPORT, PAGE = "README.md", "report.json", "report.html"
VOCABULARIES = (
    "tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json",
    "new_token_ids.json", "surgery/tokens.json",
)  # fmt: skip
"""Files of tokens, which may look like paths and are none."""
TEXTS = (".json", ".jinja", ".md", ".txt", ".py", ".yaml", ".html")
PATH_KEY = re.compile(r"_?name_or_path|.*_(file|path|dir)")
"""Keys of configurations that programs put a path into."""
_PATH = re.compile(r"(~|[A-Za-z]:)?([\\/][^\\/\n{}<>]+){2,}[\\/]?")


@dataclass(frozen=True)
class PushedFile:
    """One file: its name in the repository, its size, and its bytes where they are not the file's.

    Attributes
    ----------
    name : str
    path : Path
        Of the folder.
    data : bytes or None
        What goes in the place of the file.
    size : int
        In bytes.
    """

    name: str
    path: Path
    data: bytes | None
    size: int


@dataclass(frozen=True)
class PushedCopy:
    """What goes to a repository.

    Attributes
    ----------
    folder : Path
    repository : str
    files : tuple of PushedFile
    left_out : tuple of str
        Files of the folder that its manifest does not list.
    names : dict of str to str
        What stands in the copies in the place of each path.
    base_model : str or None
        The hub's id of the source.
    licence : Licence
    """

    folder: Path
    repository: str
    files: tuple[PushedFile, ...]
    left_out: tuple[str, ...]
    names: dict[str, str]
    base_model: str | None
    licence: Licence

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values; of the paths only how many there are."""
        return {
            "repository": self.repository,
            "files": {file.name: file.size for file in self.files},
            "changed": [file.name for file in self.files if file.data is not None],
            "bytes": self.size,
            "left_out": list(self.left_out),
            "paths_replaced": len(set(self.names.values())),
            "base_model": self.base_model,
            "license": self.licence.id,
            "license_from": self.licence.origin,
        }


def pushed_copy(
    folder: str | Path,
    repository: str,
    *,
    base_model: str | None = None,
    licence: str | None = None,
    progress: Progress = no_progress,
) -> PushedCopy:
    """Check a finished checkpoint, and say what of it goes to the hub.

    Parameters
    ----------
    folder : str or Path
    repository : str
        ``USER/NAME``.
    base_model : str, optional
        The hub's id of the source; else that of the report, where it is a model of the hub's cache.
    licence : str, optional
        The hub's id of a licence; else that of the source's card.
    progress : callable(done, total, what)

    Raises
    ------
    CheckpointError
        If the folder does not verify, or a path of this machine would be left in what goes.
    UsageError
        If `base_model` cannot be a model's id.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; give one that transplant wrote")
    if base_model is not None and not is_name(base_model):
        raise UsageError(f"'{base_model}' is no model of the hub; give its id, such as org/model")
    checked = recheck(folder, progress)
    problems = checked.problems or unreadable(folder)
    if problems:
        more = f" (and {words.count(len(problems) - 1, 'problem')} more)" if problems[1:] else ""
        raise CheckpointError(
            f"{folder} is not sound, so nothing was pushed: {problems[0]}{more}; mend what "
            "'tokensurgeon verify' names, move away what came later, or transplant again"
        )
    manifest = read_manifest(folder)
    report = SurgeryReport.from_json((folder / REPORT).read_bytes(), str(folder / REPORT))
    base_model = base_model or _hub_id(report.source.path)
    names = _names(report, folder, repository, base_model)
    replace = _replacer(names)
    chosen = licence_of(report.source.path, licence)
    copies = _copies(folder, manifest["files"], report, replace, base_model)
    copies[CARD] = _card(folder, report, replace, repository, base_model, chosen)
    if PAGE in manifest["files"]:
        pushed = SurgeryReport.from_json(copies.get(REPORT) or report.to_json(), REPORT)
        copies[PAGE] = surgery_page(pushed, repository).encode("utf-8", "backslashreplace")
    copies[MANIFEST] = _manifest(manifest, copies, replace, report, base_model)
    files = []
    for name in sorted({*manifest["files"], MANIFEST}):
        path, data = check_inside(folder, name), copies.get(name)
        size = path.stat().st_size if data is None else len(data)
        files.append(PushedFile(name, path, data, size))
    left_out = tuple(unlisted(folder, manifest["files"]))
    _refuse_paths(files, _roots(folder, names))
    return PushedCopy(folder, repository, tuple(files), left_out, names, base_model, chosen)


def _hub_id(name: str) -> str | None:
    """Return the id of a source that was read from the hub's cache, without its revision."""
    return split_revision(name)[0] if _on_hub(name) else None


def _on_hub(name: str) -> bool:
    """Whether a name is that of a model or a tokenizer in the hub's cache, and of no folder."""
    return any(cached_file(name, file) for file in ("config.json", "tokenizer.json"))


def _names(
    report: SurgeryReport, folder: Path, repository: str, base_model: str | None
) -> dict[str, str]:
    """Return what stands in the place of each path that the report and its recipe name."""
    output = report.written_to or str(folder)
    paths = [
        *_recipe_paths(report.recipe), report.source.path, report.target.path or "",
        report.donor.path if report.donor else "", output, str(folder),
    ]  # fmt: skip
    names: dict[str, str] = {}
    for path in paths:
        plain = path.rstrip("/\\")
        if not re.search(r"[\\/]", plain) or _on_hub(path):
            continue
        name = re.split(r"[\\/]", plain)[-1]
        if path == report.source.path and base_model:
            name = base_model
        elif path in (output, str(folder)):
            name = repository.rpartition("/")[2]
        names[plain] = name
        expanded = Path(plain).expanduser()
        if expanded.exists():
            names.setdefault(str(expanded.absolute()), name)
            names.setdefault(str(expanded.resolve()), name)
    return {path: name for path, name in names.items() if path != name}


def _recipe_paths(part: Any, key: str = "") -> Iterator[str]:
    """Yield the values of a recipe that name files, and all of the settings that look like it."""
    if isinstance(part, dict):
        for name, value in part.items():
            yield from _recipe_paths(value, "*" if key in ("settings", "*") else name)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _recipe_paths(value, key)
    elif isinstance(part, str) and part not in NO_FILES.get(key, ()):
        if key == "mixture":
            yield part.partition(":")[2]
        elif key == "*" or key in READ | WRITTEN:
            yield part


def _replacer(names: dict[str, str]) -> Callable[[str], str]:
    """Return a function that puts names in the place of whole paths, the longest first."""
    if not names:
        return lambda text: text
    longest = sorted(names, key=len, reverse=True)
    found = re.compile(rf"(?<![\w/.~-])(?:{'|'.join(map(re.escape, longest))})(?![\w-])")
    return lambda text: found.sub(lambda match: names[match[0]], text)


def _in_strings(value: Any, replace: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _in_strings(item, replace) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_strings(item, replace) for item in value]
    return replace(value) if isinstance(value, str) else value


def _of_keys(value: Any) -> Any:
    """Put the last name in the place of a path from the root, where a key is one of paths."""
    if isinstance(value, list):
        return [_of_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: re.split(r"[\\/]", item.rstrip("/\\"))[-1]
        if isinstance(item, str) and PATH_KEY.fullmatch(key) and _PATH.fullmatch(item)
        else _of_keys(item)
        for key, item in value.items()
    }


def _copies(
    folder: Path,
    listed: Iterable[str],
    report: SurgeryReport,
    replace: Callable[[str], str],
    base_model: str | None,
) -> dict[str, bytes]:
    """Return the JSON files that change, but for card and manifest, by name."""
    copies: dict[str, bytes] = {}
    for name in listed:
        if not name.endswith(".json") or name in VOCABULARIES or name.endswith(".index.json"):
            continue
        data = json.loads(check_inside(folder, name).read_bytes())
        if name == REPORT:
            changed = _in_strings(data, replace)
            changed["recipe"] = _recipe(report, replace, base_model)
        else:
            changed = _of_keys(data)
        if changed != data:
            copies[name] = json_bytes(changed)
    return copies


def _recipe(
    report: SurgeryReport, replace: Callable[[str], str], base_model: str | None
) -> dict[str, Any]:
    recipe: dict[str, Any] = _in_strings(report.recipe, replace)
    if base_model and not _on_hub(report.source.path):  # else it may name a revision too
        recipe["source"] = base_model
    return recipe


def _as_yaml(recipe: dict[str, Any]) -> str:
    """Return a recipe as `Recipe.to_yaml` and the card write it."""
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def _card(
    folder: Path,
    report: SurgeryReport,
    replace: Callable[[str], str],
    repository: str,
    base_model: str | None,
    licence: Licence,
) -> bytes:
    text = check_inside(folder, CARD).read_text("utf-8")
    before, _, after = text.partition(_as_yaml(report.recipe))
    recipe = _as_yaml(_recipe(report, replace, base_model)) if after else ""
    text = replace(before) + recipe + replace(after)
    if base_model:
        was = words.short(report.source.path)
        for before, after in (("# ", " with the tokenizer "), ("| source | ", " (")):
            text = text.replace(f"{before}{was}{after}", f"{before}{base_model}{after}", 1)
    text = text.replace('from_pretrained("PATH")', f'from_pretrained("{repository}")')
    return with_metadata(text, base_model, licence).encode()


def _manifest(
    manifest: dict[str, Any],
    copies: dict[str, bytes],
    replace: Callable[[str], str],
    report: SurgeryReport,
    base_model: str | None,
) -> bytes:
    """Return the manifest of what is pushed."""
    files = dict(manifest["files"])
    for name, data in copies.items():
        files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    changed = {**_in_strings(manifest, replace), "files": files}
    if manifest.get("recipe") == _as_yaml(report.recipe):
        changed["recipe"] = _as_yaml(_recipe(report, replace, base_model))
    return json_bytes(changed)


def _roots(folder: Path, names: dict[str, str]) -> list[str]:
    """Return folders of this machine that nothing that is pushed may name, the longest first."""
    known = {Path.cwd(), folder.resolve()}
    known |= {Path(path) for path in names if Path(path).is_absolute()}
    known |= {path.parent for path in set(known)}
    named = {str(one) for one in known if len(one.parts) > 2}  # all name / and folders below it
    if len(Path.home().parts) > 1:
        named.add(f"{Path.home()}/")
    return sorted(named, key=len, reverse=True)


def _refuse_paths(files: Iterable[PushedFile], roots: list[str]) -> None:
    """Refuse to push a file that names a folder of this machine.

    Raises
    ------
    CheckpointError
    """
    ends = (re.escape(root) + ("" if root.endswith("/") else r"(?![\w-])") for root in roots)
    found = re.compile("|".join(ends) or r"(?!)")
    for file in files:
        if file.name in VOCABULARIES:
            continue
        if file.name.endswith(".safetensors"):
            text = _notes(file.path)
        elif file.name.endswith(TEXTS):
            text = (file.path.read_bytes() if file.data is None else file.data).decode(
                "utf-8", "replace"
            )
        else:
            continue
        named = found.search(text)
        if named:
            raise CheckpointError(
                f"{file.name} names the folder {named[0]} of this machine, so nothing was pushed; "
                "take it out of the file and transplant again"
            )


def _notes(path: Path) -> str:
    """Return what the header of a file of tensors says besides its tensors."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return json.dumps(file.metadata() or {}, ensure_ascii=False)
