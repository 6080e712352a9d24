"""``toolkit filter``: choosing clips by scores, and what each choice costs."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from talkface.annotate.base import annotator_class, annotator_names
from talkface.config import PRESETS, Ingest, Rule, Threshold
from talkface.datasets import open_dataset
from talkface.datasets.build.job import PLAN, build, rebuild
from talkface.datasets.filter import survey, with_bounds
from talkface.datasets.missing_columns import to_make
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import FILE, Selection, mark, read_selection
from talkface.datasets.verify.dataset import verify
from talkface.errors import ConfigError, DatasetError
from talkface.store import PACKS, Folder
from tests.conftest import ROOT, Toolkit, files_of
from tests.datasets.conftest import make_plan


def choose(**thresholds: Threshold) -> Selection:
    return Selection(thresholds=thresholds)


def test_each_bound_alone_and_all_together(dataset: Dataset) -> None:
    longest = max(dataset.clips.column("duration").to_pylist())
    found = survey(dataset, choose(duration=Threshold(min=0.45, max=longest), coverage=Threshold(max=0.9)))
    short = sum(d < 0.45 for d in dataset.clips.column("duration").to_pylist())
    assert [(c.score, c.side, c.alone, c.only) for c in found.costs] == [
        ("duration", "min", short, 0), ("duration", "max", 0, 0), ("coverage", "max", 11, 11 - short),
    ]  # fmt: skip
    assert (found.clips, found.together, found.shown) == (11, 11, 0) and 0 < short < 11


def test_laxer_thresholds_tell_what_a_rebuild_brings_back_and_it_does(dataset: Dataset) -> None:
    as_built = files_of(Path(dataset.folder.root))
    assert survey(dataset, Selection()).rejected == 1 and survey(dataset, Selection()).returning == 0
    laxer = choose(coverage=Threshold(min=0.1))
    assert survey(dataset, laxer).returning == 1
    rebuild(dataset.folder, laxer)
    assert len(Dataset(dataset.url)) == 12 and verify(dataset.url) == []
    assert "s0-1" in open_dataset(dataset.url) and survey(Dataset(dataset.url), laxer).rejected == 0
    rebuild(dataset.folder, Selection())
    assert files_of(Path(dataset.folder.root)) == as_built


def test_only_packs_with_clips_that_may_return_are_read(dataset: Dataset) -> None:
    packs = Path(dataset.folder.root) / PACKS
    (packs / "u3.json").unlink()
    assert survey(dataset, choose(coverage=Threshold(min=0.1))).returning == 1
    assert survey(dataset, Selection(marks={"s0-1": "keep"})).returning == 1
    (packs / "u0.json").unlink()
    assert survey(dataset, choose(coverage=Threshold(min=0.3))).returning == 0, "0.2 stays out whatever packs say"
    assert survey(dataset, choose(coverage=Threshold(min=0.1))).returning is None


def test_a_rebuild_follows_marks(dataset: Dataset) -> None:
    mark(dataset, {"s0-1": "keep", "s3-0": "drop"})
    assert survey(dataset, read_selection(dataset.folder)).returning == 1
    rebuild(dataset.folder, read_selection(dataset.folder))
    again = Dataset(dataset.url)
    assert "s0-1" in again and "s3-0" not in again and len(again) == 11
    dropped = [r for r in again.table("rejects").to_pylist() if r["key"] == "s3-0"]
    assert [(r["stage"], r["reason"]) for r in dropped] == [("filter", "dropped")]
    rebuild(dataset.folder)
    assert Dataset(dataset.url).keys() == again.keys(), "a repair builds by the same plan"


def test_dataset_json_says_what_it_was_built_with(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "made")
    plan = make_plan(folder)
    config = {
        "config": Ingest(build=plan.build).model_dump(mode="json"),
        "config_hash": Ingest(build=plan.build).hash(),
    }
    build(folder, dataclasses.replace(plan, info={**plan.info, **config}))
    rebuild(folder, choose(coverage=Threshold(min=0.1)))
    info = Dataset(folder.url).info
    assert info.config["build"]["thresholds"] == {"coverage": {"min": 0.1, "max": None}}
    assert info.config_hash == Ingest.model_validate(info.config).hash() != config["config_hash"]


def test_without_packs_nobody_knows_what_would_come_back(dataset: Dataset) -> None:
    dataset.folder.remove(PACKS)
    assert survey(dataset, choose(coverage=Threshold(min=0.1))).returning is None


def test_plans_of_older_builds_have_no_marks(dataset: Dataset) -> None:
    plan = json.loads(dataset.folder.read(PLAN))
    del plan["marks"]
    dataset.folder.write(PLAN, json.dumps(plan).encode())
    assert sum(split["clips"] for split in rebuild(dataset.folder).splits.values()) == len(dataset)


def test_a_plan_of_another_version_is_told(dataset: Dataset) -> None:
    plan = json.loads(dataset.folder.read(PLAN))
    dataset.folder.write(PLAN, json.dumps(plan | {"packs": [use["name"] for use in plan["packs"]]}).encode())
    assert survey(dataset, choose(coverage=Threshold(min=0.1))).returning is None
    with pytest.raises(DatasetError, match=r"plan\.json: written by another version"):
        rebuild(dataset.folder)


def test_bounds_are_set_changed_and_taken_away() -> None:
    first = with_bounds({}, ["a.min=0.5", "a.max=1e3", "b.max=-2"])
    assert first == {"a": Threshold(min=0.5, max=1000.0), "b": Threshold(max=-2.0)}
    assert with_bounds(first, ["a.min=", "b.max="]) == {"a": Threshold(max=1000.0)}


def test_bounds_of_the_ingest_hold_side_by_side_until_they_are_taken_away() -> None:
    ingested = {"a": Threshold(min=0.5, max=2)}
    assert with_bounds({}, ["a.max=1"], ingested) == {"a": Threshold(min=0.5, max=1)}
    assert with_bounds({}, ["a.min="], ingested) == {"a": Threshold(max=2)}
    assert with_bounds({}, ["a.min=", "a.max="], ingested) == {"a": Threshold()}
    assert with_bounds({}, [], ingested) == {}


def test_a_threshold_of_the_ingest_can_be_taken_away_and_comes_back(dataset: Dataset, toolkit: Toolkit) -> None:
    """By ``--set`` without a value, and by ``--reset``; the command says what the ingest asked for."""
    assert "the ingest asked for coverage >= 0.5" in toolkit("filter", dataset.url).stdout
    gone = toolkit("filter", dataset.url, "--set", "coverage.min=", "--rebuild").stdout
    assert "the ingest asked" not in gone and "1 would come back" in gone
    assert len(Dataset(dataset.url)) == 12
    toolkit("filter", dataset.url, "--set", "coverage.max=0.5", "--rebuild")
    assert Dataset(dataset.url).keys() == ["s0-1"]
    toolkit("filter", dataset.url, "--reset", "--rebuild")
    assert len(Dataset(dataset.url)) == 11


def test_a_rebuild_goes_by_every_number_of_a_clip(dataset: Dataset) -> None:
    """`duration` is no annotator's score."""
    longest = max(dataset.clips.column("duration").to_pylist())
    rebuild(dataset.folder, choose(duration=Threshold(min=longest)))
    assert set(Dataset(dataset.url).clips.column("duration").to_pylist()) == {longest}


@pytest.mark.parametrize("text", ["a=1", "a.mean=1", "a.min=x", "a.min=nan", "a.min", ".min=1"])
def test_what_does_not_read_as_a_bound(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        with_bounds({}, [text])


def test_bounds_that_nothing_passes() -> None:
    with pytest.raises(ConfigError, match="minimum 2 is above the maximum 1"):
        with_bounds({"a": Threshold(max=1)}, ["a.min=2"])


def test_the_command(dataset: Dataset, toolkit: Toolkit) -> None:
    before = files_of(Path(dataset.folder.root))
    dry = toolkit("filter", dataset.url, "--set", "coverage.min=0.1", "--dry-run").stdout
    assert "nothing written" in dry and "1 would come back with --rebuild" in dry
    assert files_of(Path(dataset.folder.root)) == before
    toolkit("filter", dataset.url, "--set", "duration.min=0.45")
    shown = len(open_dataset(dataset.url))
    assert 0 < shown < 11
    assert f"{shown} shown" in toolkit("filter", dataset.url).stdout
    assert f"{11 - shown} clips" in toolkit("stats", dataset.url).stdout.split("hidden by selection.json:")[1]
    toolkit("filter", dataset.url, "--reset", "--set", "coverage.min=0.1", "--rebuild")
    assert len(open_dataset(dataset.url)) == 12


def test_a_preset_says_which_scores_are_not_there(dataset: Dataset, toolkit: Toolkit) -> None:
    told = toolkit("filter", dataset.url, "--preset", "in-the-wild").stdout
    for score, rule in PRESETS["in-the-wild"].items():
        command = (
            f"toolkit annotate {dataset.url} --with" if rule.annotator == "voice" else "toolkit ingest ... --with ...,"
        )
        line = f"not applied: {score}, which this dataset does not have. Add it and run this again: {command}"
        assert (line in " ".join(told.split())) == (score != "coverage"), score
    assert set(read_selection(dataset.folder).thresholds) == {"coverage"}


def test_the_commands_that_a_preset_names_do_what_they_say(dataset: Dataset, toolkit: Toolkit) -> None:
    """An annotator named for `toolkit annotate` is taken by it; one named for an ingest is refused by it."""
    told = " ".join(toolkit("filter", dataset.url, "--preset", "in-the-wild", "--dry-run").stdout.split())
    later = set(re.findall(rf"toolkit annotate {re.escape(dataset.url)} --with (\w+)", told))
    again = set(re.findall(r"toolkit ingest \.\.\. --with \.\.\.,(\w+)", told))
    assert (later, again) == ({"voice"}, {"quality", "head", "arkit", "sync", "speaker"})
    assert to_make(dataset.held, sorted(later)) == ["voice"]
    for name in again:
        refused = toolkit("annotate", dataset.url, "--with", name, "--offline", code=2).stderr
        assert "Run: toolkit ingest ... --with ...," in refused or "already: ingest again" in refused, name


def test_mistakes_on_the_command_line(dataset: Dataset, toolkit: Toolkit) -> None:
    for arguments, said in (
        (("--set", "covrage.min=1"), "Did you mean 'coverage'"),
        (("--preset", "hdft"), "Did you mean 'hdtf'"),
        (("--set", "coverage.min=much"), "not a number"),
    ):
        assert said in toolkit("filter", dataset.url, *arguments, code=2).stderr
    assert not dataset.folder.exists(FILE)


def test_presets_bound_scores_that_annotators_give_and_the_page_has_every_number() -> None:
    page = (ROOT / "docs" / "filter.md").read_text()
    for name, rules in PRESETS.items():
        for score, rule in rules.items():
            if rule.annotator in annotator_names():
                assert score in {s.name for s in annotator_class(rule.annotator).scores}, f"{name}: {score}"
            assert row(name, score, rule) in page


def row(preset: str, score: str, rule: Rule) -> str:
    """A preset's line in docs/filter.md."""
    sides = [f"{side} {bound:g}" for side, bound in (("min", rule.min), ("max", rule.max)) if bound is not None]
    return f"| `{preset}` | `{score}` | {', '.join(sides)} | {rule.why} |"
