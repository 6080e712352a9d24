"""DECA's encoder against transformers' ResNet-50, and what it is shown of a clip."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from transformers import ResNetConfig, ResNetModel

from talkface.annotate.base import ClipView, make_annotator
from talkface.annotate.flame import NAMES, faces
from talkface.annotate.landmarks import ibug68
from talkface.errors import WeightsError
from talkface.nets.deca import (
    OUTPUT,
    cut_face,
    face_square,
    load_encoder,
    split,
    to_input,
)
from talkface.nets.inference import PictureNet
from talkface.vocab import FLAME
from talkface.weights import Models
from tests.annotate.making import clip_view, mesh_in, video_of
from tests.annotate.stand_ins import random_deca, stand_in_models, synthetic_video

FRAMES = 6


@pytest.fixture(scope="module")
def deca(stand_ins: Path) -> Models:
    return stand_in_models(stand_ins, "deca")


def in_transformers(state: Mapping[str, torch.Tensor]) -> ResNetModel:
    """The same ResNet-50 as another library builds it."""
    renamed = {}
    for name, value in state.items():
        stage, block, layer, rest = (*name.split("."), "", "")[:4] if name.startswith("layer") else ("", "", name, "")
        inside = {"conv": "convolution", "bn": "normalization"}
        if stage:
            last = name.split(".")[-1]
            place = f"encoder.stages.{int(stage[5:]) - 1}.layers.{block}."
            if layer == "downsample":
                renamed[f"{place}shortcut.{'convolution' if rest == '0' else 'normalization'}.{last}"] = value
            else:
                renamed[f"{place}layer.{int(layer[-1]) - 1}.{inside[layer[:-1]]}.{last}"] = value
        else:
            kind, last = name.split(".")
            renamed[f"embedder.embedder.{inside[kind[:-1]]}.{last}"] = value
    net = ResNetModel(ResNetConfig()).eval()
    net.load_state_dict(renamed)
    return net


def test_the_encoder_is_a_resnet_and_two_layers(deca: Models) -> None:
    path = deca.get("deca")
    encoder = load_encoder(path)
    state = torch.load(path)["E_flame"]
    x = (
        torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
        .repeat_interleave(32, 2)
        .repeat_interleave(32, 3)
    )
    other = in_transformers({n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")})
    with torch.inference_mode():
        features = other(x).pooler_output.flatten(1)
        hidden = (features @ state["layers.0.weight"].T + state["layers.0.bias"]).clamp(min=0)
        expected = hidden @ state["layers.2.weight"].T + state["layers.2.bias"]
        found = encoder(x)
    assert features.std(dim=0).mean() > 0.01, "the pictures make a difference"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_outputs_come_in_decas_order() -> None:
    parts = split(torch.arange(236.0)[None])
    assert {name: (int(p[0, 0]), p.shape[1]) for name, p in parts.items()} == {
        "shape": (0, 100),
        "texture": (100, 50),
        "expression": (150, 50),
        "pose": (200, 6),
        "camera": (206, 3),
        "light": (209, 27),
    }
    assert sum(OUTPUT.values()) == 236
    assert [NAMES[part.start] for part in FLAME.values()] == [
        "expression0",
        "global_x",
        "global_x",
        "jaw_x",
        "camera_scale",
    ]


def test_the_square_is_the_papers() -> None:
    points = np.random.default_rng(0).uniform(100, 200, (68, 2))
    points[0], points[1] = (80, 60), (220, 260)
    centre, side = face_square(points)
    np.testing.assert_allclose(centre, (150, 160))
    assert side == pytest.approx(1.25 * 1.1 * (140 + 200) / 2)
    corners = np.array([centre - side / 2, centre + side / 2])
    matrix = to_input(points)
    np.testing.assert_allclose(corners @ matrix[:, :2].T + matrix[:, 2], [[0.5, 0.5], [223.5, 223.5]])


def test_the_mesh_has_nearly_the_square_of_decas_own_points(media: Path, models: Path) -> None:
    """AFLW2000's published points, which DECA is tested with: their jaw is where the face's outline is drawn."""
    found = []
    for path in sorted((media / "pose").glob("*.jpg")):
        published = scipy.io.loadmat(path.with_suffix(".mat"))["pt3d_68"][:2].T.astype(float)
        (centre, side), (true_centre, true_side) = (
            face_square(points) for points in (ibug68(mesh_in(path, models)[0]).astype(float), published)
        )
        found.append((side / true_side, np.linalg.norm(centre - true_centre) / true_side))
    sides, apart = np.transpose(found)
    print(f"\nsides {sides.round(3)}, mean {sides.mean():.3f}")
    print(f"centres, in sides: {apart.round(3)}, mean {apart.mean():.3f}")
    assert len(found) == 8
    assert 0.93 < sides.mean() < 1 and sides.min() > 0.87 and sides.max() < 1.04
    assert apart.mean() < 0.03 and apart.max() < 0.065


def test_the_picture_is_cut_where_the_square_says() -> None:
    """A ramp whose value is where it is: each sampled pixel shows its own place in the source, black is outside."""
    y, x = np.mgrid[:240, :180]
    ramp = np.stack([x, y, np.full_like(x, 255)], axis=2).astype(np.uint8)
    points = np.random.default_rng(0).uniform((60.3, 70.8), (170.2, 190.6), (68, 2))
    centre, side = face_square(points)
    cut = cut_face(ramp, points).astype(float)
    across, down = (c - side / 2 - 0.5 + np.arange(224) * side / 223 for c in centre)
    inside = cut[..., 2] == 255
    assert 0.5 < inside.mean() < 1
    np.testing.assert_allclose(cut[..., 0][inside], np.broadcast_to(across, (224, 224))[inside], atol=0.6)
    np.testing.assert_allclose(cut[..., 1][inside], np.broadcast_to(down[:, None], (224, 224))[inside], atol=0.6)
    outside = (across < -1) | (across > 180)
    assert outside.any()
    assert (cut[:, outside] == 0).all()


def test_the_source_is_seen_through_the_crop() -> None:
    """Points in source pixels, pictures of a crop twice as large: the same face is cut out of either."""
    rng = np.random.default_rng(0)
    source = np.kron(rng.integers(40, 216, (16, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    crop = np.array([[2.0, 0, -60], [0, 2.0, -80]])
    shown = np.kron(source, np.ones((2, 2, 1), np.uint8))[80:, 60:]
    points = rng.uniform((90, 100), (150, 170), (68, 2)).astype(np.float32)
    view = clip_view(1, crop=crop, video=video_of(shown[None]), lm68=points[None])
    (seen,) = faces(view, np.array([True]))
    expected = cut_face(source, points)
    assert np.abs(seen.astype(int) - expected).mean() < 4
    assert expected.std() > 20


@pytest.fixture(scope="module")
def seen(deca: Models) -> tuple[ClipView, dict[str, np.ndarray]]:
    """A synthetic face with points in all frames but two, and what comes of it."""
    points = np.random.default_rng(0).uniform(150, 350, (FRAMES, 68, 2)).astype(np.float32)
    points[2], points[4, 20, 1] = np.nan, np.nan
    view = clip_view(FRAMES, video=synthetic_video(1, FRAMES), lm68=points)
    return view, dict(annotated(view, deca))


def annotated(view: ClipView, models: Models, **settings: object) -> Mapping[str, np.ndarray]:
    annotator = make_annotator("flame", settings)
    annotator.open(models)
    return annotator.clip(view).columns


def test_rows_are_expression_pose_and_camera(deca: Models, seen: tuple[ClipView, dict[str, np.ndarray]]) -> None:
    view, columns = seen
    is_seen = np.isfinite(view.table.columns["lm68"]).all(axis=(1, 2))
    assert list(np.flatnonzero(~is_seen)) == [2, 4]
    out = PictureNet(load_encoder(deca.get("deca")))(np.stack(list(faces(view, is_seen)))).numpy()
    np.testing.assert_allclose(columns["flame"][is_seen], out[:, 150:209], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(columns["flame_shape"], np.median(out[:, :100], axis=0), rtol=1e-4, atol=1e-5)
    assert np.isnan(columns["flame"][~is_seen]).all()


def test_batches_change_rounding_alone(deca: Models, seen: tuple[ClipView, dict[str, np.ndarray]]) -> None:
    view, columns = seen
    flame, scale = columns["flame"], np.nanstd(columns["flame"])
    np.testing.assert_allclose(annotated(view, deca, batch=1)["flame"], flame, atol=1e-4 * scale)
    again = annotated(view, deca)
    assert all(again[name].tobytes() == column.tobytes() for name, column in columns.items())


def test_bfloat16_is_off_by_the_same_in_every_part(deca: Models, seen: tuple[ClipView, dict[str, np.ndarray]]) -> None:
    """RMS in the part's own unit, and in the deviation of its numbers over the clip's frames."""
    view, columns = seen
    rough = annotated(view, deca, precision="bfloat16")["flame"]
    for part in ("expression", "pose", "camera"):
        exact = columns["flame"][:, FLAME[part]]
        apart = np.sqrt(np.nanmean((rough[:, FLAME[part]] - exact) ** 2))
        assert 0 < apart < 0.03, part
        assert apart < 1.25 * np.sqrt(np.nanvar(exact, axis=0).mean()), part


def test_without_points_nothing_is_decoded(deca: Models) -> None:
    view = clip_view(4, video=b"no video", lm68=np.full((4, 68, 2), np.nan, np.float32))
    columns = annotated(view, deca)
    assert np.isnan(columns["flame"]).all()
    assert np.isnan(columns["flame_shape"]).all()


def test_a_file_that_is_not_decas_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deca_model.tar"
    torch.save({"E_flame": {"layers.2.weight": torch.zeros(334, 1024)}}, path)
    with pytest.raises(
        WeightsError, match=r"268 missing .*layers\.2\.weight: expected \(236, 1024\), got \(334, 1024\)"
    ):
        load_encoder(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(WeightsError, match="expected the key E_flame, found state_dict"):
        load_encoder(path)


def test_a_missing_file_says_where_it_comes_from(tmp_path: Path) -> None:
    annotator = make_annotator("flame", {})
    with pytest.raises(WeightsError, match=r"deca_model\.tar .*licence.*https://deca.*toolkit models add deca PATH"):
        annotator.open(Models(offline=True, cache=tmp_path))


def test_adding_a_registered_file_compares_what_is_inside(tmp_path: Path) -> None:
    models = Models(offline=True, cache=tmp_path / "cache")
    good, bad = tmp_path / "deca_model.tar", tmp_path / "bad.tar"
    random_deca(good)
    torch.save({"E_flame": {"layers.0.bias": torch.zeros(3)}}, bad)
    with pytest.raises(WeightsError, match=r"layers\.0\.bias: expected \(1024,\), got \(3,\)"):
        models.add("deca", bad)
    assert models.find("deca") is None
    assert models.add("deca", good).read_bytes() == good.read_bytes()
    assert models.find("deca") == tmp_path / "cache" / "deca_model.tar"
