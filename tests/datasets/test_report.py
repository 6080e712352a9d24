"""The report: figures that are known, a page that needs nothing else."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.config import Threshold
from talkface.datasets import open_dataset
from talkface.datasets.build.job import build
from talkface.datasets.report import dead_shapes, measure, report, speed_buckets, spread
from talkface.datasets.selection import Selection, change_selection
from talkface.store import Folder
from talkface.vocab import ARKIT
from tests.datasets.conftest import make_plan


@pytest.fixture(scope="module")
def page(demo: Path) -> str:
    return report(open_dataset(str(demo)))


def test_the_page_needs_nothing_else(page: str) -> None:
    ours = re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.DOTALL)  # plotly.js itself names its home page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", ours)
    assert len(page) < 8_000_000


def test_the_page_says_what_the_dataset_holds(page: str, demo: Path) -> None:
    dataset = open_dataset(str(demo))
    assert f"<b>{len(dataset)}</b>clips" in page
    assert f"<b>{dataset.clips.column('frames').to_numpy().sum():,}</b>frames" in page
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert len(titles) == 10
    assert page.count("data:image/jpeg;base64,") == min(12, len(dataset))
    assert "scan / reason" not in page and "scan/not_media" in page
    assert "tongueOut (no value in any frame)" in page


def test_a_curve_has_no_line_over_a_gap(tmp_path: Path) -> None:
    """Every third frame is missing: of each curve pairs of points are left."""
    folder = Folder(tmp_path)
    plan = make_plan(folder, 1)
    info = {**plan.info, "config": {"build": {"thresholds": {}}}}
    build(folder, dataclasses.replace(plan, info=info, has_video=False))
    dataset = open_dataset(folder.url)
    drawn = [points.split() for points in re.findall(r'<polyline[^>]* points="(.*?)"', report(dataset))]
    assert [len(points) for points in drawn] == [2] * 3 * 3
    assert dataset.clips.column("frames").to_pylist() == [10]


def test_hidden_clips_are_left_out_and_thresholds_drawn(demo: Path, tmp_path: Path) -> None:
    url = str(shutil.copytree(demo, tmp_path / "copy", ignore=shutil.ignore_patterns("packs")))
    dataset = open_dataset(url)
    change_selection(
        dataset,
        lambda s: Selection(marks={dataset.keys()[0]: "drop"}, thresholds={"face_pixels": Threshold(min=123.25)}),
    )
    page = report(open_dataset(url))
    assert f"<b>{len(dataset) - 1}</b>clips" in page
    assert '"selected"' in page and "123.25" in page


def test_measured_motion_is_that_of_the_columns(demo: Path) -> None:
    dataset = open_dataset(str(demo))
    motion = measure(dataset)
    assert motion.clips == len(dataset)
    keys = dataset.keys()
    arkit = np.concatenate([dataset.arrays(key, ["arkit"])["arkit"] for key in keys])
    assert np.array_equal(motion.shapes, arkit, equal_nan=True)
    yaw = np.array(dataset.clips.column("yaw_max_degrees").to_pylist())
    assert motion.angles[:, 0].max() == pytest.approx(np.nanmax(yaw), abs=3), "the score leaves out outliers"
    assert measure(dataset, at_most=2).clips == 2


def test_every_plot_is_drawn_without_a_network(page: str, browser: Any, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page)
    offline = browser.new_context(offline=True)
    tab = offline.new_page()
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto((tmp_path / "report.html").as_uri())
    expected = page.count('class="plotly-graph-div"')
    tab.wait_for_function(f"document.querySelectorAll('.js-plotly-plot .bglayer').length >= {expected}")
    bars = tab.locator(".js-plotly-plot .barlayer .point, .js-plotly-plot .funnellayer .point").count()
    offline.close()
    assert problems == []
    assert expected == 7 and bars > 100


@given(st.lists(st.floats(0, 300), min_size=1, max_size=80), st.integers(2, 12))
def test_speed_buckets_rise_and_cover_the_data(speeds: list[float], n: int) -> None:
    buckets = speed_buckets(np.array(speeds), n)
    centres, radii = buckets.T
    assert len(buckets) == n and (np.diff(centres) >= 0).all() and (radii >= 0).all()
    assert centres.min() >= min(speeds) and centres.max() <= max(speeds)
    if n % 2:
        assert centres[n // 2] == pytest.approx(np.median(speeds))


def test_speed_buckets_without_a_head() -> None:
    assert speed_buckets(np.zeros(0)).shape == (0, 2)


def test_dead_shapes_are_those_that_do_not_move() -> None:
    moving = np.random.default_rng(0).random((200, 52))
    moving[:, ARKIT.index("cheekPuff")] = 0.3
    moving[:, ARKIT.index("tongueOut")] = np.nan
    moving[:50, ARKIT.index("jawOpen")] = np.nan
    assert dead_shapes(moving) == {"cheekPuff": "98 % of its frames within 0.02", "tongueOut": "no value in any frame"}


@given(st.integers(0, 500), st.integers(1, 50))
def test_rows_are_spread_from_the_first_to_the_last(n: int, at_most: int) -> None:
    rows = spread(n, at_most)
    assert len(rows) == min(n, at_most) and rows == sorted(set(rows))
    if n and at_most > 1:
        assert rows[0] == 0 and rows[-1] == n - 1
