"""The page in a real browser: what is drawn belongs to the frame that is on the screen, and marks reach the disk."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from talkface.config import Threshold
from talkface.datasets import open_dataset
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import change_selection, read_selection
from talkface.vocab import ARKIT
from tests.datasets.making import CROP, columns_of, dot, make
from tests.datasets.view.conftest import BY_KEY, Served, serving

JAW = ARKIT.index("jawOpen")

SEEN = """(player) => {
  const video = talkface.players[player].video;
  const canvas = new OffscreenCanvas(64, 64);
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 64, 64);
  const { data } = context.getImageData(0, 0, 64, 64);
  let [x, y, n] = [0, 0, 0];
  for (let i = 0; i < 64 * 64; i++) if (data[4 * i] > 150) { x += (i % 64) + 0.5; y += Math.floor(i / 64) + 0.5; n++; }
  return [x / n, y / n, n];
}"""
"""The middle of the white dot in the picture that the video shows, in pixels of the crop, and its size."""

Page = Any


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Page]:
    yield from opened(browser, served)


def opened(browser: Any, served: Served, at: str = "", *, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """The page with its first clip; anything it complains of fails the test, and so does any request elsewhere."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.address + at)
    page.wait_for_selector("body[data-ready]")
    page.wait_for_selector(".player[data-state=ready]")
    page.complaints = complaints
    yield page
    assert complaints == []
    assert asked and all(url.startswith(f"http://127.0.0.1:{served.port}/") for url in asked)
    context.close()


def until(true: Callable[[], Any], what: str) -> Any:
    """What ``true`` gives once it gives something."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never: {what}")


def choose(page: Page, key: str) -> None:
    page.fill("#search", key)
    page.keyboard.press("Enter")
    page.locator("#list .row").first.click()
    page.wait_for_selector(f".player[data-state=ready] .key:text-is('{key}')")


def drawn(page: Page, player: int = 0) -> Any:
    return page.evaluate(
        "p => { const d = talkface.players[p].drawn; return {...d, mesh: [...d.mesh], box: [...d.box]}; }", player
    )


def go_to(page: Page, frame: int) -> None:
    page.keyboard.press("g")
    page.keyboard.type(str(frame))
    page.keyboard.press("Enter")
    until(lambda: drawn(page)["frame"] == frame, f"frame {frame} is shown")


@pytest.mark.parametrize("key", ["a-25", "b-vfr", "c-30"])
def test_every_frame_one_goes_to_has_its_own_box_mesh_and_curves(page: Page, key: str) -> None:
    choose(page, key)
    clip, columns = BY_KEY[key], columns_of(BY_KEY[key])
    count = len(clip.pts_ns)
    for frame in [count - 1, 1, 0, *np.random.default_rng(5).integers(0, count, 6).tolist()]:
        go_to(page, frame)
        found = drawn(page)
        x, y, size = page.evaluate(SEEN, 0)
        assert size > 9 and abs(np.array([x, y]) - dot(clip.pts_ns)[frame] - 0.5).max() < 0.7, "the picture's own frame"
        points = columns["lm"][frame][:, :2] @ CROP[:, :2].T + CROP[:, 2]
        np.testing.assert_allclose(np.reshape(found["mesh"], (-1, 2)), points, atol=1e-3)
        corners = columns["box"][frame, :4].reshape(2, 2) @ CROP[:, :2].T + CROP[:, 2]
        np.testing.assert_allclose(np.reshape(found["box"], (2, 2)), corners, atol=1e-3)
        assert abs(found["mediaTime"] - clip.pts_ns[frame] / 1e9) < 1e-5
        jaw = columns["arkit"][frame, JAW]
        shown = page.locator(".legend span", has_text="jawOpen").locator("b").inner_text()
        assert shown == "–" if np.isnan(jaw) else float(shown) == pytest.approx(jaw, abs=0.006)
        share = page.evaluate("getComputedStyle(document.querySelector('.strips')).getPropertyValue('--now')")
        assert float(share) == pytest.approx(clip.pts_ns[frame] / clip.end_ns, abs=1e-4)


def test_the_mesh_is_painted_onto_the_dot(page: Page) -> None:
    choose(page, "b-vfr")
    for name in ("b", "a"):
        page.keyboard.press(name)
    go_to(page, 37)
    found = page.evaluate(
        """() => {
          const canvas = document.querySelector(".overlay");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let [x, y, n] = [0, 0, 0];
          for (let i = 0; i < canvas.width * canvas.height; i++) {
            if (data[4 * i + 3] > 100) { x += i % canvas.width + 0.5; y += Math.floor(i / canvas.width) + 0.5; n++; }
          }
          return [x / n / canvas.width * 64, y / n / canvas.height * 64, n];
        }"""
    )
    assert found[2] > 4 and abs(np.array(found[:2]) - dot(BY_KEY["b-vfr"].pts_ns)[37] - 0.5).max() < 0.2
    page.keyboard.press("m")
    blank = "[...document.querySelector('.overlay').getContext('2d').getImageData(0, 0, 64, 64).data].some(Boolean)"
    until(lambda: not page.evaluate(blank), "the mesh is gone")


@pytest.mark.parametrize("key", ["a-25", "b-vfr", "c-30"])
def test_while_it_plays_all_is_in_step_with_the_picture(page: Page, key: str) -> None:
    choose(page, key)
    page.evaluate(
        f"""() => {{
          const player = talkface.players[0];
          const dot = {SEEN};
          window.steps = [];
          const look = (_, {{ mediaTime }}) => {{
            window.steps.push([mediaTime, player.drawn.frame, dot(0)]);
            player.video.requestVideoFrameCallback(look);
          }};
          player.video.requestVideoFrameCallback(look);
        }}"""
    )
    page.keyboard.press("Space")
    until(lambda: page.evaluate("talkface.players[0].video.ended"), "the clip ends")
    steps = page.evaluate("window.steps")
    places = dot(BY_KEY[key].pts_ns)
    frames = [frame for _, frame, _ in steps]
    assert len(set(frames)) > 5
    late = 0
    for media_time, frame, (x, y, _) in steps:
        in_picture = int(np.abs(places + 0.5 - [x, y]).max(axis=1).argmin())
        # On a busy machine the browser now and then tells of a picture when it shows the next one already.
        assert in_picture in (frame, frame + 1), f"the picture is frame {in_picture}, drawn is {frame}"
        late += in_picture > frame
        assert abs(media_time - BY_KEY[key].pts_ns[frame] / 1e9) < 1e-5
    assert late <= len(steps) / 4


def test_it_is_heard_on_the_same_clock(page: Page) -> None:
    choose(page, "a-25")
    page.keyboard.press("Space")
    sound = "talkface.players[0].video.webkitAudioDecodedByteCount"
    until(lambda: page.evaluate(sound) > 0, "sound is decoded")
    page.keyboard.press("Space")
    until(lambda: page.evaluate("talkface.players[0].video.paused"), "it pauses")
    assert page.evaluate("talkface.players[0].video.duration") == pytest.approx(BY_KEY["a-25"].end_ns / 1e9, abs=0.005)
    assert page.evaluate("document.querySelectorAll('video, audio').length") == 1


def test_stepping_with_keys(page: Page) -> None:
    choose(page, "b-vfr")
    for key, frame in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 59), ("Home", 0)):
        page.keyboard.press(key)
        until(lambda frame=frame: drawn(page)["frame"] == frame, f"{key} shows {frame}")
    page.click(".strip canvas", position={"x": 200, "y": 30})
    width = page.evaluate("document.querySelector('.strip canvas').clientWidth")
    clip = BY_KEY["b-vfr"]
    wanted = int(np.searchsorted(clip.pts_ns, 200 / width * clip.end_ns, "right")) - 1
    until(lambda: abs(drawn(page)["frame"] - wanted) <= 1, f"a click into a curve shows {wanted}")


def listed(page: Page) -> list[str]:
    texts = page.evaluate("talkface.list.items.map(row => talkface.table.text('key', row))")
    return [str(t) for t in texts]


def test_searching_and_filtering(page: Page) -> None:
    assert listed(page) == ["a-25", "b-vfr", "c-30"]
    page.fill("#search", "BEN sad")
    assert listed(page) == ["b-vfr"]
    page.fill("#search", "nobody")
    assert listed(page) == [] and page.is_visible("#empty")
    page.click("#empty button")
    page.select_option("#label-emotion", "fear")
    assert listed(page) == ["c-30"]
    page.click("#clear")
    page.select_option("#sort", "duration")
    by_length = sorted(("a-25", "b-vfr", "c-30"), key=lambda k: BY_KEY[k].end_ns)
    assert listed(page) == by_length
    page.click("#direction")
    assert listed(page) == by_length[::-1]
    page.evaluate(
        """() => {
          const slider = document.querySelector("[data-score=duration] input:last-child");
          slider.value = Number(slider.max) - 1;
          slider.dispatchEvent(new Event("input"));
        }"""
    )
    assert listed(page) == by_length[::-1][1:]


@pytest.fixture
def short(copy: str) -> str:
    """The key of the one clip of `copy` that a threshold hides."""
    change_selection(Dataset(copy), lambda s: s.model_copy(update={"thresholds": {"duration": Threshold(min=2.7)}}))
    (key,) = (k for k in ("a-25", "b-vfr", "c-30") if BY_KEY[k].end_ns < 2.7e9)
    return key


@pytest.fixture
def own_page(browser: Any, copy: str, short: str) -> Iterator[Page]:
    """The page of a dataset that the test may change."""
    with serving(copy) as served:
        yield from opened(browser, served)


def test_marks_reach_the_disk_and_readers(own_page: Page, copy: str, short: str) -> None:
    own_page.select_option("#shown", "hidden")
    assert listed(own_page) == [short]
    own_page.locator("#list .row").first.click()
    own_page.wait_for_selector(f".player[data-state=ready] .key:text-is('{short}')")
    assert "is below 2.7" in own_page.inner_text(".why")
    folder = Dataset(copy).folder
    for key, mark in (("k", "keep"), ("d", "drop")):
        own_page.keyboard.press(key)
        own_page.wait_for_selector(f"[data-mark={mark}][aria-pressed=true]")
        assert read_selection(folder).marks == {short: mark}
        assert (short in open_dataset(copy)) == (mark == "keep")
        assert own_page.is_visible(".why") == (mark == "drop")
    own_page.click("[data-mark=drop]")
    own_page.wait_for_selector("[data-mark=drop][aria-pressed=false]")
    assert read_selection(folder).marks == {}
    with folder.lock():
        own_page.keyboard.press("k")
        own_page.wait_for_selector("#toast:has-text('another toolkit is writing')")
    assert any("409" in text for text in own_page.complaints)
    own_page.complaints.clear()


def test_two_clips_side_by_side(page: Page) -> None:
    choose(page, "a-25")
    page.keyboard.press("c")
    page.wait_for_selector(".player:nth-child(2)[data-state=ready]")
    choose(page, "b-vfr")
    page.wait_for_selector(".player:nth-child(2) .key:text-is('b-vfr')")
    assert page.locator(".player .key").all_inner_texts() == ["a-25", "b-vfr"]
    page.keyboard.press("Space")
    until(lambda: min(drawn(page, 0)["frame"], drawn(page, 1)["frame"]) > 5, "both play")
    page.keyboard.press("x")
    assert page.locator(".player.active .key").inner_text() == "a-25"
    page.keyboard.press("c")
    until(lambda: page.locator(".player .key").all_inner_texts() == ["a-25"], "the active one stays")


def test_why_a_clip_was_rejected_and_the_clip_itself(page: Page) -> None:
    page.click("#tab-rejects")
    row = page.locator("#list .row").first
    assert "dropped" in row.inner_text()
    row.click()
    page.wait_for_selector(".player[data-state=ready] .key:text-is('d-left-out')")
    assert "left out when built: marked by hand" in page.inner_text(".why")
    go_to(page, 9)
    x, y, _ = page.evaluate(SEEN, 0)
    assert abs(np.array([x, y]) - dot(BY_KEY["d-left-out"].pts_ns)[9] - 0.5).max() < 0.7


def test_an_address_leads_to_a_frame(browser: Any, served: Served) -> None:
    for page in opened(browser, served, "#clip=c-30&frame=33"):
        assert page.inner_text(".key") == "c-30" and "token" not in page.url
        until(lambda page=page: drawn(page)["frame"] == 33, "the frame is shown")


def test_other_curves_can_be_chosen(page: Page) -> None:
    page.click("#choose-curves summary")
    page.check("input[value='arkit.cheekPuff']")
    page.uncheck("input[value='arkit.jawOpen']")
    page.check("input[value='box.score']")
    legend = until(lambda: "score" in page.inner_text(".strips") and page.inner_text(".strips"), "a strip of the box")
    assert "cheekPuff" in legend and "jawOpen" not in legend


def test_a_hundred_thousand_clips(browser: Any, copy: str) -> None:
    few = Dataset(copy).table("clips")
    many = few.take(pa.array(np.arange(100_000) % few.num_rows))
    keys = pa.array([f"clip-{i:06d}" for i in range(100_000)])
    many = many.set_column(0, "key", keys)
    pq.write_table(many, Path(copy) / "manifest" / "clips.parquet")
    with serving(copy) as served:
        context = browser.new_context()
        page = context.new_page()
        page.goto(served.address)
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        assert "100,000 of 100,000" in page.inner_text("#count")
        rows = page.locator("#list .row")
        assert 5 < rows.count() < 60
        page.evaluate("document.querySelector('#list').scrollTop = 66 * 70000")
        until(lambda: page.locator("[data-index='70000']").count() == 1, "the rows far down are there")
        assert rows.count() < 60
        page.fill("#search", "clip-0999")
        assert "100 of 100,000" in page.inner_text("#count")
        context.close()


def test_a_dataset_without_pictures_is_heard_and_its_curves_move(browser: Any, tmp_path: Path) -> None:
    with serving(make(tmp_path / "quiet", [BY_KEY["a-25"]])) as served:
        for page in opened(browser, served):
            page.keyboard.press("End")
            until(lambda page=page: drawn(page)["frame"] == 69, "the last frame's values are shown")
            page.keyboard.press("Home")
            page.keyboard.press("Space")
            until(lambda page=page: drawn(page)["frame"] > 20, "the curves follow the sound")
