"""glTF 2.0 (.glb, .gltf) with morph targets, read and written.

Specification: Khronos, glTF 2.0, sections 3.6 (accessors), 3.7 (meshes, morph targets, skins), 4 (.glb). Targets are
named by ``mesh.extras.targetNames``, as Blender, Maya and three.js do. No library in Python reads morph targets into
arrays; the container itself is a JSON text and a binary part.
"""

import base64
import io
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from talkface.errors import SourceError
from talkface.render.morph import MorphMesh
from talkface.render.zbuffer import Material
from talkface.store import Folder

_MAGIC, _JSON, _BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_FLOAT, _UNSIGNED, _TRIANGLES = 5126, 5125, 4
_READABLE = ("KHR_mesh_quantization", "KHR_materials_", "KHR_texture_transform", "KHR_lights_punctual", "VRM", "VRMC_")
_GREY = np.array([190.0, 165.0, 150.0])


def read_gltf(path: str | Path) -> MorphMesh:
    """All meshes of the file in their places at rest, skins applied; every morph target by name.

    Raises SourceError for a file that is not glTF 2.0, is compressed, or has no ARKit shape.
    """
    try:
        document = _Document.open(Path(path))
        parts = list(document.parts())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise SourceError(f"{path}: not a glTF 2.0 file that can be read ({type(error).__name__}: {error}).") from error
    if not parts:
        raise SourceError(f"{path}: no mesh made of triangles.")
    return _joined(Path(path).stem, parts)


@dataclass
class _Part:
    points: np.ndarray
    triangles: np.ndarray
    targets: dict[str, np.ndarray]
    texels: np.ndarray
    colours: np.ndarray
    material: Material


@dataclass
class _Document:
    path: Path
    json: dict[str, Any]
    binary: bytes

    @classmethod
    def open(cls, path: Path) -> "_Document":
        data = path.read_bytes()
        if data[:4] == b"glTF":
            chunks = dict(_chunks(data))
            document = cls(path, json.loads(chunks[_JSON]), chunks.get(_BINARY, b""))
        else:
            document = cls(path, json.loads(data), b"")
        if not str(document.json["asset"]["version"]).startswith("2"):
            raise ValueError(f"version {document.json['asset']['version']}")
        needed = [e for e in document.json.get("extensionsRequired", []) if not e.startswith(_READABLE)]
        if needed:
            raise ValueError(f"it needs {', '.join(needed)}; export it again without compression")
        return document

    def parts(self) -> Iterator[_Part]:
        places = self._places()
        for number, node in enumerate(self.json.get("nodes", [])):
            if "mesh" in node and number in places:
                mesh = self.json["meshes"][node["mesh"]]
                for primitive in mesh["primitives"]:
                    if primitive.get("mode", _TRIANGLES) == _TRIANGLES:
                        yield self._part(mesh, primitive, number, places)

    def _part(
        self,
        mesh: Mapping[str, Any],
        primitive: Mapping[str, Any],
        number: int,
        places: dict[int, np.ndarray],
    ) -> _Part:
        has = primitive["attributes"]
        points = self._array(has["POSITION"]).astype(np.float64)
        place, node = places[number], self.json["nodes"][number]
        if "skin" in node and "JOINTS_0" in has:
            place = self._skinned(node["skin"], has, places)
        moves = [self._array(t["POSITION"]) for t in primitive.get("targets", []) if "POSITION" in t]
        names = {**mesh.get("extras", {}), **primitive.get("extras", {})}.get("targetNames", [])
        names = [*names, *(f"target{i}" for i in range(len(names), len(moves)))]
        corners = self._array(primitive["indices"]).ravel() if "indices" in primitive else np.arange(len(points))
        colour, material = self._material(primitive.get("material"))
        if "COLOR_0" in has:
            colour = colour * self._array(has["COLOR_0"])[:, :3]
        texels = self._texels(has, primitive.get("material"), material, len(points))
        return _Part(
            _moved(place, points, 1.0),
            corners.reshape(-1, 3).astype(np.int32),
            {str(n): _moved(place, m.astype(np.float64), 0.0) for n, m in zip(names, moves, strict=False)},
            texels,
            np.broadcast_to(colour, (len(points), 3)),
            material,
        )

    def _places(self) -> dict[int, np.ndarray]:
        """Matrix to the scene of every node in it."""
        nodes = self.json.get("nodes", [])
        scenes = self.json.get("scenes")
        children = {c for n in nodes for c in n.get("children", [])}
        roots = scenes[self.json.get("scene", 0)].get("nodes", []) if scenes else set(range(len(nodes))) - children
        places: dict[int, np.ndarray] = {}
        waiting = [(int(r), np.eye(4)) for r in roots]
        while waiting:
            number, above = waiting.pop()
            if number in places:
                raise ValueError("nodes in a circle")
            places[number] = above @ _matrix(nodes[number])
            waiting += [(int(c), places[number]) for c in nodes[number].get("children", [])]
        return places

    def _skinned(self, skin: int, has: Mapping[str, int], places: Mapping[int, np.ndarray]) -> np.ndarray:
        """Matrix of every vertex: its joints' at rest, by weight (section 3.7.3.1)."""
        bones = self.json["skins"][skin]
        joints = np.stack([places[j] for j in bones["joints"]])
        if "inverseBindMatrices" in bones:
            joints = joints @ self._array(bones["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        which, weights = self._array(has["JOINTS_0"]), self._array(has["WEIGHTS_0"]).astype(np.float64)
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
        matrices: np.ndarray = np.einsum("vj,vjab->vab", weights, joints[which])
        return matrices

    def _material(self, number: int | None) -> tuple[np.ndarray, Material]:
        if number is None:
            return _GREY, Material()
        made = self.json["materials"][number]
        surface = made.get("pbrMetallicRoughness", {})
        linear = np.array(surface.get("baseColorFactor", [1.0, 1.0, 1.0, 1.0])[:3])
        colour = 255 * np.clip(linear, 0, 1) ** (1 / 2.2)
        both = bool(made.get("doubleSided", False))
        if "baseColorTexture" not in surface:
            return colour, Material(two_sided=both)
        texture = self._image(surface["baseColorTexture"]["index"])
        holes = made.get("alphaMode", "OPAQUE") != "OPAQUE"
        return colour, Material(
            texture=np.ascontiguousarray(texture[..., :3]),
            alpha=np.ascontiguousarray(texture[..., 3]) if holes else None,
            cutoff=float(made.get("alphaCutoff", 0.5)),
            two_sided=both,
        )

    def _texels(self, has: Mapping[str, int], number: int | None, material: Material, n: int) -> np.ndarray:
        if number is None or material.texture is None:
            return np.zeros((n, 2))
        info = self.json["materials"][number]["pbrMetallicRoughness"]["baseColorTexture"]
        layer = f"TEXCOORD_{info.get('texCoord', 0)}"
        if layer not in has:
            return np.zeros((n, 2))
        height, width = material.texture.shape[:2]
        texels: np.ndarray = self._array(has[layer]).astype(np.float64) * (width, height) - 0.5
        return texels

    def _image(self, texture: int) -> np.ndarray:
        """RGBA. Raises ValueError for a picture that cannot be decoded."""
        image = self.json["images"][self.json["textures"][texture]["source"]]
        data = self._view(image["bufferView"])[0] if "bufferView" in image else self._uri(image["uri"])
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint8:
            raise ValueError(f"image {texture} is no 8-bit PNG or JPEG")
        to = {2: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}
        return np.asarray(cv2.cvtColor(pixels, to[2 if pixels.ndim == 2 else pixels.shape[2]]))

    def _array(self, number: int) -> np.ndarray:
        accessor = self.json["accessors"][number]
        dtype: np.dtype[Any] = np.dtype(_DTYPES[accessor["componentType"]])
        width, count = _WIDTH[accessor["type"]], accessor["count"]
        values: np.ndarray
        if "bufferView" in accessor:
            data, stride = self._view(accessor["bufferView"])
            shape, steps = (count, width), (stride or dtype.itemsize * width, dtype.itemsize)
            flat = np.frombuffer(data, np.uint8, offset=accessor.get("byteOffset", 0))
            if len(flat) < (count - 1) * steps[0] + width * dtype.itemsize:
                raise ValueError(f"accessor {number} is longer than its buffer")
            values = np.ndarray(shape, dtype.newbyteorder("<"), flat.tobytes(), strides=steps).copy()
        else:
            values = np.zeros((count, width), dtype)
        if "sparse" in accessor:
            values[self._sparse(accessor["sparse"], "indices", None, 1).ravel()] = self._sparse(
                accessor["sparse"], "values", dtype, width
            )
        if accessor.get("normalized") and dtype.kind in "iu":
            return np.maximum(values.astype(np.float32) / float(np.iinfo(dtype.name).max), -1.0)
        return values

    def _sparse(self, sparse: Mapping[str, Any], part: str, dtype: np.dtype | None, width: int) -> np.ndarray:
        found = sparse[part]
        kind = np.dtype(_DTYPES[found["componentType"]]) if dtype is None else dtype
        data, _ = self._view(found["bufferView"])
        return np.frombuffer(data, kind, sparse["count"] * width, found.get("byteOffset", 0)).reshape(-1, width)

    def _view(self, number: int) -> tuple[bytes, int]:
        view = self.json["bufferViews"][number]
        buffer = self.json["buffers"][view["buffer"]]
        data = self._uri(buffer["uri"]) if "uri" in buffer else self.binary
        low = view.get("byteOffset", 0)
        return data[low : low + view["byteLength"]], int(view.get("byteStride", 0))

    def _uri(self, uri: str) -> bytes:
        if uri.startswith("data:"):
            return base64.b64decode(uri.split(",", 1)[1])
        return (self.path.parent / unquote(uri)).read_bytes()


def _chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    _, version, length = struct.unpack_from("<III", data)
    if version != 2 or length > len(data):
        raise ValueError(f"version {version}, {len(data)} of {length} bytes")
    at = 12
    while at + 8 <= length:
        size, kind = struct.unpack_from("<II", data, at)
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size


def _matrix(node: Mapping[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], float).reshape(4, 4).T
    matrix = np.eye(4)
    turn = Rotation.from_quat(node.get("rotation", [0.0, 0.0, 0.0, 1.0])).as_matrix()
    matrix[:3, :3] = turn * np.array(node.get("scale", [1.0, 1.0, 1.0]))
    matrix[:3, 3] = node.get("translation", [0.0, 0.0, 0.0])
    return matrix


def _moved(place: np.ndarray, points: np.ndarray, w: float) -> np.ndarray:
    """Points (w = 1) or displacements (w = 0) by one matrix, or by one a vertex."""
    moved: np.ndarray = np.einsum("...ab,vb->va" if place.ndim == 2 else "vab,vb->va", place[..., :3, :3], points)
    return moved + w * place[..., :3, 3]


def _joined(name: str, parts: list[_Part]) -> MorphMesh:
    starts = np.cumsum([0, *(len(p.points) for p in parts)])
    names = list(dict.fromkeys(n for p in parts for n in p.targets))
    zeros = [np.zeros_like(p.points) for p in parts]
    counts = [len(p.triangles) for p in parts]
    return MorphMesh(
        name=name,
        points=np.concatenate([p.points for p in parts]),
        triangles=np.concatenate([p.triangles + s for p, s in zip(parts, starts, strict=False)]).astype(np.int32),
        targets={n: np.concatenate([p.targets.get(n, z) for p, z in zip(parts, zeros, strict=True)]) for n in names},
        texels=np.concatenate([p.texels for p in parts]),
        colours=np.concatenate([p.colours for p in parts]),
        material=np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        materials=tuple(p.material for p in parts),
    )


def write_glb(mesh: MorphMesh, path: str | Path, *, metres: float = 0.01) -> None:
    """Write a mesh of one material with all its targets; ``metres`` is the mesh's unit (cm).

    Raises ValueError for a mesh of several materials.
    """
    if len(mesh.materials) != 1:
        raise ValueError(f"expected one material, got {len(mesh.materials)}")
    out = _Writer()
    points = out.add((mesh.points * metres).astype("<f4"), "VEC3", bounds=True)
    moves = [out.add((moved * metres).astype("<f4"), "VEC3", bounds=True) for moved in mesh.targets.values()]
    attributes = {"POSITION": points}
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.9}
    texture = mesh.materials[0].texture
    if texture is not None:
        size = texture.shape[1::-1]
        attributes["TEXCOORD_0"] = out.add(((mesh.texels + 0.5) / size).astype("<f4"), "VEC2")
        surface["baseColorTexture"] = {"index": 0}
        png = cv2.imencode(".png", np.ascontiguousarray(texture[:, :, ::-1]))[1].tobytes()
        out.json |= {"textures": [{"source": 0}], "images": [{"bufferView": out.view(png), "mimeType": "image/png"}]}
    indices = out.add(mesh.triangles.astype("<u4").reshape(-1, 1), "SCALAR", kind=_UNSIGNED)
    primitive = {
        "attributes": attributes,
        "indices": indices,
        "material": 0,
        "targets": [{"POSITION": m} for m in moves],
    }
    both = mesh.materials[0].two_sided
    out.json |= {
        "asset": {"version": "2.0", "generator": "talkface"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": mesh.name}],
        "meshes": [
            {
                "name": mesh.name,
                "primitives": [primitive],
                "weights": [0.0] * len(moves),
                "extras": {"targetNames": list(mesh.targets)},
            }
        ],
        "materials": [{"pbrMetallicRoughness": surface, "doubleSided": both}],
    }
    Folder(Path(path).parent).write(Path(path).name, out.glb())


class _Writer:
    def __init__(self) -> None:
        self.json: dict[str, Any] = {"accessors": [], "bufferViews": []}
        self._binary = io.BytesIO()

    def view(self, data: bytes) -> int:
        low = self._binary.tell()
        self._binary.write(data + b"\0" * (-len(data) % 4))
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": low, "byteLength": len(data)})
        return len(self.json["bufferViews"]) - 1

    def add(self, values: np.ndarray, shape: str, *, kind: int = _FLOAT, bounds: bool = False) -> int:
        accessor: dict[str, Any] = {
            "bufferView": self.view(values.tobytes()),
            "componentType": kind,
            "count": len(values),
            "type": shape,
        }
        if bounds:
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        self.json["accessors"].append(accessor)
        return len(self.json["accessors"]) - 1

    def glb(self) -> bytes:
        binary = self._binary.getvalue()
        text = json.dumps({**self.json, "buffers": [{"byteLength": len(binary)}]}).encode()
        text += b" " * (-len(text) % 4)
        parts = struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", len(binary), _BINARY) + binary
        return struct.pack("<III", _MAGIC, 2, 12 + len(parts)) + parts
