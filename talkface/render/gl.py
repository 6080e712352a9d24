"""The picture of `talkface.render.zbuffer` from a GPU, through EGL: no display, no window. Optional: moderngl."""

from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from talkface.errors import ConfigError
from talkface.render.raster import RAMP, Camera
from talkface.render.zbuffer import Model

try:
    import moderngl
except ImportError:
    moderngl = None  # type: ignore[assignment]

_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")
_NEAR, _FAR = 1.0, 500.0
_VERTEX = """
#version 330
uniform mat4 camera;
in vec3 point; in vec2 texel; in vec3 colour; in float bright; in float bias;
out vec2 at; out vec3 paint; out float tone;
void main() {
    gl_Position = camera * vec4(point, 1.0);
    vec4 nearer = camera * vec4(point.xy, point.z + bias, 1.0);
    gl_Position.z = nearer.z / nearer.w * gl_Position.w;
    at = texel; paint = colour; tone = bright;
}
"""
_FRAGMENT = """
#version 330
uniform sampler2D sheet; uniform sampler2D ramp; uniform bool textured; uniform float cutoff; uniform float top;
in vec2 at; in vec3 paint; in float tone;
out vec4 seen;
void main() {
    vec4 texel = textured ? texture(sheet, (at + 0.5) / vec2(textureSize(sheet, 0))) : vec4(1.0);
    if (texel.a < cutoff) discard;
    vec3 multiplier = texture(ramp, vec2(clamp(tone / top, 0.0, 1.0), 0.5)).rgb;
    seen = vec4(clamp(texel.rgb * paint * multiplier, 0.0, 1.0), 1.0);
}
"""
_TOP = 1.4
"""Brightness at the end of the ramp."""


def painter(use: Literal["auto", "never", "egl"]) -> "Painter | None":
    """None where the CPU shall draw. Raises ConfigError if ``egl`` is asked for and cannot be had."""
    if use == "never" or (use == "auto" and moderngl is None):
        return None
    try:
        if moderngl is None:
            raise ImportError("moderngl is not installed: pip install 'talkface[gl]'")
        context = _context()
    except Exception as error:  # drivers fail in many ways
        if use == "auto":
            return None
        raise ConfigError(f"--gl egl: no GL through EGL here ({error}). Use --gl never.") from error
    if use == "auto" and any(word in context.info["GL_RENDERER"].lower() for word in _SOFTWARE):
        context.release()
        return None
    return Painter(context)


def _context() -> Any:
    options: dict[str, Any] = {"standalone": True, "backend": "egl", "require": 330}
    return moderngl.create_context(**options)


class Painter:
    """Draws models into a framebuffer of its own; call it as `zbuffer.draw`."""

    def __init__(self, context: Any) -> None:
        self.name = str(context.info["GL_RENDERER"])
        self._context = context
        self._program = context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self._program["top"].value = _TOP
        self._ramp = context.texture((len(RAMP), 1), 3, RAMP.astype("f4").tobytes(), dtype="f4")
        self._model: Model | None = None
        self._size: tuple[int, int] | None = None

    def __call__(
        self,
        picture: UInt8[np.ndarray, "height width 3"],
        camera: Camera,
        points: Float[np.ndarray, "vertices 3"],
        bright: Float[np.ndarray, " vertices"],
        model: Model,
    ) -> None:
        """Paint ``model`` over ``picture``, which gives the background."""
        self._take(model, camera)
        self._points.write(points.astype("f4").tobytes())
        self._bright.write(bright.astype("f4").tobytes())
        self._program["camera"].write(_matrix(camera).T.astype("f4").tobytes())
        context, frame = self._context, self._frame
        frame.use()
        frame.clear(0.0, 0.0, 0.0, 0.0)
        context.enable(moderngl.DEPTH_TEST)
        for number, made_of in enumerate(model.materials):
            if made_of.two_sided:
                context.disable(moderngl.CULL_FACE)
            else:
                context.enable(moderngl.CULL_FACE)
            self._program["textured"].value = made_of.texture is not None
            self._program["cutoff"].value = made_of.cutoff if made_of.alpha is not None else 0.0
            self._sheets[number].use(0)
            self._ramp.use(1)
            self._program["sheet"].value, self._program["ramp"].value = 0, 1
            self._arrays[number].render(moderngl.TRIANGLES)
        drawn = np.frombuffer(frame.read(components=4), np.uint8).reshape(camera.height, camera.width, 4)[::-1]
        cover = drawn[..., 3] > 0
        picture[cover] = drawn[cover][:, :3]

    def _take(self, model: Model, camera: Camera) -> None:
        context = self._context
        if self._size != (camera.width, camera.height):
            self._size = (camera.width, camera.height)
            self._frame = context.framebuffer([context.texture(self._size, 4)], context.depth_renderbuffer(self._size))
        if self._model is not model:
            self._model = model
            n = len(model.texels)
            self._points, self._bright = context.buffer(reserve=n * 12), context.buffer(reserve=n * 4)
            colours = np.full((n, 3), 255.0) if model.colours is None else model.colours
            fixed = np.concatenate([model.texels, colours / 255, model.bias[:, None]], axis=1).astype("f4")
            steady = context.buffer(fixed.tobytes())
            self._sheets = [self._sheet(m) for m in model.materials]
            self._arrays = [self._array(model, i, steady) for i in range(len(model.materials))]

    def _array(self, model: Model, number: int, steady: Any) -> Any:
        mine = model.triangles[model.material == number].astype("i4")
        layout = [
            (self._points, "3f", "point"),
            (self._bright, "1f", "bright"),
            (steady, "2f 3f 1f", "texel", "colour", "bias"),
        ]
        return self._context.vertex_array(self._program, layout, self._context.buffer(mine.tobytes()))

    def _sheet(self, made_of: Any) -> Any:
        if made_of.texture is None:
            return self._context.texture((1, 1), 4, b"\xff" * 4)
        alpha = np.full(made_of.texture.shape[:2], 255, np.uint8) if made_of.alpha is None else made_of.alpha
        pixels = cv2.merge([*cv2.split(made_of.texture), alpha])
        return self._context.texture(pixels.shape[1::-1], 4, np.ascontiguousarray(pixels).tobytes())


def _matrix(camera: Camera) -> Float[np.ndarray, "4 4"]:
    """Camera axes to clip space, as `Camera.project` sees them."""
    x, y = 2 * camera.focal / camera.width, 2 * camera.focal / camera.height
    a, b = (_FAR + _NEAR) / (_NEAR - _FAR), 2 * _FAR * _NEAR / (_NEAR - _FAR)
    return np.array([[x, 0, 0, 0], [0, y, 0, 0], [0, 0, a, b], [0, 0, -1, 0]])
