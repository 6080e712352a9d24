"""Rigs from files: names, places and shapes come back from glTF and from ICT-FaceKit's format; left stays left."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from talkface.errors import ConfigError, SourceError
from talkface.render.gltf import read_gltf, write_glb
from talkface.render.ict import NEUTRAL, read_ict
from talkface.render.morph import MorphMesh, MorphRig, shape_of
from talkface.render.rig import rotation_matrix
from talkface.render.rigs import SyntheticRig, head_mesh, open_rig
from talkface.vocab import ARKIT

LEFT_BLINK, RIGHT_BLINK, JAW = (ARKIT.index(n) for n in ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen"))


@pytest.fixture(scope="module")
def mesh() -> MorphMesh:
    return head_mesh(SyntheticRig().head)


@pytest.fixture(scope="module")
def glb(mesh: MorphMesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rig") / "head.glb"
    write_glb(mesh, path)
    return path


def one(shape: int) -> np.ndarray:
    return np.eye(len(ARKIT))[shape]


def change(rig: MorphRig, shape: int, size: int = 128) -> np.ndarray:
    """How much each pixel changes with a shape."""
    rest = rig.picture(np.zeros(52), np.eye(3), size).astype(int)
    return np.abs(rig.picture(one(shape), np.eye(3), size) - rest).sum(axis=2)


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        ("jawOpen", "jawOpen"),
        ("JAW_OPEN", "jawOpen"),
        ("blendShape1.jawOpen", "jawOpen"),
        ("mouthSmile_L", "mouthSmileLeft"),
        ("mouth_smile_left", "mouthSmileLeft"),
        ("EyeBlinkRight", "eyeBlinkRight"),
        ("browInnerUp_R", "browInnerUp"),
        ("cheekPuff_L", "cheekPuff"),
        ("mouthLeft", "mouthLeft"),
        ("jaw-right", "jawRight"),
        ("viseme_aa", None),
        ("cheekRaiser_L", None),
        ("identity000", None),
    ],
)
def test_names(target: str, shape: str | None) -> None:
    assert shape_of(target) == (None if shape is None else ARKIT.index(shape))


def test_every_name_is_its_own() -> None:
    assert [shape_of(n) for n in ARKIT] == list(range(52))
    assert [shape_of(n.upper()) for n in ARKIT] == list(range(52))


def test_glb_comes_back(mesh: MorphMesh, glb: Path) -> None:
    back = read_gltf(glb)
    assert back.missing == back.ignored == ()
    assert np.allclose(back.points * 100, mesh.points, atol=1e-3)
    assert np.allclose(back.basis * 100, mesh.basis, atol=1e-3)
    assert np.array_equal(back.triangles, mesh.triangles)
    assert np.allclose(back.texels, mesh.texels, atol=0.01)
    assert np.array_equal(back.materials[0].texture, mesh.materials[0].texture)


def test_a_glb_looks_like_the_head_it_was_made_from(glb: Path) -> None:
    rig = open_rig(str(glb), gl_use="never")
    left, right, jaw = (change(rig, s) for s in (LEFT_BLINK, RIGHT_BLINK, JAW))
    columns, rows = np.arange(128)[None, :], np.arange(128)[:, None]
    assert (left * columns).sum() / left.sum() > 68
    assert (right * columns).sum() / right.sum() < 60
    assert (jaw * rows).sum() / jaw.sum() > (left * rows).sum() / left.sum() + 15
    rest = rig.picture(np.zeros(52), np.eye(3), 128).astype(int)
    turned = rig.picture(np.zeros(52), rotation_matrix(30, 0, 0), 128).astype(int)
    dark = [(p[30:70].sum(axis=2) < 200).nonzero()[1].mean() for p in (rest, turned)]
    assert dark[1] != pytest.approx(dark[0], abs=1), "the head turns"


def changed(glb: Path, out: Path, **edits: object) -> Path:
    """The file's JSON with some parts changed, as .gltf with its buffer in a data uri."""
    data = glb.read_bytes()
    size = int.from_bytes(data[12:16], "little")
    document = json.loads(data[20 : 20 + size])
    binary = data[28 + size :]
    document["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    for key, edit in edits.items():
        document[key] = edit(document.get(key)) if callable(edit) else edit
    out.write_text(json.dumps(document))
    return out


def test_nodes_place_and_turn_what_they_hold(glb: Path, mesh: MorphMesh, tmp_path: Path) -> None:
    """A node that faces away, twice as large and shifted, below another: the rig turns it back."""
    half = 2**-0.5
    nodes = [
        {"children": [1], "translation": [5.0, 0.0, 0.0], "scale": [2.0, 2.0, 2.0]},
        {"mesh": 0, "rotation": [0.0, 1.0, 0.0, 0.0], "translation": [0.0, 1.0, 0.0]},
        {"mesh": 0, "rotation": [half, 0.0, 0.0, half]},
    ]
    read = read_gltf(changed(glb, tmp_path / "a.gltf", nodes=nodes, scenes=[{"nodes": [0]}]))
    assert np.allclose(read.points, 0.02 * mesh.points * (-1, 1, -1) + (5, 2, 0), atol=1e-4)
    left = change(MorphRig(read), LEFT_BLINK)
    assert (left * np.arange(128)[None, :]).sum() / left.sum() > 68


def test_missing_and_unknown_targets_are_named(glb: Path, tmp_path: Path) -> None:
    def rename(meshes: list) -> list:
        names = meshes[0]["extras"]["targetNames"]
        names[names.index("tongueOut")] = "viseme_aa"
        return meshes

    read = read_gltf(changed(glb, tmp_path / "a.gltf", meshes=rename))
    assert read.missing == ("tongueOut",) and read.ignored == ("viseme_aa",)


def test_sparse_targets_are_read(glb: Path, mesh: MorphMesh, tmp_path: Path) -> None:
    """Blender writes targets as sparse accessors: the few vertices that move."""
    document = json.loads(changed(glb, tmp_path / "full.gltf").read_text())
    binary = base64.b64decode(document["buffers"][0]["uri"].split(",")[1])
    jaw = document["meshes"][0]["primitives"][0]["targets"][JAW]["POSITION"]
    moved = (mesh.basis[JAW] * 0.01).astype("<f4")
    rows = np.flatnonzero(np.abs(moved).sum(axis=1)).astype("<u4")
    views = document["bufferViews"]
    for data in (rows.tobytes(), moved[rows].tobytes()):
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        binary += data
    where = {"bufferView": len(views) - 2, "componentType": 5125}
    document["accessors"][jaw] = {
        "componentType": 5126,
        "type": "VEC3",
        "count": len(moved),
        "sparse": {"count": len(rows), "indices": where, "values": {"bufferView": len(views) - 1}},
    }
    document["buffers"] = [{"byteLength": len(binary), "uri": "all.bin"}]
    (tmp_path / "all.bin").write_bytes(binary)
    (tmp_path / "sparse.gltf").write_text(json.dumps(document))
    assert np.allclose(read_gltf(tmp_path / "sparse.gltf").basis[JAW] * 100, mesh.basis[JAW], atol=1e-3)


def test_files_that_cannot_be_used_say_why(glb: Path, tmp_path: Path) -> None:
    compressed = changed(glb, tmp_path / "c.gltf", extensionsRequired=["KHR_draco_mesh_compression"])
    cut, text, other = tmp_path / "cut.glb", tmp_path / "text.glb", tmp_path / "other.gltf"
    cut.write_bytes(glb.read_bytes()[:5000])
    text.write_text("This is no mesh.")
    changed(glb, other, meshes=lambda m: [{**m[0], "extras": {"targetNames": [f"v{i}" for i in range(52)]}}])
    for path, word in ((compressed, "without compression"), (cut, "bytes"), (text, "not a glTF"), (other, "jawOpen")):
        with pytest.raises(SourceError, match=word):
            read_gltf(path).basis  # noqa: B018
    with pytest.raises(ConfigError, match="ICT-FaceKit"):
        open_rig(str(tmp_path / "absent.glb"))


def write_obj(path: Path, points: np.ndarray, lines: list[str] = ()) -> None:
    path.write_text("\n".join(["mtllib a.mtl", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in points), *lines]) + "\n")


@pytest.fixture(scope="module")
def ict(mesh: MorphMesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in head in ICT-FaceKit's format: quads with texture indices, halves of browInnerUp and cheekPuff."""
    folder = tmp_path_factory.mktemp("FaceXModel")
    head = SyntheticRig().head
    faces = []
    for name, part in head.parts.items():
        faces.append("usemtl " + ("M_ScleraLeft" if name.startswith("eye") else "M_Face"))
        faces += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in quad) for quad in head.quads[part.quads]]
    write_obj(folder / NEUTRAL, mesh.points, faces)
    halves = ("browInnerUp", "cheekPuff")
    for name, shape in zip(ARKIT, mesh.basis, strict=True):
        stem = name.replace("Left", "_L").replace("Right", "_R")
        stem = name if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight") else stem
        if name in halves:
            for side, keep in (("_L", mesh.points[:, 0] > 0), ("_R", mesh.points[:, 0] <= 0)):
                write_obj(folder / f"{name}{side}.obj", mesh.points + shape * keep[:, None])
        elif name != "tongueOut":
            write_obj(folder / f"{stem}.obj", mesh.points + shape)
    write_obj(folder / "identity000.obj", mesh.points * 1.1)
    return folder


def test_ict_folder(ict: Path, mesh: MorphMesh) -> None:
    read = read_ict(ict)
    assert read.missing == ("tongueOut",)
    assert "identity000" not in read.targets and "browInnerUp_L" in read.targets
    shapes = [i for i, n in enumerate(ARKIT) if n != "tongueOut"]
    assert np.allclose(read.basis[shapes], mesh.basis[shapes], atol=1e-4)
    assert len(read.triangles) == len(mesh.triangles)
    left = change(open_rig(str(ict), gl_use="never"), LEFT_BLINK)
    assert (left * np.arange(128)[None, :]).sum() / left.sum() > 68


def test_ict_folder_that_cannot_be_used(ict: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="FaceXModel"):
        read_ict(tmp_path)
    (tmp_path / NEUTRAL).write_bytes((ict / NEUTRAL).read_bytes())
    write_obj(tmp_path / "jawOpen.obj", np.zeros((3, 3)))
    with pytest.raises(SourceError, match="got 3"):
        read_ict(tmp_path)


def test_vertices_move_as_in_the_file(mesh: MorphMesh) -> None:
    rig = MorphRig(mesh)
    rest = rig.vertices(np.zeros(52))
    scale = np.ptp(rest[:, 1]) / np.ptp(mesh.points[:, 1])
    assert np.allclose(rig.vertices(one(JAW)) - rest, scale * mesh.basis[JAW], atol=1e-3)
    assert np.array_equal(rig.vertices(np.full(52, np.nan)), rest)
