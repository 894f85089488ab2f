"""Write a patched checkpoint: all of it, checked as users will load it, or nothing."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tokensurgeon.arrays import ITEM_BYTES
from tokensurgeon.checkpoint import manifest as manifests
from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.chat_template import try_template
from tokensurgeon.checkpoint.companions import companions
from tokensurgeon.checkpoint.encodings import digests
from tokensurgeon.checkpoint.files import read_json
from tokensurgeon.checkpoint.id_keys import Form, Json, form_of, ids_in
from tokensurgeon.checkpoint.ids import CONFIG, GENERATION, RemappedIds, remap_configs
from tokensurgeon.checkpoint.patch import write_tensors
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.checkpoint.tokenizer_class import settle_class
from tokensurgeon.checkpoint.tokenizer_files import json_bytes, tokenizer_files
from tokensurgeon.checkpoint.tokenizer_record import Decision, TokenizerFiles
from tokensurgeon.checkpoint.verify import check_autotokenizer, check_headers, probe_ids
from tokensurgeon.errors import CheckpointError, TokenizerError
from tokensurgeon.outputs import check_folder, scratch_folder, staged
from tokensurgeon.vocabulary.written import check_written

Extra = Mapping[str, bytes | str]
MakeExtra = Callable[[dict[str, list[Any]], Sequence[str]], Extra]
Check = Callable[[Path, Sequence[Sequence[int]]], None]


@dataclass(frozen=True)
class WriteResult:
    """What was written.

    Attributes
    ----------
    path : Path
    manifest : dict
        As in manifest.json.
    manifest_sha256 : str
        Of the file manifest.json.
    ids : dict
        ``{"config.json:eos_token_id": [old, new]}`` for every id that changed.
    warnings : tuple of str
    """

    path: Path
    manifest: dict[str, Any]
    manifest_sha256: str
    ids: dict[str, list[Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def write_checkpoint(
    plan: PatchPlan,
    output: str | Path,
    *,
    force: bool = False,
    extra_files: Extra | MakeExtra | None = None,
    recipe_yaml: str = "",
    seed: int = 0,
    probe_texts: Sequence[str] = (),
    check: Check | None = None,
    allow_autotokenizer_mismatch: bool = False,
) -> WriteResult:
    """Write a patched checkpoint folder.

    Parameters
    ----------
    plan : PatchPlan
    output : path
        Appears by one rename when all is done.
    force : bool
        Whether a checkpoint there is replaced, if it is as it was written and nothing is beside
        it.
    extra_files : mapping, or callable(ids, warnings) that returns one
        Further files by name, such as report.json. A callable is told what the writer changed.
    recipe_yaml, seed : str, int
        Go into the manifest.
    probe_texts : sequence of str
        Texts on which AutoTokenizer is compared with the target, and the model is tried.
    check : callable(folder, probes), or None
        Raises `CheckpointError` if the written folder is not sound; `models.reload.reload_check`
        makes one that runs the model. With None the headers alone are checked.
    allow_autotokenizer_mismatch : bool
        Whether AutoTokenizer may disagree with the target; it is then a warning.

    Raises
    ------
    OutputExistsError
        If the output exists and `force` was not given.
    TokenizerError
        If AutoTokenizer disagrees with the target, unless that is allowed.
    CheckpointError
        If anything cannot be written or does not load again. Nothing is then at the output.
    """
    plan.check()
    output = check_folder(
        output, force=force, source=plan.checkpoint.path, keep=(plan.target.folder,)
    )
    _check_space(plan, output)
    with staged(output, force=force) as folder:
        write_tensors(plan, folder)
        ours = ("README.md",) if callable(extra_files) else tuple(extra_files or ())
        remapped = _write_configs(plan, folder, ours)
        tokenizer, different = _write_tokenizer(plan, folder)
        warnings = [*remapped.warnings, *tokenizer.warnings]
        if plan.untie and plan.checkpoint.layout.flag_scales:
            warnings.append(
                "the flag of tying stays, for it scales the logits of this family; releases of "
                "transformers before 5 then overwrite the output rows with the input rows"
            )
        rendered = try_template(folder, tokenizer.chat_template, tokenizer.template_folder)
        warnings += [] if rendered.problem is None else [rendered.problem]
        different = different or rendered.difference
        warnings += _differences(folder, plan, probe_texts, different, allow_autotokenizer_mismatch)
        if check is None:
            check_headers(folder, plan)
        else:
            check(folder, probe_ids(plan, probe_texts))
        if callable(extra_files):
            extra_files = extra_files(remapped.changes, warnings)
        _write_extra(folder, extra_files or {})
        fingerprint = plan.checkpoint.fingerprint
        manifest = manifests.make_manifest(
            folder, source=fingerprint, recipe=recipe_yaml, seed=seed, body=_body_facts(plan)
        )
        manifest["encodings"] = digests(tokenizer.fields)
        text = json_bytes(manifest)
        (folder / manifests.NAME).write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    return WriteResult(output, manifest, digest, remapped.changes, tuple(warnings))


def check_tokenizer(
    plan: PatchPlan, probe_texts: Sequence[str], *, allow: bool
) -> tuple[list[Decision], list[str]]:
    """Try how AutoTokenizer will read what would be written; the plan's rows are not looked at.

    A surgery of an hour ends with the same check: whoever asks first loses nothing.

    Returns
    -------
    list of Decision, list of str
        What was taken from the source and what from the target, and warnings.

    Raises
    ------
    TokenizerError, CheckpointError
        If it disagrees with the target and that is not allowed, or a file cannot be made.
    """
    with scratch_folder() as folder:
        _write_configs(plan, folder)
        tokenizer, different = _write_tokenizer(plan, folder)
        warnings = _differences(folder, plan, probe_texts, different, allow)
        return tokenizer.decisions, [*tokenizer.warnings, *warnings]


def _differences(
    folder: Path, plan: PatchPlan, probe_texts: Sequence[str], different: str | None, allow: bool
) -> list[str]:
    """Return what users will get otherwise, as a warning; an error if it is not allowed.

    `different` is what their whole encodings differ in, if anything.
    """
    difference = check_autotokenizer(folder, plan.target, probe_texts)
    if difference is None and different is not None:
        difference = f"AutoTokenizer would not encode as with the target's own folder: {different}"
    if difference is None:
        return []
    if not allow:
        raise TokenizerError(
            f"{difference}; pass --allow-autotokenizer-mismatch to write it nevertheless"
        )
    return [difference]


def _body_facts(plan: PatchPlan) -> dict[str, Any] | None:
    """Say which weights of the body an update was merged into, by their file keys."""
    if plan.body is None:
        return None
    tensors = sorted(plan.body_keys)
    return {"rank": plan.body.rank, "numbers": plan.body.n_numbers, "tensors": tensors}


def _write_configs(
    plan: PatchPlan, folder: Path, ours: Collection[str] = ("README.md",)
) -> RemappedIds:
    """Write the configurations, and the files that are carried over; unchanged ones to the byte.

    `ours` are further files that will be written, and so replace the source's.
    """
    checkpoint, layout = plan.checkpoint, plan.checkpoint.layout
    whole = internals.load_config(checkpoint.path, trust_remote_code=checkpoint.trust_remote_code)
    built = whole.get_text_config()
    beside = companions(plan, ours)
    remapped = remap_configs(
        checkpoint.config,
        checkpoint.generation_config,
        others=beside.remapped,
        n_old=layout.n_rows,
        n_new=plan.n_new,
        n_tokens=plan.target.n_rows,
        id_map=plan.id_map,
        roles=plan.target.roles,
        defaults=_ids_of(built, layout.n_rows),
        outer_defaults={} if built is whole else _ids_of(whole, layout.n_rows),
        needed=internals.ids_that_must_be(built),
        untied=not plan.tied and layout.tied_flag and not layout.flag_scales,
    )
    remapped.warnings += beside.warnings
    written: dict[str, Json | None] = {
        CONFIG: remapped.config,
        GENERATION: remapped.generation_config,
        **remapped.others,
    }
    stored = {CONFIG: checkpoint.config, GENERATION: checkpoint.generation_config}
    for name, path in ({name: checkpoint.path / name for name in stored} | beside.copied).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        new = written.get(name)
        if new is not None and new != (stored.get(name) or read_json(path.parent, path.name)):
            (folder / name).write_bytes(json_bytes(new))
        elif new is not None or name not in stored:
            shutil.copyfile(path, folder / name)
    return remapped


def _ids_of(config: Any, n_rows: int) -> dict[str, Any]:
    """Return the ids that a configuration class fills in where the file is silent."""
    return {
        key: value
        for key, value in config.to_dict().items()
        if form_of(key, value) is Form.IDS and all(i < n_rows for i in ids_in(value))
    }


def _write_tokenizer(plan: PatchPlan, folder: Path) -> tuple[TokenizerFiles, str | None]:
    """Write the tokenizer's files; return them, and what users will get otherwise than before."""
    made = tokenizer_files(plan)
    for name, data in made.files.items():
        (folder / name).write_bytes(data)
    check_written(folder, plan.target.tokenizer)
    return made, settle_class(made, plan, folder)


def _write_extra(folder: Path, files: Extra) -> None:
    for name, data in files.items():
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name:
            raise CheckpointError(f"the extra file {name!r} would leave the output folder")
        path = folder / name
        if path.exists() or name == manifests.NAME:
            raise CheckpointError(f"the extra file {name!r} would replace one of the checkpoint's")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def _check_space(plan: PatchPlan, output: Path) -> None:
    """Refuse before writing where the disk is clearly too small."""
    layout = plan.checkpoint.layout
    grown = max(0, plan.n_new - layout.n_rows) * 2 + (plan.n_new if plan.untie else 0)
    needed = plan.checkpoint.n_bytes + grown * layout.width * ITEM_BYTES[plan.checkpoint.dtype]
    parent = next((p for p in output.absolute().parents if p.exists()), None)
    if parent is None:
        return
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise CheckpointError(
            f"the output needs {needed / 1e6:,.1f} MB and {parent} has {free / 1e6:,.1f} MB free; "
            "make room"
        )
