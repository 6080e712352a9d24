"""Numbers against closed forms and plain loops."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.flame import load_flame
from talkface.metrics import (
    beat,
    blinks,
    boundary,
    diversity,
    expression_frechet,
    head_speed,
    intensity,
    landmark_distance,
    lip_vertices,
    sync,
    velocities,
)
from talkface.metrics.base import Comparison, metric
from talkface.metrics.faces import at_times, pair_up
from talkface.motion import steady_pts
from talkface.vocab import ARKIT
from talkface.weights.unpickle import read_arrays
from tests.annotate.stand_ins import random_flame
from tests.metrics.making import JAW, face, moving, speech, versus


def random_covariance(rng: np.random.Generator, d: int) -> np.ndarray:
    half = rng.normal(size=(d, d))
    return half @ half.T


def test_frechet_of_two_gaussians() -> None:
    """Diagonal: the sum of squared differences of means and of standard deviations."""
    m, n, s, t = np.array([[0.0, 1, 2], [1, 1, 0], [1, 2, 3], [2, 2, 0.5]])
    expected = ((m - n) ** 2).sum() + ((s - t) ** 2).sum()
    assert expression_frechet.frechet_gaussians(m, np.diag(s**2), n, np.diag(t**2)) == pytest.approx(expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_frechet_is_a_distance(d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.normal(size=d), random_covariance(rng, d)
    other = rng.normal(size=d), random_covariance(rng, d)
    there = expression_frechet.frechet_gaussians(*one, *other)
    assert there == pytest.approx(expression_frechet.frechet_gaussians(*other, *one), rel=1e-6)
    assert expression_frechet.frechet_gaussians(*one, *one) == pytest.approx(0, abs=1e-6 * np.trace(one[1]))
    assert there >= ((one[0] - other[0]) ** 2).sum() * (1 - 1e-9)


def test_frechet_agrees_with_the_matrix_square_root_and_survives_a_flat_covariance() -> None:
    from scipy.linalg import sqrtm  # noqa: PLC0415

    rng = np.random.default_rng(0)
    a, b = random_covariance(rng, 6), random_covariance(rng, 6)
    plain = np.trace(a + b - 2 * sqrtm(a @ b).real)
    zero = np.zeros(6)
    assert expression_frechet.frechet_gaussians(zero, a, zero, b) == pytest.approx(plain, rel=1e-8)
    flat = np.outer(a[0], a[0])
    assert np.isfinite(expression_frechet.frechet_gaussians(zero, flat, zero, b))
    assert expression_frechet.frechet_gaussians(zero, flat, zero, flat) == pytest.approx(0, abs=1e-6)


def test_shuffling_frames_leaves_e_fid_alone_and_scaling_does_not() -> None:
    table = moving(0, 200)
    shuffled = np.random.default_rng(1).permutation(table)
    fid = metric("expression_frechet").compute
    assert fid(versus(face(table), face(shuffled)))["e_fid_arkit"] == pytest.approx(0, abs=1e-6)
    assert fid(versus(face(0.5 * table), face(table)))["e_fid_arkit"] > 0.5


def test_head_speed_of_known_turns() -> None:
    """Two clips at constant 1 and 3 degrees a frame, the third with steps of 1 and 3 in turns."""
    steps = (np.full(49, 1.0), np.full(49, 3.0), np.tile([1.0, 3.0], 24))
    faces = []
    for step in steps:
        yaw = np.concatenate([[0], np.cumsum(step)])
        faces.append(face(frames=len(yaw), angles=np.radians(np.stack([yaw, 0 * yaw, 0 * yaw], axis=1))))
    found = metric("head_speed").compute(Comparison(generated=faces))
    assert found["head_velocity"] == pytest.approx(2, rel=1e-4)
    assert found["head_velocity_variance"] == pytest.approx(1 / 3, rel=1e-3)
    assert found["head_vmv"] == pytest.approx(np.var([1, 3, 2]), rel=1e-3)


def test_head_speed_is_a_rate_and_a_quaternions_sign_means_nothing() -> None:
    turn = np.radians(np.stack([np.arange(30.0), np.zeros(30), np.zeros(30)], axis=1))
    slow, fast = (face(frames=30, angles=turn, fps=fps) for fps in (25, 50))
    fast.columns["head"][1::2, :4] *= -1
    ratio = [metric("head_speed").compute(Comparison(generated=[f]))["head_velocity"] for f in (slow, fast)]
    assert ratio[1] == pytest.approx(2 * ratio[0], rel=1e-4)
    assert head_speed.turn_degrees(slow.columns["head"], slow.pts_ns) == pytest.approx(25, rel=1e-3)


def test_velocity_by_a_loop() -> None:
    a, b = moving(0), moving(1)
    pts = np.cumsum(np.random.default_rng(0).integers(20, 60, 50)) * 1_000_000
    total = 0.0
    for i in range(49):
        for c in range(52):
            seconds = (pts[i + 1] - pts[i]) / 1e9
            total += abs((a[i + 1, c] - a[i, c]) / seconds - (b[i + 1, c] - b[i, c]) / seconds)
    got = np.abs(velocities.velocity(a, pts) - velocities.velocity(b, pts)).mean()
    assert got == pytest.approx(total / (49 * 52))


def test_lip_error_by_a_loop() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 11, 3))
    worst = [max(float(np.sqrt(((a[t, v] - b[t, v]) ** 2).sum())) for v in range(11)) for t in range(7)]
    found = metric("lip_vertices").compute(versus(*(face(frames=7, columns={"lips": x}) for x in (a, b))))
    assert found["lip_vertex_error"] == pytest.approx(10 * np.mean(worst))
    assert lip_vertices.distances(a, b).shape == (7, 11)


def test_landmarks_of_a_shifted_face() -> None:
    points = np.random.default_rng(0).uniform(0, 256, (9, 68, 2))
    moved = points + np.array([3, 4])
    assert landmark_distance.face_distance(points, moved) == pytest.approx(np.full(9, 5.0))
    assert landmark_distance.mouth_distance(points, moved) == pytest.approx(np.zeros(9), abs=1e-9)
    moved[:, 60:68] += (1, 0)
    expected = (8 * 0.6 + 12 * 0.4) / 20
    assert landmark_distance.mouth_distance(points, moved) == pytest.approx(np.full(9, expected))


def mouth(opening: np.ndarray) -> np.ndarray:
    arkit = np.zeros((len(opening), 52))
    arkit[:, JAW] = opening
    return arkit


@pytest.mark.parametrize("late", [-3, 0, 2, 5])
def test_a_mouth_that_follows_the_sound_is_found_with_its_lag(late: int) -> None:
    t = np.arange(200) / 25
    opening = np.clip(0.5 + 0.5 * np.sin(2 * np.pi * 1.3 * t) * np.sin(2 * np.pi * 0.31 * t + 1), 0, 1)
    who = face(mouth(np.roll(opening, late)), sound=speech(opening))
    found = metric("beat").compute(Comparison(generated=[who]))
    assert found["mouth_energy_best"] > 0.9
    assert found["mouth_energy_lag"] == pytest.approx(40 * late, abs=21)
    assert found["mouth_energy_correlation"] <= found["mouth_energy_best"] + 1e-9


def test_beats_that_coincide_and_beats_that_do_not() -> None:
    beats = np.arange(10.0)
    assert beat.beat_alignment(beats, beats) == 1
    assert beat.beat_alignment(beats + 0.05, beats) == pytest.approx(np.exp(-0.5))
    assert beat.beat_alignment(beats + 0.5, beats) < 1e-9
    assert np.isnan(beat.beat_alignment(beats[:0], beats))
    bursts = np.zeros(100)
    bursts[20:26] = bursts[60:66] = 1
    assert beat.sound_beats(speech(bursts)) == pytest.approx([20 / 25 - 0.02, 60 / 25 - 0.02], abs=0.04)
    assert beat.mouth_beats(bursts, steady_pts(100, 25)) == pytest.approx([19.5 / 25, 59.5 / 25], abs=0.001)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000_000_000))
def test_sound_and_mouth_shifted_together_measure_the_same(offset_ns: int) -> None:
    """Velocities, blinks and steps do not depend on where the clock begins."""
    who = face(moving(3))
    later = face(moving(3))
    object.__setattr__(later, "pts_ns", later.pts_ns + offset_ns)
    for name in ("head_speed", "blinks", "boundary"):
        one, other = (metric(name).compute(Comparison(generated=[f])) for f in (who, later))
        assert one == pytest.approx(other, nan_ok=True)


def test_blinks_are_counted() -> None:
    closed = np.zeros(250)
    for at in (10, 60, 61, 62, 120, 200):
        closed[at] = 0.9
    closed[121:123] = 0.35
    found, seconds = blinks.blinks(closed, steady_pts(250, 25))
    assert seconds == pytest.approx(10)
    assert found == pytest.approx([0.04, 0.12, 0.12, 0.04])
    arkit = np.zeros((250, 52))
    arkit[:, [ARKIT.index("eyeBlinkLeft"), ARKIT.index("eyeBlinkRight")]] = closed[:, None]
    rates = metric("blinks").compute(Comparison(generated=[face(arkit)]))
    assert rates["blink_rate"] == pytest.approx(24) and rates["blink_length"] == pytest.approx(80)
    arkit[125:] = np.nan
    assert metric("blinks").compute(Comparison(generated=[face(arkit)]))["blink_rate"] == pytest.approx(36)


def test_seams_are_where_alg_1_joins_windows() -> None:
    """N = 32: the first window emits frames 0..31, the second 32..62, the third 63..93."""
    new = [frame for frame in range(1, 95) if boundary.seams(94, 32, 31)[frame - 1]]
    assert new == [32, 63, 94]
    assert boundary.seams(94, 32, 32).nonzero()[0].tolist() == [31, 63]


def test_a_jump_at_the_seam_shows() -> None:
    ramp = np.repeat(np.linspace(0, 0.94, 95)[:, None], 52, axis=1)
    flat = metric("boundary").compute(Comparison(generated=[face(ramp)]))
    assert flat["boundary_ratio"] == pytest.approx(1)
    jumping = ramp.copy()
    jumping[32:] += 0.1
    found = metric("boundary").compute(Comparison(generated=[face(jumping)]))
    assert found["boundary_jump"] == pytest.approx((0.11 + 0.01 + 0.01) / 3, rel=1e-4)
    assert found["inside_step"] == pytest.approx(0.01, rel=1e-4)
    own = face(jumping, provenance={"window": 40})
    assert metric("boundary").compute(Comparison(generated=[own]))["boundary_jump"] == pytest.approx(0.01, rel=1e-3)


def test_diversity_is_between_motions_of_one_sound() -> None:
    about = [{"sound_sha256": "s"}, {"sound_sha256": "s"}, {"sound_sha256": "other"}]
    faces = [face(np.full((20, 52), level), provenance=p) for level, p in zip((0.1, 0.4, 0.9), about, strict=True)]
    found = metric("diversity").compute(Comparison(generated=faces))
    assert found["diversity"] == pytest.approx(0.3, rel=1e-5)
    assert found["expression_spread"] == pytest.approx(0, abs=1e-6)
    assert diversity.distance(faces[0], faces[0]) == 0
    waves = moving(2)
    assert metric("diversity").compute(Comparison(generated=[face(waves)]))["expression_spread"] == pytest.approx(
        np.mean([np.std(waves[:, c]) for c in range(52)]), rel=1e-4
    )


def test_flie_is_zero_on_a_straight_line() -> None:
    direction = np.random.default_rng(0).normal(size=50)
    straight = np.linspace(0, 1, 4)[:, None] * direction
    assert intensity.flie(straight) == pytest.approx(0, abs=1e-6)
    bent = np.array([0, 0.5, 0.6, 1])[:, None] * direction
    change = np.array([0.5, 0.1, 0.4])
    assert intensity.flie(bent) == pytest.approx(50 * change.std() / change.mean(), rel=1e-3)
    assert abs(intensity.flie_eq20(bent)) < intensity.flie(bent)
    faces = [
        face(np.full((10, 52), level), labels={"speaker": "a", "emotion": name, "intensity": i})
        for i, (level, name) in enumerate([(0.1, "neutral"), (0.3, "sad"), (0.5, "sad"), (0.7, "sad")])
    ]
    found = metric("intensity").compute(Comparison(generated=faces))
    assert found["flie_arkit"] == pytest.approx(0, abs=1e-3) and found["intensity_levels"] == 4


class Late:
    """An expert for whom the sound fits best 80 ms later; a window's distance is what it is off by, in s."""

    def distance(self, who, shift_ns: int) -> np.ndarray:
        return np.array([abs(shift_ns - 80_000_000) / 1e9, np.nan])


def test_sync_scores_by_hand() -> None:
    distance, confidence, offset = sync.scores(Late(), face())
    apart = sorted(abs(s * 0.04 - 0.08) for s in range(-15, 16))
    assert (distance, offset) == (0, 80)
    assert confidence == pytest.approx(apart[15])


def test_pairs_are_found_by_name_and_put_on_the_generated_clock() -> None:
    references = [face(moving(i, 60), key=k, fps=30, sound=speech(np.ones(50))) for i, k in enumerate(("ab", "abc"))]
    made = [face(moving(9), key="abc-0"), face(moving(9), key="z", provenance={"clip": "ab"}), face(key="q")]
    pairs = pair_up(made, references)
    assert [(a.key, b.key) for a, b in pairs] == [("abc-0", "abc"), ("z", "ab")]
    assert all(np.array_equal(a.pts_ns, b.pts_ns) and a.sound is b.sound for a, b in pairs)
    expected = np.interp(pairs[0][0].pts_ns, references[1].pts_ns, references[1].columns["arkit"][:, 5])
    assert pairs[0][1].columns["arkit"][:, 5] == pytest.approx(expected, abs=1e-5)
    outside = at_times(references[0], np.array([-(10**9), 0, 10**10]))
    assert np.isfinite(outside.columns["arkit"]).any(axis=1).tolist() == [False, True, False]


def test_flames_vertices_move_as_far_as_its_file_says(tmp_path: Path) -> None:
    """Without a jaw a vertex goes along its expression directions; the head's turn and gaps do not count."""
    random_flame(tmp_path / "generic_model.pkl")
    directions = read_arrays(tmp_path / "generic_model.pkl")["shapedirs"][:, :, 300:350]
    rng = np.random.default_rng(0)
    rows = np.zeros((2, 300, 59), np.float32)
    rows[:, :, :50], rows[:, :, 50:53] = rng.normal(0, 1, (2, 300, 50)), rng.normal(0, 1, (2, 300, 3))
    apart = np.linalg.norm((rows[0] - rows[1])[:, :50] @ directions.transpose(0, 2, 1), axis=2)
    rows[0, 7, 2] = np.nan
    known = np.arange(300) != 7
    flame = load_flame(tmp_path / "generic_model.pkl")
    both = versus(*(face(frames=300, columns={"flame": side}) for side in rows))
    found = metric("flame_vertices").compute(replace(both, flame_model=flame))
    assert found["flame_vertex_mean"] == pytest.approx(1000 * apart[:, known].mean(), rel=1e-4)
    assert found["flame_jaw_mean"] == pytest.approx(1000 * apart[flame.on_jaw()][:, known].mean(), rel=1e-4)


def test_similarity_of_known_vectors_and_of_those_that_do_not_compare() -> None:
    one, other, wider = np.array([3.0, 4, 0]), np.array([0.0, 2, 0]), np.ones(4)
    faces = {name: face(identity=v) for name, v in (("one", one), ("other", other), ("wider", wider))}
    of = metric("face_similarity").compute
    assert of(versus(faces["one"], faces["other"]))["f_sim"] == pytest.approx(0.8)
    assert np.isnan(of(versus(faces["one"], faces["wider"]))["f_sim"])
