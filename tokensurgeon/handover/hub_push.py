"""Push a finished checkpoint to a repository of the hub, as one commit or as none.

Large files are uploaded first, one by one; the hub keeps what it has, so that a push that was
interrupted sends the rest. The commit comes last: until then the repository shows nothing new.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokensurgeon.checkpoint.manifest import LOADABLE
from tokensurgeon.errors import HubError, TokensurgeonError, UsageError, reason
from tokensurgeon.handover.pushed_copy import PushedCopy, PushedFile
from tokensurgeon.progress import Progress, no_progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ONE_BY_ONE = 1 << 20
"""Bytes from which a file is uploaded by itself: progress can be shown between files alone."""
OWN = (".gitattributes",)
"""Files that the hub puts into a repository which nobody has written to."""
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*\Z", re.ASCII)
_LONGEST_NAME = 96
"""Characters of a repository's name that the hub takes."""
_FULL = re.compile(r"storage|quota|limit|payment", re.IGNORECASE)


@dataclass(frozen=True)
class Repository:
    """What is at the hub under a name.

    Attributes
    ----------
    exists : bool
    private : bool
    files : frozenset of str
        Of the branch that is written to, without what the hub puts there.
    has_branch : bool
        Whether that branch is there.
    commit : str or None
        The last one of that branch.
    """

    exists: bool
    private: bool = False
    files: frozenset[str] = frozenset()
    has_branch: bool = False
    commit: str | None = None


@dataclass(frozen=True)
class Pushed:
    """What came of a push.

    Attributes
    ----------
    url : str
        Of the repository, or of the pull request.
    commit : str
        Its id; that of the last commit where nothing had changed.
    removed : tuple of str
        Files that were in the repository and are no part of the checkpoint.
    """

    url: str
    commit: str
    removed: tuple[str, ...] = ()


def check_repository(name: str) -> str:
    """Return the name of a repository, or refuse what cannot be one.

    Raises
    ------
    UsageError
    """
    fits = _NAME.match(name) and len(name) <= _LONGEST_NAME
    if not fits or ".." in name or "--" in name or name.endswith((".git", ".ipynb", ".", "-")):
        raise UsageError(
            f"'{name}' is no repository: give USER/NAME, of at most {_LONGEST_NAME} letters, "
            "digits and single '-', '_' and '.'"
        )
    return name


def sign_in() -> HfApi:
    """Return the hub's interface, once the hub knows the token and lets it write.

    The token is that of huggingface_hub: of HF_TOKEN, else of the last login.

    Raises
    ------
    HubError
        If there is no token, it is unknown or may only read, or the hub cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE is set, and a push needs the hub; unset it: set it to 0")
    if huggingface_hub.get_token() is None:
        raise HubError("there is no token for the hub; run 'hf auth login', or set HF_TOKEN")
    api = huggingface_hub.HfApi()
    with _told("the hub"):
        user = api.whoami()
    token = (user.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise HubError(
            f"the token of {user.get('name')} may only read; use one that may write, in HF_TOKEN "
            "or by 'hf auth login'"
        )
    return api


def look_up(api: HfApi, name: str, branch: str | None = None) -> Repository:
    """Return what is at the hub under a name, on a branch.

    Raises
    ------
    HubError
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with _told(name):
        try:
            found = api.model_info(name, revision=branch)
        except RevisionNotFoundError:
            return Repository(True, bool(api.model_info(name).private))
        except RepositoryNotFoundError:
            return Repository(False)
    files = frozenset(one.rfilename for one in found.siblings or ()) - set(OWN)
    return Repository(True, bool(found.private), files, True, found.sha)


def check_target(
    name: str,
    found: Repository,
    *,
    private: bool = False,
    force: bool = False,
    create_pr: bool = False,
    branch: str | None = None,
) -> None:
    """Refuse to write over what is there, and what cannot be done.

    A repository without files, such as an interrupted push leaves, may be written to.

    Raises
    ------
    HubError
    """
    if create_pr and not found.exists:
        raise HubError(f"there is no {name} to open a pull request in; leave out --create-pr")
    if private and found.exists and not found.private:
        raise HubError(f"{name} is there already and public; name another, or leave out --private")
    if found.has_branch and found.files and not (force or create_pr):
        where = f"the branch {branch} of {name}" if branch else name
        raise HubError(
            f"{where} is there already, with {len(found.files)} files: name another repository, or "
            "add --create-pr, a new --branch, or --force"
        )


def push(
    copy: PushedCopy,
    *,
    private: bool = False,
    force: bool = False,
    create_pr: bool = False,
    branch: str | None = None,
    progress: Progress = no_progress,
) -> Pushed:
    """Push what `pushed_copy` made ready.

    Parameters
    ----------
    copy : PushedCopy
    private : bool
        Of a repository that is made anew.
    force : bool
        Write over the files of a repository that is there. Files of it that a loader could pick up
        and that are no part of the checkpoint are removed; the older commits keep all.
    create_pr : bool
        Open a pull request instead.
    branch : str, optional
        Write to this branch; it is made where it is not there.
    progress : callable(done, total, what)
        In bytes.

    Raises
    ------
    UsageError
        If the repository's name cannot be one, or both a branch and a pull request are asked for.
    HubError
        In one line, whatever the hub or the network says. The folder stands, and the same push
        again sends what is missing.
    """
    from huggingface_hub import CommitOperationDelete

    name = check_repository(copy.repository)
    if create_pr and branch is not None:
        raise UsageError(
            "a pull request has a branch of its own: leave out --branch or --create-pr"
        )
    api = sign_in()
    found = look_up(api, name, branch)
    check_target(name, found, private=private, force=force, create_pr=create_pr, branch=branch)
    with _told(name):
        if not found.exists:
            api.create_repo(name, private=private, repo_type="model")
        if branch is not None and not found.has_branch:
            api.create_branch(name, branch=branch)
            found = look_up(api, name, branch)
    where: dict[str, Any] = {"revision": branch, "create_pr": create_pr}
    additions = list(_uploaded(api, copy, where, progress))
    ours = {file.name for file in copy.files}
    removed = sorted(one for one in found.files - ours if one.endswith(LOADABLE))
    with _told(name):
        commit = api.create_commit(
            name,
            [*additions, *map(CommitOperationDelete, removed)],
            commit_message=f"{name.rpartition('/')[2]}, written by tokensurgeon",
            parent_commit=found.commit,
            **where,
        )
    progress(copy.size, copy.size, "push")
    url = commit.pr_url or f"{api.endpoint}/{name}"
    return Pushed(url, commit.oid, tuple(removed))


def _uploaded(
    api: HfApi, copy: PushedCopy, where: dict[str, Any], progress: Progress
) -> Iterator[Any]:
    """Yield each file as an operation of a commit, the large ones once they are at the hub."""
    done = 0
    for file in sorted(copy.files, key=lambda file: file.size):
        progress(done, copy.size, "push")
        operation = _addition(file)
        if file.size >= ONE_BY_ONE:
            with _told(copy.repository):
                api.preupload_lfs_files(copy.repository, [operation], **where)
        done += file.size
        yield operation


def _addition(file: PushedFile) -> Any:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(file.name, str(file.path) if file.data is None else file.data)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn whatever the hub's client raises into one line of ours."""
    try:
        yield
    except TokensurgeonError:
        raise
    except Exception as error:  # its client, the one beneath, and the file system
        raise HubError(_line(error, name)) from error


def _line(error: BaseException, name: str) -> str:
    while getattr(error, "response", None) is None and error.__cause__ is not None:
        error = error.__cause__  # a large file's error stands beneath one that names the file
    status = getattr(getattr(error, "response", None), "status_code", None)
    why = getattr(error, "server_message", None) or reason(error)
    why = " ".join(str(why).split())[:200]
    again = "run it again: what the hub has is not sent twice"
    if status == 401:
        return f"the hub does not know the token (401: {why}); run 'hf auth login' or set HF_TOKEN"
    if status in (402, 413, 507) or (status in (403, 429) and _FULL.search(why)):
        return f"the hub takes no more for {name} ({status}: {why}); free some room, and {again}"
    if status == 403:
        return (
            f"the token may not write to {name} (403: {why}); use one that may, or name another "
            "repository"
        )
    if status in (409, 412):
        return f"{name} changed meanwhile ({status}: {why}); run it again to see what is there"
    if status is not None:
        return f"the hub refused {name} ({status}: {why}); {again}"
    return f"{name} was not reached: {why}; check the network, and {again}"
