"""``toolkit render``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from talkface.commands._options import ModelsDir, Offline

if TYPE_CHECKING:
    from talkface.render.rigs import GL


def command(
    motion: Annotated[
        str, typer.Argument(help="Motion: .npz, Live Link Face .csv, a clip's key with --data, or 'shapes'.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="mp4 to write.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG of frames and curves to write.")] = None,
    rig: Annotated[str, typer.Option(help="synthetic, a .glb or .gltf file, or ICT-FaceKit's folder.")] = "synthetic",
    audio: Annotated[str | None, typer.Option(help="Sound; its start is the motion's time 0.")] = None,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Width and height of a face in pixels.")] = 512,
    side_by_side: Annotated[
        str | None, typer.Option(help="Clip to show beside it: a key of --data, or a video.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Dataset that keys are of.")] = None,
    gl: Annotated[str, typer.Option(help="auto: a GPU if there is one; never; egl: any GL.")] = "auto",
    models: ModelsDir = None,
    offline: Offline = False,
    draft: Annotated[bool, typer.Option("--draft", help="No smoothing of edges: about twice as fast.")] = False,
) -> None:
    """Draw motion as a talking face, with sound. The file says that it is synthetic, and what made it.

    'shapes' shows every shape and turn once: a look at a rig.

    Example: `toolkit render motion.npz --audio speech.wav --out talk.mp4 --sheet talk.png`
    """
    from talkface.api.render import render
    from talkface.console import console

    made = render(
        motion, out, sheet=sheet, rig=rig, audio=audio, size=size, side_by_side=side_by_side, data=data,
        gl=cast("GL", gl),
        draft=draft, models=models, offline=offline,
    )  # fmt: skip
    if made.missing:
        console.print(f"{made.rig} lacks {len(made.missing)} of 52 shapes: {', '.join(made.missing)}")
    if out is not None:
        fast, real = made.frames / made.spent, made.seconds / made.spent
        console.print(f"{made.frames} frames in {made.spent:.1f} s: {fast:.1f} frames/s, {real:.2f} x real time")
    for path in made.files:
        console.print(str(path), markup=False)
