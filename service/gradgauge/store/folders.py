"""Folders we make ourselves, and whether another account can walk into them."""

import os
import pwd
import stat
from pathlib import Path

# Others may pass through, not look: the embedded database's account has to reach its own folder.
PASSAGE = 0o711
PRIVATE = 0o700


def make_folder(path: Path, mode: int = PRIVATE) -> Path:
    """Create `path` with `mode`, whatever the umask, and its missing parents as passages.

    A folder that exists already is left as it is.
    """
    if path.is_dir():
        return path
    make_folder(path.parent, PASSAGE)
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    return path


def closed_ancestor(path: Path, account: pwd.struct_passwd) -> Path | None:
    """Return the first folder on the way to `path`, or it itself, that `account` cannot enter.

    Judged by the permission bits of what exists; access lists are not read.
    """
    for folder in (*reversed(path.parents), path):
        if folder.exists() and not _may_enter(folder.stat(), account):
            return folder
    return None


def _may_enter(status: os.stat_result, account: pwd.struct_passwd) -> bool:
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.pw_gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
