"""The depth buffer: nearest wins at every pixel, edges are shared, textures keep their place in perspective."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.render import gl
from talkface.render.raster import Camera
from talkface.render.zbuffer import Material, Model, draw, look

CAMERA = Camera(width=64, height=64, fov_degrees=60)


def model(points: np.ndarray, triangles: list[list[int]], **changes: object) -> Model:
    n = len(points)
    plain = {
        "triangles": np.array(triangles, np.int32),
        "texels": np.zeros((n, 2)),
        "colours": np.full((n, 3), 255.0),
        "bias": np.zeros(n),
        "material": np.zeros(len(triangles), np.int32),
    }
    return Model(**{**plain, **changes})


def ray_traced(points: np.ndarray, triangles: list[list[int]]) -> np.ndarray:
    """Triangle that each pixel sees, -1 for none: every pixel's ray against every triangle."""
    row, column = np.mgrid[:64, :64]
    rays = np.stack([(column - 31.5) / CAMERA.focal, -(row - 31.5) / CAMERA.focal, np.full((64, 64), -1.0)], axis=-1)
    seen, nearest = np.full((64, 64), -1), np.full((64, 64), np.inf)
    for number, corners in enumerate(triangles):
        a, b, c = points[corners]
        columns = [np.broadcast_to(b - a, rays.shape), np.broadcast_to(c - a, rays.shape), -rays]
        solved = np.linalg.solve(np.stack(columns, axis=-1), np.broadcast_to(-a, rays.shape)[..., None])[..., 0]
        u, v, far = np.moveaxis(solved, -1, 0)
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (far > 0) & (far < nearest)
        nearest[hit], seen[hit] = far[hit], number
    return seen


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1))
def test_what_is_seen_is_what_rays_hit(seed: int) -> None:
    """Triangles that cut through each other, in any order, both sides visible."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-6, -6, -14], [6, 6, -6], (15, 3))
    triangles = np.arange(15).reshape(5, 3).tolist()
    seen = look(CAMERA, points, model(points, triangles, materials=(Material(two_sided=True),)))
    got = np.full(64 * 64, -1)
    got[seen.pixel] = seen.triangle
    different = got.reshape(64, 64) != ray_traced(points, triangles)
    assert different.mean() < 0.005, "single pixels on edges may round either way"


def test_shared_edges_leave_no_hole_and_backs_are_not_seen() -> None:
    grid = np.array([[x, y, -10.0 - 0.1 * x] for y in range(5, -6, -1) for x in range(-5, 6)], float)
    ring = [[11 * r + c, 11 * r + c + 11, 11 * r + c + 12, 11 * r + c + 1] for r in range(10) for c in range(10)]
    triangles = [t for a, b, c, d in ring for t in ([a, b, c], [a, c, d])]
    picture = np.zeros((64, 64, 3), np.uint8)
    draw(picture, CAMERA, grid, np.ones(121), model(grid, triangles))
    assert (picture[20:44, 20:44] > 200).all()
    behind = np.zeros((64, 64, 3), np.uint8)
    draw(behind, CAMERA, grid, np.ones(121), model(grid, [t[::-1] for t in triangles]))
    assert not behind.any()


def test_texture_is_in_perspective() -> None:
    """On a floor that recedes, the middle of the texture is not the middle of the picture."""
    points = np.array([[-4, 0, -20.0], [-4, -3, -7], [4, -3, -7], [4, 0, -20]])
    texture = np.zeros((65, 65, 3), np.uint8)
    texture[..., 0] = np.linspace(0, 128, 65, dtype=np.uint8)[:, None]
    texels = np.array([[0, 0], [0, 64], [64, 64], [64, 0]], float)
    floor = model(points, [[0, 1, 2], [0, 2, 3]], texels=texels, materials=(Material(texture=texture),))
    picture = np.zeros((64, 64, 3), np.uint8)
    draw(picture, CAMERA, points, np.full(4, 0.9), floor)
    middle = round(CAMERA.project(points[[0, 1]].mean(axis=0)[None])[0, 1])
    tops = [round(CAMERA.project(points[[i]])[0, 1]) for i in (0, 1)]
    full = picture[tops[1] - 1, 32, 0]
    assert picture[middle, 32, 0] == pytest.approx(full / 2, rel=0.1)
    assert middle < (tops[0] + tops[1]) / 2 - 3


def test_holes_in_a_texture_show_what_is_behind() -> None:
    points = np.array([[-4, 4, -10.0], [-4, -4, -10], [4, -4, -10], [4, 4, -10]])
    texture, alpha = np.full((8, 8, 3), 200, np.uint8), np.full((8, 8), 255, np.uint8)
    alpha[:, 4:] = 0
    texels = np.array([[0, 0], [0, 7], [7, 7], [7, 0]], float)
    card = model(points, [[0, 1, 2], [0, 2, 3]], texels=texels, materials=(Material(texture=texture, alpha=alpha),))
    picture = np.full((64, 64, 3), 7, np.uint8)
    draw(picture, CAMERA, points, np.ones(4), card)
    assert (picture[32, 15:28] > 100).all() and (picture[32, 36:50] == 7).all()


def test_bias_decides_between_surfaces_and_moves_none() -> None:
    near = np.array([[-4, 4, -10.0], [-4, -4, -10], [4, -4, -10]])
    both = np.concatenate([near, near - (0, 0, 1)])
    for bias, winner in ((0.0, 0), (3.0, 1)):
        seen = look(CAMERA, both, model(both, [[0, 1, 2], [3, 4, 5]], bias=np.repeat([0.0, bias], 3)))
        first = seen.triangle[seen.pixel == 40 * 64 + 20]
        assert first.tolist() == [winner]


def test_a_gpu_draws_the_same() -> None:
    try:
        painter = gl.painter("egl")
    except Exception as error:
        pytest.skip(f"no GL here: {error}")
    rng = np.random.default_rng(3)
    points = rng.uniform([-6, -6, -14], [6, 6, -6], (12, 3))
    mesh = model(
        points,
        np.arange(12).reshape(4, 3).tolist(),
        colours=rng.uniform(0, 255, (12, 3)),
        materials=(Material(two_sided=True),),
    )
    bright = rng.uniform(0.2, 1.1, 12)
    camera = Camera(width=128, height=96, fov_degrees=60)
    one, other = np.full((96, 128, 3), 30, np.uint8), np.full((96, 128, 3), 30, np.uint8)
    draw(one, camera, points, bright, mesh)
    painter(other, camera, points, bright, mesh)
    far = np.abs(one.astype(int) - other).max(axis=2) > 6
    assert (one != 30).any() and far.mean() < 0.01
