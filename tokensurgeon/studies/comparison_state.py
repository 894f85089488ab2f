"""A comparison that can be killed: one small file per method and seed that is done.

A file is found again by a hash of all that decides the figure: the source's weights, the target,
the donor's rows, the method with its settings and its code, the texts, the seed, the versions.
Files of other pairs may lie in the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from tokensurgeon.errors import UnknownNameError, UsageError
from tokensurgeon.evaluation import EvaluationProtocol
from tokensurgeon.initialisers import source_files
from tokensurgeon.outputs import output_path, write_whole
from tokensurgeon.outputs.paths import check_parent
from tokensurgeon.report.surgery_report import versions
from tokensurgeon.studies.compared_methods import Method
from tokensurgeon.surgery.session import MOST_TEXT, Session
from tokensurgeon.text.corpus import read_documents

SCHEMA = 4
"""Of what is kept: a file of another one is measured again."""
SOURCE = "source"
MOST_BYTES = 256 << 20
"""Of what is kept of a method: the losses of a million chunks take a tenth."""

ELSEWHERE = {
    "source", "tokenizer", "donor", "output", "init", "text", "baselines", "force", "memory_gib",
    "trust_remote_code", "allow_autotokenizer_mismatch", "calibrate", "heal", "heal_body",
    "budget",
}  # fmt: skip
"""Keys of a recipe that decide no figure, or that are put into the hash by what they name."""

VERSIONS = ("tokensurgeon", "torch", "transformers")


class ComparisonState:
    """The folder of a comparison; without one nothing is kept.

    Parameters
    ----------
    folder : path or None
        Made if it is not there.
    session : Session
    protocol : EvaluationProtocol
    after_steps : dict, optional
        What decides the figure after further training, as JSON values, where that is measured.

    Raises
    ------
    UsageError
        If the folder is a file.
    """

    def __init__(
        self,
        folder: str | Path | None,
        session: Session,
        protocol: EvaluationProtocol,
        after_steps: dict[str, Any] | None = None,
    ) -> None:
        self.folder = None if folder is None else check_state_folder(folder)
        self._session, self._protocol = session, protocol
        self._after_steps = {} if after_steps is None else {"after_steps": after_steps}
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"{self.folder} cannot hold what was measured ({error.strerror}): "
                    "name another folder"
                ) from error

    def load(self, method: Method | str, repeat: int = 0) -> dict[str, Any] | None:
        """Return what was kept of a method, or of the source by label; None where nothing whole is.

        `repeat` counts seeds; 0 is the recipe's.
        """
        path = self._path(method, repeat)
        return None if path is None else read_kept(path)

    def save(self, method: Method | str, result: dict[str, Any], repeat: int = 0) -> None:
        """Keep what was found; the file is there whole or not at all."""
        path = self._path(method, repeat)
        if path is None:
            return
        data = {
            "schema": SCHEMA,
            "decided_by": self._decided_by(method, repeat),
            "result": result,
            "sha256": _result_hash(result),
        }
        text = json.dumps(data, ensure_ascii=False, indent=1)
        write_whole(path, text.encode("utf-8"))

    def _path(self, method: Method | str, repeat: int) -> Path | None:
        if self.folder is None:
            return None
        label = method if isinstance(method, str) else method.label
        key = json.dumps(self._decided_by(method, repeat), sort_keys=True)
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / f"{file_name(label)}-{digest[:16]}.json"

    def _decided_by(self, method: Method | str, repeat: int) -> dict[str, Any]:
        """Return all that decides a figure, as JSON values."""
        session = self._session
        recipe = session.recipe
        common: dict[str, Any] = {
            "source": self._source,
            "target": session.alignment.target.fingerprint,
            "evaluation": [self._protocol.sha256, self._protocol.chunk_bytes],
            "seed": recipe.seed,
            "device": recipe.device,
            "dtype": recipe.dtype,
            "versions": {name: value for name, value in versions().items() if name in VERSIONS},
        }
        if method == SOURCE:
            return {**common, **self._after_steps}
        if isinstance(method, str):  # a source that is fitted: it is not trained further
            return {**common, "method": method, **self._fitting}
        names = sorted({method.input, method.output})
        settings = recipe.init.settings
        decided = {
            **common,
            "method": method.label,
            "settings": {name: settings.get(name, {}) for name in (*names, "*")},
            "code": {name: code_hash(name) for name in names},
            "recipe": recipe.model_dump(mode="json", exclude=ELSEWHERE),
            "donor": self._donor,
            "calibration": self._calibration,
            "repeat": repeat,
            # Other seeds repeat the first figure alone.
            **({} if repeat else self._after_steps),
        }
        return {**decided, **self._fitting} if method.fitted or "auto" in names else decided

    @cached_property
    def _fitting(self) -> dict[str, Any]:
        """Return what decides how rows are fitted."""
        recipe = self._session.recipe
        other = recipe.text.other
        documents = (
            (
                document.text
                for document in read_documents(other, max_bytes=MOST_TEXT, allow_invalid=True)
            )
            if other
            else ()
        )
        return {
            "calibration": self._calibration,
            "other": text_hash(documents),
            "calibrate": recipe.calibrate,
            "budget": recipe.budget,
            "heal_body": recipe.heal_body,
            "fitting": fitting_hash(),
        }

    @cached_property
    def _calibration(self) -> str:
        return text_hash(self._session.calibration_texts)

    @cached_property
    def _source(self) -> str:
        """Hash of the whole checkpoint: its fingerprint says nothing of the body's weights."""
        checkpoint = self._session.inputs.checkpoint
        digest = hashlib.sha256(checkpoint.fingerprint.encode())
        for name in sorted(checkpoint.tensors.files):
            file = checkpoint.tensors.files[name]
            for tensor in sorted(file.tensors):
                for chunk in file.chunks(tensor):
                    digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def _donor(self) -> str | None:
        donor = self._session.inputs.donor
        if donor is None:
            return None
        digest = hashlib.sha256()
        for rows in (donor.input, donor.output):
            digest.update(rows.tobytes())
        return digest.hexdigest()


def read_kept(path: Path) -> dict[str, Any] | None:
    """Return what a file of a comparison holds; None where nothing whole of ours is."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        saved = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(saved, dict) or saved.get("schema") != SCHEMA:
        return None
    result = saved.get("result")
    whole = isinstance(result, dict) and saved.get("sha256") == _result_hash(result)
    return result if whole else None


def check_state_folder(name: str | Path) -> Path:
    """Return the folder of a comparison, or refuse it; it is not made yet.

    Raises
    ------
    UsageError, OutputError
        If it is a file, or nothing can be written there.
    """
    folder = output_path(name)
    check_parent(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(
            f"{folder} cannot hold what was measured: it is no folder; name another folder"
        )
    for name in ("config.json", "tokenizer.json", "manifest.json"):
        if (folder / name).exists():
            raise UsageError(
                f"{folder} holds a checkpoint or a tokenizer ({name}); name a folder for what is "
                "measured"
            )
    return folder


def _result_hash(result: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result).encode()).hexdigest()


def file_name(label: str) -> str:
    """Return what the file of a method is called, its hash aside."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower())


def text_hash(texts: Iterable[str]) -> str:
    """Return the sha256 of texts, each ended by a byte that UTF-8 never holds."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8") + b"\xff")
    return digest.hexdigest()


def code_hash(name: str) -> str | None:
    """Return the sha256 of the files that decide an initialiser's rows, or None."""
    try:
        return files_hash(source_files(name))
    except (UnknownNameError, OSError, TypeError):
        return None


def fitting_hash() -> str:
    """Return the sha256 of the files that choose and calibrate rows."""
    package = Path(__file__).parent.parent
    files = [package / "surgery" / name for name in ("choose.py", "calibrate.py")]
    files += [*package.glob("calibration/**/*.py"), *package.glob("initialisers/**/*.py")]
    return files_hash(sorted(files))


def files_hash(files: Iterable[Path]) -> str:
    """Return the sha256 of what files hold, one after another."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
