"""Marks and thresholds beside a dataset: who sees what, and that nothing wrong is written."""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.config import Threshold
from talkface.datasets import open_dataset
from talkface.datasets.loading.loader import Loader
from talkface.datasets.loading.windows import Windows
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import FILE, Selection, change_selection, costs, mark, nearest, read_selection
from talkface.datasets.stats import stats, why
from talkface.errors import ConfigError, DatasetError, RunError
from talkface.store import Folder

VALUES = st.one_of(st.none(), st.just(float("nan")), st.integers(0, 4).map(float))
BOUND = st.one_of(st.none(), st.integers(0, 4).map(float))
SELECTIONS = st.builds(
    Selection,
    marks=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["keep", "drop"])),
    thresholds=st.dictionaries(st.sampled_from(["x", "y"]), st.builds(Threshold, min=BOUND, max=BOUND)),
)


def passes(value: float | None, bounds: Threshold) -> bool:
    if value is None or math.isnan(value):
        return True
    return (bounds.min is None or value >= bounds.min) and (bounds.max is None or value <= bounds.max)


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=6, max_size=6), SELECTIONS)
def test_marks_go_before_thresholds_and_what_is_missing_passes(
    rows: list[tuple[float | None, float | None]], selection: Selection
) -> None:
    real = pa.float64()
    clips = pa.table({
        "key": list("abcdef"),
        "x": pa.array([r[0] for r in rows], real),
        "y": pa.array([r[1] for r in rows], real),
    })  # fmt: skip
    expected = []
    for key, (x, y) in zip("abcdef", rows, strict=True):
        by_score = all(passes({"x": x, "y": y}[n], t) for n, t in selection.thresholds.items())
        expected.append({"keep": True, "drop": False}.get(selection.marks.get(key, ""), by_score))
    assert selection.shown(clips).tolist() == expected
    assert [not selection.why_hidden(row) for row in clips.to_pylist()] == expected
    for cost in costs(clips, selection.thresholds):
        bound = Threshold(**{cost.side: cost.bound})
        assert cost.alone == sum(not passes(dict(zip("xy", r, strict=True))[cost.score], bound) for r in rows)
        assert cost.only <= cost.alone


def test_a_dataset_without_a_selection_shows_everything(dataset: Dataset) -> None:
    assert read_selection(dataset.folder) == Selection() and len(open_dataset(dataset.url)) == len(dataset) == 11
    assert not dataset.folder.exists(FILE)


def test_readers_statistics_and_loaders_honour_it(dataset: Dataset) -> None:
    hidden, *rest = dataset.keys()
    mark(dataset, {hidden: "drop", rest[0]: "keep"})
    seen = open_dataset(dataset.url)
    assert seen.keys() == rest and hidden not in seen
    assert seen.sample(rest[3])["json"]["key"] == rest[3]
    assert open_dataset(dataset.url, selection=False).keys() == Dataset(dataset.url).keys() == [hidden, *rest]
    assert any(line.endswith("hidden by selection.json: marked drop") for line in why(dataset, "*"))
    found = stats(seen)
    assert found["clips"] == 10 and found["hidden"] == 1
    assert sum(s["clips"] for s in found["splits"].values()) == 10
    loader = Loader(seen, Windows(length=4, fps=25, columns=("arkit",), stride=4), batch_size=1, shuffle=False)
    assert {batch["key"][0] for batch in loader} == set(rest)


def test_a_loader_does_not_go_on_with_other_clips(dataset: Dataset) -> None:
    windows = Windows(length=4, fps=25, columns=("arkit",))
    state = Loader(open_dataset(dataset.url), windows, batch_size=1).state_dict()
    mark(dataset, {dataset.keys()[4]: "keep"})
    Loader(open_dataset(dataset.url), windows, batch_size=1).load_state_dict(state)
    mark(dataset, {dataset.keys()[4]: "drop"})
    with pytest.raises(ConfigError, match=r"another data: .*selection\.json"):
        Loader(open_dataset(dataset.url), windows, batch_size=1).load_state_dict(state)
    mark(dataset, {dataset.keys()[4]: None})
    assert read_selection(dataset.folder).marks == {}
    Loader(open_dataset(dataset.url), windows, batch_size=1).load_state_dict(state)


def test_a_clip_among_the_rejects_may_be_marked(dataset: Dataset) -> None:
    rejected = next(r["key"] for r in dataset.table("rejects").to_pylist() if r["key"])
    mark(dataset, {rejected: "keep"})
    assert read_selection(dataset.folder).marks == {rejected: "keep"} and len(open_dataset(dataset.url)) == 11


def test_unknown_names_are_told_with_the_nearest_and_nothing_is_written(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"no clip 's3-9' among 12\. Did you mean 's3-[01]'"):
        mark(dataset, {"s3-9": "drop"})
    with pytest.raises(ConfigError, match=r"no score named 'covrage'\. Did you mean 'coverage'"):
        change_selection(dataset, lambda s: s.model_copy(update={"thresholds": {"covrage": Threshold(min=0.9)}}))
    assert not dataset.folder.exists(FILE)
    dataset.folder.write(FILE, b'{"marks": {"s3-9": "keep"}}')
    with pytest.raises(ConfigError, match=r"selection\.json: no clip 's3-9'"):
        open_dataset(dataset.url)
    assert len(open_dataset(dataset.url, selection=False)) == 11


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("{", DatasetError, r"selection\.json: not JSON.*remove it"),
        ("[]", ConfigError, r"selection\.json: unknown key"),
        ('{"marks": {"s0-0": "maybe"}}', ConfigError, r"marks\.s0-0: Input should be 'keep' or 'drop'"),
        ('{"mark": {}}', ConfigError, r"unknown key 'mark'\. Did you mean 'marks'"),
        ('{"thresholds": {"coverage": {"mni": 1}}}', ConfigError, r"unknown key 'thresholds\.coverage\.mni'"),
    ],
)
def test_a_damaged_file_is_an_error(dataset: Dataset, text: str, error: type[Exception], said: str) -> None:
    dataset.folder.write(FILE, text.encode())
    with pytest.raises(error, match=said):
        open_dataset(dataset.url)


def test_a_dataset_behind_a_url_can_be_read_but_not_marked(dataset: Dataset) -> None:
    mark(dataset, {"s0-0": "drop"})
    fsspec.filesystem("memory").put(dataset.folder.root, "/selected", recursive=True)
    behind = open_dataset("memory://selected")
    assert len(behind) == 10
    with pytest.raises(ConfigError, match="beside a local dataset only"):
        mark(behind, {"s0-0": None})


def test_two_writers_are_kept_apart(dataset: Dataset) -> None:
    with dataset.folder.lock(), pytest.raises(RunError, match="another toolkit is writing here"):
        mark(dataset, {"s0-0": "drop"})
    assert read_selection(dataset.folder) == Selection()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="file permissions of Unix")
def test_a_dataset_that_is_read_only_says_so(dataset: Dataset) -> None:
    root = Path(dataset.folder.root)
    (root / ".lock").unlink(missing_ok=True)
    root.chmod(0o555)
    for folder in root.parents:  # pytest's own are its user's alone
        if folder.is_relative_to(tempfile.gettempdir()) and not folder.stat().st_mode & 0o005:
            folder.chmod(0o755)
    code = f"""
import os
from talkface.datasets import open_dataset
from talkface.datasets.selection import mark
dataset = open_dataset({dataset.url!r})
dataset.clips, dataset.table("rejects")
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write everywhere
mark(dataset, {{"s0-0": "drop"}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    root.chmod(0o755)
    assert "RunError" in done.stderr and "cannot be written (Permission denied)" in done.stderr, done.stderr
    assert not dataset.folder.exists(FILE)


def test_what_is_written_is_plain_json_in_one_order(dataset: Dataset) -> None:
    mark(dataset, {"s1-0": "keep", "s0-0": "drop"})
    change_selection(dataset, lambda s: s.model_copy(update={"thresholds": {"coverage": Threshold(min=0.5)}}))
    data = Folder(dataset.folder.root).read(FILE)
    assert json.loads(data) == {
        "marks": {"s0-0": "drop", "s1-0": "keep"}, "thresholds": {"coverage": {"min": 0.5}}
    }  # fmt: skip
    mark(dataset, {"s2-0": "drop"})
    mark(dataset, {"s2-0": None})
    assert Folder(dataset.folder.root).read(FILE) == data


@settings(deadline=None)
@given(st.integers(0, 99_999))
def test_the_nearest_of_many_keys_is_found(number: int) -> None:
    assert nearest(f"clip-{number:05d}x", KEYS) == f"clip-{number:05d}"


KEYS = [f"clip-{i:05d}" for i in range(100_000)]
