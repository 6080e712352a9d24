"""The commit is read as git would say it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from talkface.train.provenance import commit
from tests.conftest import ROOT


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="no git to ask")
def test_the_commit_is_gits(tmp_path: Path) -> None:
    """Of a branch, of packed ones, of a worktree, of no branch at all."""
    repository, tree = tmp_path / "repository", tmp_path / "tree"
    repository.mkdir()
    git(repository, "init", "-b", "main")
    assert commit(repository) is None, "nothing was committed yet"
    git(repository, "commit", "--allow-empty", "-m", "one")
    assert commit(repository) == git(repository, "rev-parse", "HEAD")
    git(repository, "worktree", "add", "-b", "some/branch", str(tree))
    git(tree, "commit", "--allow-empty", "-m", "two")
    assert commit(tree) == git(tree, "rev-parse", "HEAD") != commit(repository)
    git(repository, "pack-refs", "--all")
    assert commit(tree) == git(tree, "rev-parse", "HEAD")
    git(tree, "checkout", "--detach", "main")
    assert commit(tree) == commit(repository)


def test_an_installed_package_has_none(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    if (ROOT / ".git").exists():
        assert commit() == commit(ROOT) is not None
