"""Which code runs: talkface's version, and the commit where it runs from a checkout."""

from pathlib import Path

import talkface


def commit(root: Path = Path(talkface.__file__).parents[1]) -> str | None:
    """The commit that is checked out in ``root``, read without git; None where that is no checkout."""
    git = root / ".git"
    try:
        if git.is_file():  # a worktree's: where its own folder is, and from there the repository's
            git = root / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        return _of_branch(git, head.removeprefix("ref: ")) if head.startswith("ref: ") else head
    except OSError:
        return None


def _of_branch(git: Path, name: str) -> str | None:
    shared = git / "commondir"
    common = git / shared.read_text().strip() if shared.exists() else git
    if (common / name).exists():
        return (common / name).read_text().strip()
    packed = (line.partition(" ") for line in (common / "packed-refs").read_text().splitlines())
    return next((found for found, _, ref in packed if ref == name), None)
