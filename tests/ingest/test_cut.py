"""Where clips start and end, and the crop that holds the face, on made-up tracks and on a real one."""

from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.annotate.base import Rows
from talkface.annotate.landmarks import FaceMesh
from talkface.clip import NS
from talkface.config import Cut, Faces, Pack, Shots, Video
from talkface.ingest.cut import CutClip, Cutter
from talkface.ingest.faces import Detector, Face, Tracker
from talkface.media import Frame, VideoReader

MESH = np.zeros((478, 3), np.float32)
STEP = NS // 25
BLANK = np.zeros((240, 320, 3), np.uint8)


def pack(*, keep_video: bool = False, size: int = 64, shot_seconds: float = 0, **cut: float) -> Pack:
    return Pack(
        keep_video=keep_video,
        video=Video(size=size),
        faces=Faces(max_gap_seconds=0.5),
        shots=Shots(min_seconds=shot_seconds),
        cut=Cut(**{"min_seconds": 0.2, "max_seconds": 2.0, **cut}),
    )


def face(track: int, x: float = 100, y: float = 80, side: float = 60, *, has_mesh: bool = True) -> Face:
    box = np.array([x, y, x + side * 0.8, y + side, 0.9], np.float32)
    return Face(track, box, MESH if has_mesh else None)


class Moment(NamedTuple):
    """One frame of a made-up stream."""

    pts_ns: int
    faces: Sequence[Face]
    new_shot: bool = False
    picture: np.ndarray = BLANK


def cut(cutter: Cutter, stream: Sequence[Moment], last_ns: int = STEP) -> list[CutClip]:
    """All clips; the row of each face tells its frame, track and whether it has a mesh."""
    clips: list[CutClip] = []
    for i, moment in enumerate(stream):
        rows: list[Rows] = [
            {"at": np.array([moment.pts_ns, f.track, f.mesh is not None]), "box": f.box} for f in moment.faces
        ]
        clips += cutter.push(Frame(moment.pts_ns, moment.picture), moment.faces, rows, moment.new_shot or i == 0)
    return clips + cutter.close(last_ns)


def steady(seconds: float, *faces: Face, start_ns: int = 0) -> list[Moment]:
    return [Moment(start_ns + i * STEP, faces) for i in range(round(seconds * 25))]


def spans(clips: Sequence[CutClip]) -> list[tuple[float, float]]:
    return [(c.start_ns / NS, c.end_ns / NS) for c in clips]


# What holds for any stream.

SEEN, BOX_ONLY, LOST = "mesh", "box", "lost"


@st.composite
def streams(draw: st.DrawFn) -> list[Moment]:
    """Frames at a varying rate with up to three tracks that come, go, are lost and wander; shots end all tracks."""
    moments, now, first = [], draw(st.integers(0, NS)), 0
    spots = {t: np.array([20.0 + 100 * t, 60.0]) for t in range(3)}
    runs = draw(st.lists(st.tuples(st.integers(1, 30), st.lists(st.sampled_from([SEEN, BOX_ONLY, LOST]),
                min_size=3, max_size=3), st.booleans(), st.integers(-8, 8)), min_size=1, max_size=8))  # fmt: skip
    for length, states, new_shot, speed in runs:
        first += 3 * new_shot
        for i in range(length):
            faces = []
            for t, state in enumerate(states):
                spots[t] = np.clip(spots[t] + [speed, 0], -30, 300)
                if state != LOST:
                    faces.append(face(first + t, *spots[t], has_mesh=state == SEEN))
            moments.append(Moment(now, faces, new_shot and i == 0))
            now += draw(st.sampled_from([STEP, STEP, NS // 60, NS // 5]))
    return moments


@settings(deadline=None, max_examples=60)
@given(streams(), st.lists(st.integers(0, 20 * NS), max_size=5, unique=True))
def test_any_stream(stream: list[Moment], silences: list[int]) -> None:
    settings_ = pack()

    def loud(times_ns: np.ndarray) -> np.ndarray:
        return np.random.default_rng(len(stream)).lognormal(0, 3, 97)[times_ns // (NS // 100) % 97]

    cutter = Cutter(settings_, [(s, s + NS // 2) for s in sorted(silences)], source="a.mp4", loudness=loud)
    clips = cut(cutter, stream)
    shot_starts = [m.pts_ns for m in stream if m.new_shot]
    for clip in clips:
        check_clip(clip, settings_, shot_starts)
    check_cover(stream, clips, cutter)


def check_clip(clip: CutClip, settings_: Pack, shot_starts: list[int]) -> None:
    seen = np.array([bool(r) and bool(r["at"][2]) for r in clip.rows])
    assert len(clip.rows) == len(clip.pts_ns)
    assert clip.start_ns == clip.pts_ns[0] and clip.pts_ns[-1] < clip.end_ns
    assert seen[0] and seen[-1], "trimmed to meshes"
    seconds = (clip.end_ns - clip.start_ns) / NS
    cut_, slowest = settings_.cut, 0.2
    assert cut_.min_seconds <= seconds
    assert seconds <= cut_.max_seconds + settings_.faces.max_gap_seconds + cut_.min_seconds + slowest
    last_seen = np.maximum.accumulate(np.where(seen, clip.pts_ns, 0))
    assert (clip.pts_ns - last_seen).max() <= settings_.faces.max_gap_seconds * NS
    assert not any(clip.start_ns < s < clip.end_ns for s in shot_starts)
    scale = clip.crop[0, 0]
    np.testing.assert_allclose(clip.crop[:, :2], np.eye(2) * scale)
    for pts_ns, row in zip(clip.pts_ns, clip.rows, strict=True):
        if row:
            assert row["at"][:2].tolist() == [pts_ns, clip.track]
            seen_part = np.clip(row["box"][:4].reshape(2, 2), 0, BLANK.shape[1::-1])
            corners = seen_part * scale + clip.crop[:, 2]
            assert corners.min() >= -1 and corners.max() <= settings_.video.size + 1, "the crop holds the face"
    edges = np.array([[0, 0], BLANK.shape[1::-1]]) * scale + clip.crop[:, 2]
    assert edges[0].max() < 1 and edges[1].min() > settings_.video.size - 1, "the crop lies in the picture"


def check_cover(stream: list[Moment], clips: list[CutClip], cutter: Cutter) -> None:
    """Clips of a track do not overlap, and each mesh is in one clip or in what was rejected."""
    for track in {c.track for c in clips}:
        for before, after in pairwise(sorted(spans([c for c in clips if c.track == track]))):
            assert before[1] <= after[0]
    too_short = [r for r in cutter.rejects if r.reason == "too_short"]
    rejected = {(int(r.message.split()[1].rstrip(":")), r.start_ns, r.end_ns) for r in too_short}
    taken = [(int(t), c.track) for c in clips for t in c.pts_ns]
    for moment in stream:
        for f in moment.faces:
            if f.mesh is not None:
                times = taken.count((moment.pts_ns, f.track))
                times += sum(t == f.track and a <= moment.pts_ns < b for t, a, b in rejected)
                assert times == 1, (moment.pts_ns, f.track)
    assert all(r.value < r.threshold == 0.2 for r in too_short)


# Where clips start and end.


def test_one_clip_to_the_end_of_the_last_frame() -> None:
    clips = cut(Cutter(pack(), [], source="a.mp4"), steady(1, face(1)), last_ns=3 * STEP)
    assert spans(clips) == [(0, 1.08)]


def test_long_tracks_are_cut_at_the_longest_length() -> None:
    clips = cut(Cutter(pack(), [], source="a.mp4"), steady(5, face(1)))
    assert spans(clips) == [(0, 2), (2, 4), (4, 5)]


def test_an_end_too_short_for_a_clip_stays_with_the_clip_before() -> None:
    cutter = Cutter(pack(), [], source="a.mp4")
    clips = cut(cutter, steady(4.16, face(1)))
    assert spans(clips) == [(0, 2), (2, 4.16)]
    assert cutter.rejects == []
    longer = cut(Cutter(pack(), [], source="a.mp4"), steady(4.28, face(1)))
    assert spans(longer) == [(0, 2), (2, 4), (4, 4.28)], "0.2 s of faces before the next frame begin a clip"


def test_long_tracks_are_cut_in_pauses() -> None:
    pauses = [(200, 300), (1100, 1500), (1700, 1900), (2900, 3700), (3900, 3950)]
    cutter = Cutter(pack(pause_seconds=0.2), [(a * 10**6, b * 10**6) for a, b in pauses], source="a.mp4")
    clips = cut(cutter, steady(5, face(1)))
    assert spans(clips) == [(0, 1.8), (1.8, 3.28), (3.28, 5)], "the frame nearest to a pause's middle starts a clip"
    assert cutter.planned_end(0) == 1_800_000_000
    assert cutter.planned_end(4 * NS) == 6 * NS


def test_without_a_pause_long_tracks_are_cut_where_it_is_quietest() -> None:
    def loud(times_ns: np.ndarray) -> np.ndarray:
        """Quietest long before the end; at 1.86 to 1.9 s as good as at 1.7 s, at 3.7 s louder than at 3.55 s."""
        quiet = {1000: 0.0, 1700: 10.0, 1860: 17.0, 1870: 15.0, 1880: 19.0, 1890: 12.0, 1900: 17.0}
        quiet |= {3550: 10.0, 3700: 21.0}
        return np.array([quiet.get(int(t) // 10**6, 1e6) for t in times_ns])

    cutter = Cutter(pack(), [], source="a.mp4", loudness=loud)
    assert spans(cut(cutter, steady(5, face(1)))) == [(0, 1.88), (1.88, 3.56), (3.56, 5)]
    assert cutter.planned_end(0) == 1_880_000_000, "the middle of what is quiet"
    assert Cutter(pack(), [(10**9, 2 * 10**9)], source="a.mp4", loudness=loud).planned_end(0) == 1_500_000_000


def test_no_pause_makes_a_clip_too_short() -> None:
    def loud(times_ns: np.ndarray) -> np.ndarray:
        return np.where(times_ns % NS == NS * 7 // 10, 1.0, 1e6)

    at_once = Cutter(pack(min_seconds=1.81), [], source="a.mp4", loudness=lambda t: (t != 1_810_000_000) + 1e-3)
    assert spans(cut(at_once, steady(4, face(1)))) == [(0, 1.84), (1.84, 4)], "not at 1.8 s, which is nearer"
    for pauses in ([], [(NS * n + NS // 2, NS * n + NS * 9 // 10) for n in range(9)]):
        cutter = Cutter(pack(min_seconds=1.8), pauses, source="a.mp4", loudness=loud)
        assert spans(cut(cutter, steady(8, face(1)))) == [(0, 2), (2, 4), (4, 6), (6, 8)]
        assert cutter.rejects == []


def test_gaps() -> None:
    """Half a second without a face stays inside a clip; more ends it; ends are trimmed to the last mesh."""
    short = [*steady(0.4, face(1)), *steady(0.48, start_ns=10 * STEP), *steady(0.4, face(1), start_ns=22 * STEP)]
    clips = cut(Cutter(pack(), [], source="a.mp4"), short)
    assert spans(clips) == [(0, 1.28)]
    assert [bool(r) for r in clips[0].rows] == [True] * 10 + [False] * 12 + [True] * 10
    long = [*steady(0.4, face(1)), *steady(0.6, start_ns=10 * STEP), *steady(0.4, face(1), start_ns=25 * STEP)]
    assert spans(cut(Cutter(pack(), [], source="a.mp4"), long)) == [(0, 0.4), (1.0, 1.4)]


def test_a_box_without_a_mesh_opens_and_ends_no_clip() -> None:
    bare = face(1, has_mesh=False)
    stream = [*steady(0.2, bare), *steady(0.4, face(1), start_ns=5 * STEP), *steady(0.2, bare, start_ns=15 * STEP)]
    assert spans(cut(Cutter(pack(), [], source="a.mp4"), stream)) == [(0.2, 0.6)]


def test_shots_number_and_end_clips() -> None:
    second = [Moment(1 * NS + m.pts_ns, m.faces, new_shot=i == 0) for i, m in enumerate(steady(1, face(2)))]
    clips = cut(Cutter(pack(), [], source="a.mp4"), steady(1, face(1)) + second)
    assert [(c.track, c.shot) for c in clips] == [(1, 0), (2, 1)]
    assert spans(clips) == [(0, 1), (1, 2)]


def test_short_shots_give_no_clips() -> None:
    cutter = Cutter(pack(shot_seconds=0.8), [], source="a.mp4")
    second = [Moment(15 * STEP + m.pts_ns, m.faces, new_shot=i == 0) for i, m in enumerate(steady(1, face(2)))]
    assert [c.track for c in cut(cutter, steady(0.6, face(1)) + second)] == [2]
    assert [(r.stage, r.reason, r.value, r.threshold) for r in cutter.rejects] == [("cut", "short_shot", 0.6, 0.8)]


def test_what_is_too_short_is_rejected_with_its_span() -> None:
    cutter = Cutter(pack(min_seconds=1.0), [], source="a.mp4")
    assert cut(cutter, steady(0.6, face(7), start_ns=NS)) == []
    (reject,) = cutter.rejects
    assert (reject.stage, reject.reason, reject.source) == ("cut", "too_short", "a.mp4")
    assert (reject.start_ns, reject.end_ns) == (NS, NS + 15 * STEP)
    assert (reject.value, reject.threshold) == (0.6, 1.0)


def test_a_stream_without_a_face_is_rejected() -> None:
    cutter = Cutter(pack(), [], source="a.mp4")
    assert cut(cutter, steady(1)) == []
    assert [(r.stage, r.reason, r.start_ns, r.end_ns) for r in cutter.rejects] == [("track", "no_face", 0, NS)]
    assert Cutter(pack(), [], source="a.mp4").close(STEP) == []


def test_a_hole_does_not_stretch_the_last_frame() -> None:
    late = Moment(30 * NS, [face(2)], new_shot=True)
    clips = cut(Cutter(pack(), [], source="a.mp4"), [*steady(1, face(1)), late])
    assert spans(clips) == [(0, 1)]


def test_a_face_that_walks_away_starts_a_new_clip() -> None:
    stream = [Moment(i * STEP, [face(1, x=10 + 3 * i)]) for i in range(80)]
    clips = cut(Cutter(pack(max_seconds=30), [], source="a.mp4"), stream)
    assert len(clips) > 1
    for before, after in pairwise(clips):
        assert before.end_ns == after.start_ns
        assert before.track == after.track == 1
        assert after.crop[0, 2] < before.crop[0, 2], "the crop goes with the face from clip to clip"


def test_a_real_face_stays_in_its_crop(media: Path, models: Path) -> None:
    """The crop holds the mesh, and the mesh found in the crop is the mesh found in the source."""
    mesh = FaceMesh(models / "face_landmarker.task")
    tracker = Tracker(Detector("yunet", models / "yunet_n_640_640.onnx", Faces()), mesh, Faces())
    cutter, clips = Cutter(Pack(), [], source="face.mp4"), []
    reader = VideoReader(str(media / "emotional" / "spectre__M003_level_1_disgusted_015.mp4"))
    for i, frame in enumerate(islice(reader, 40)):
        faces = tracker.push(frame.rgb, frame.pts_ns, new_shot=i == 0)
        clips += cutter.push(frame, faces, [{"lm": f.mesh} for f in faces if f.mesh is not None], i == 0)
    (clip,) = clips + cutter.close(STEP)
    assert len(clip.pts_ns) == 40
    for crop, row in islice(zip(clip.crops(), clip.rows, strict=True), 0, None, 8):
        points = row["lm"][:, :2] @ clip.crop[:, :2].T + clip.crop[:, 2]
        assert points.min() > 0 and points.max() < 512
        again = mesh.detect(crop, np.array([0.0, 0, 512, 512]))
        assert again is not None
        assert np.linalg.norm(again.points[:, :2] - points, axis=1).mean() < 0.01 * 512
