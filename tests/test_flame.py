"""FLAME's mesh against a plain loop, and its file: arrays come out, nothing that a pickle names ever runs."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from talkface.errors import WeightsError
from talkface.flame import Flame, load_flame, projected, rotation_matrices
from talkface.nets.deca import face_square
from talkface.weights.unpickle import read_arrays
from tests.annotate.stand_ins import random_flame


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("flame") / "generic_model.pkl"
    random_flame(file)
    return file


def by_hand(model: dict[str, np.ndarray], shape: np.ndarray, expression: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Vertices of one face: every sum and every matrix written out, in float64."""
    n = len(model["v_template"])
    still = model["v_template"].astype(np.float64).copy()
    for i in range(100):
        still += shape[i] * model["shapedirs"][:, :, i]
    for i in range(50):
        still += expression[i] * model["shapedirs"][:, :, 300 + i]
    joints = np.array([sum(model["J_regressor"][j, v] * still[v] for v in range(n)) for j in range(5)])
    turns = [Rotation.from_rotvec(v).as_matrix() for v in (pose[:3], np.zeros(3), pose[3:], np.zeros(3), np.zeros(3))]
    posed = still.copy()
    for k, amount in enumerate(np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])):
        posed += amount * model["posedirs"][:, :, k]
    world: list[np.ndarray] = []
    for j, parent in enumerate([-1, 0, 1, 1, 1]):
        local = np.eye(4)
        local[:3, :3] = turns[j]
        local[:3, 3] = joints[j] - (joints[parent] if j else 0)
        world.append(world[parent] @ local if j else local)
    out = np.zeros((n, 3))
    for v in range(n):
        for j in range(5):
            from_rest = np.append(posed[v] - joints[j], 1)
            out[v] += model["weights"][v, j] * (world[j] @ from_rest)[:3]
    return out


def test_vertices_are_those_of_a_plain_loop(path: Path) -> None:
    rng = np.random.default_rng(3)
    shape, expression = rng.normal(0, 1.5, (3, 100)), rng.normal(0, 1.5, (3, 50))
    pose = rng.normal(0, 0.4, (3, 6))
    found = load_flame(path)(*(torch.tensor(x, dtype=torch.float32) for x in (shape, expression, pose)))
    model = read_arrays(path)
    for i in range(3):
        np.testing.assert_allclose(found[i], by_hand(model, shape[i], expression[i], pose[i]), atol=2e-6)


def test_at_rest_the_mesh_is_the_template(path: Path) -> None:
    flame = load_flame(path)
    vertices = flame(torch.zeros(1, 100), torch.zeros(1, 50), torch.zeros(1, 6))
    torch.testing.assert_close(vertices[0], flame.template)
    assert flame.faces.dtype == torch.int64


def test_a_batch_gives_what_its_rows_give(path: Path) -> None:
    flame = load_flame(path)
    rng = torch.Generator().manual_seed(0)
    inputs = [torch.randn(5, k, generator=rng) for k in (100, 50, 6)]
    together = flame(*inputs)
    for i in range(5):
        torch.testing.assert_close(together[i], flame(*(x[i : i + 1] for x in inputs))[0], atol=1e-6, rtol=0)


def test_rows_of_the_column_become_vertices(path: Path) -> None:
    """Expression, pose and the clip's shape go where they belong, the camera nowhere; a gap is a gap."""
    flame, rng = load_flame(path), np.random.default_rng(5)
    rows, shape = rng.normal(0, 0.5, (4, 59)).astype(np.float32), rng.normal(0, 1, 100).astype(np.float32)
    rows[2, 58] = np.nan
    found = flame.vertices(rows, shape)
    model = read_arrays(path)
    for i in (0, 1, 3):
        expected = by_hand(model, shape, rows[i, :50], rows[i, 50:56])
        np.testing.assert_allclose(found[i], expected, atol=2e-6)
    assert np.isnan(found[2]).all()
    assert np.isnan(flame.vertices(rows, np.full(100, np.nan, np.float32))).all()


def test_the_jaw_carries_what_its_weights_say(path: Path) -> None:
    flame = load_flame(path)
    carried = np.flatnonzero(read_arrays(path)["weights"][:, 2] >= 0.5)
    assert 0 < len(carried) < 30
    np.testing.assert_array_equal(np.flatnonzero(flame.on_jaw()), carried)


def test_gradients_reach_a_pose_of_zero(path: Path) -> None:
    pose = torch.zeros(1, 6, requires_grad=True)
    load_flame(path)(torch.zeros(1, 100), torch.zeros(1, 50), pose).square().sum().backward()
    assert torch.isfinite(pose.grad).all()
    assert pose.grad.abs().max() > 0


def test_projected_is_the_way_back() -> None:
    """What DECA's camera puts at the input's corners and middle lies at the square's."""
    points = np.random.default_rng(1).uniform(100, 300, (1, 68, 2))
    centre, side = face_square(points[0])
    vertices = np.array([[[0, 0, 5], [-0.25, 0.25, 0], [0.25, -0.25, 0]]]) - (0.1, 0.2, 0)
    found = projected(vertices, np.array([[4.0, 0.1, 0.2]]), points)[0]
    pixel = side / 223
    np.testing.assert_allclose(found[0], centre, atol=pixel)
    np.testing.assert_allclose(found[1:], [centre - side / 2, centre + side / 2], atol=pixel)


def test_rotations_are_scipys() -> None:
    vectors = np.random.default_rng(0).normal(0, 2, (20, 3))
    vectors[0] = 0
    found = rotation_matrices(torch.tensor(vectors)).numpy()
    np.testing.assert_allclose(found, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_chumpy_and_sparse_matrices_become_arrays(tmp_path: Path, protocol: int) -> None:
    random_flame(tmp_path / "model.pkl", vertices=7, protocol=protocol)
    model = read_arrays(tmp_path / "model.pkl")
    assert {k: v.shape for k, v in model.items() if isinstance(v, np.ndarray)} == {
        "v_template": (7, 3),
        "f": (14, 3),
        "shapedirs": (7, 3, 400),
        "posedirs": (7, 3, 36),
        "J_regressor": (5, 7),
        "weights": (7, 5),
        "kintree_table": (2, 5),
    }
    rng = np.random.default_rng(0)
    rng.random((7, 5))
    np.testing.assert_array_equal(model["v_template"], rng.normal(0, 0.1, (7, 3)))
    assert isinstance(load_flame(tmp_path / "model.pkl"), Flame)


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, call: object, *arguments: object) -> None:
        self.made = (call, arguments)

    def __reduce__(self) -> tuple:
        return self.made


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("call", [os.system, eval, exec, os.mkdir, np.load], ids=lambda c: c.__name__)
def test_no_code_of_a_pickle_runs(tmp_path: Path, call: object, protocol: int) -> None:
    proof = tmp_path / "proof"
    arguments = {
        os.system: (f"mkdir {proof}",),
        os.mkdir: (str(proof),),
        eval: (f"__import__('os').mkdir({str(proof)!r})",),
        exec: (f"__import__('os').mkdir({str(proof)!r})",),
        np.load: (str(tmp_path / "other.npy"), None, True),
        getattr: (np, "load"),
    }[call]
    content = {"v_template": np.zeros((3, 3)), "shapedirs": Runs(call, *arguments)}
    data = pickle.dumps(content, protocol=protocol)
    if call in (os.system, os.mkdir, eval, exec):  # the proof that it would run
        pickle.loads(data)
        assert call is os.system or proof.exists()
        proof.rmdir()
    (tmp_path / "model.pkl").write_bytes(data)
    with pytest.raises(WeightsError, match=r"which is refused"):
        load_flame(tmp_path / "model.pkl")
    assert not proof.exists()


GETS_AT_CODE = [
    b"c__builtin__\ngetattr\n(cnumpy\nndarray\nS'dump'\ntR.",
    b"cnumpy\nndarray\n(S'__class__'\ntR.",
    b"c__builtin__\nobject\n(S'x'\ntR.",
    b"ccopy_reg\n_reconstructor\n(cnumpy\ndtype\nc__builtin__\nobject\nNtR.",
    b"cchumpy\nCh\n)\x81}S'__reduce__'\ncos\nsystem\nsb.",
    b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRS'12345678'\ntR.",
    b"cnumpy.testing\nextras\n.",
    b"cnumpy\nndarray.__init_subclass__\n.",
    b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.dumps\x93.",
]


@pytest.mark.parametrize("data", GETS_AT_CODE)
def test_crafted_pickles_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.pkl").write_bytes(data)
    with pytest.raises(WeightsError, match=r"model\.pkl: not a pickle of arrays"):
        read_arrays(tmp_path / "model.pkl")


def test_a_wrong_file_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"v_template": np.zeros((4, 3)), "f": np.zeros((2, 4), int)}))
    with pytest.raises(WeightsError, match=r"f: expected \(2, 3\), got \(2, 4\); shapedirs: .* got nothing"):
        load_flame(path)
    path.write_bytes(b"<html>Not Found</html>")
    with pytest.raises(WeightsError, match=r"model\.pkl: not a pickle of arrays, or damaged\. Get"):
        load_flame(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(WeightsError, match="expected a dictionary, found list"):
        load_flame(path)
