"""``toolkit animate``."""

from pathlib import Path
from typing import Annotated

import typer

from talkface.commands._options import Cpu, ModelsDir, Offline, Threads


def command(
    picture: Annotated[str, typer.Option("--picture", help="Portrait: a PNG, JPEG or WebP file with one face.")],
    audio: Annotated[str, typer.Option("--audio", help="Sound file or video, any length and rate.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="talk.mp4")],
    emodiff: Annotated[Path | None, typer.Option("--emodiff", help="A run of emodiff, which makes motion.")] = None,
    lip: Annotated[Path | None, typer.Option("--lip", help="A run of lip, which refines the mouth.")] = None,
    transfer: Annotated[Path | None, typer.Option("--transfer", help="A run of facevid2vid.")] = None,
    emo: Annotated[Path | None, typer.Option("--emo", help="Instead: a run of emo.")] = None,
    emodiffhead: Annotated[Path | None, typer.Option("--emodiffhead", help="Instead: a run of emodiffhead.")] = None,
    style: Annotated[str | None, typer.Option(help="Video, motion file, or key of a clip of --data.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Dataset of --style's key and of --emotion.")] = None,
    emotion: Annotated[str | None, typer.Option(help="Style of a clip with this label: angry, ...")] = None,
    intensity: Annotated[int | None, typer.Option(help="Intensity of --emotion: 1, 2 or 3.")] = None,
    upscaler: Annotated[str | None, typer.Option(help="lanczos, or package.module:function, of a picture.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for what lies between: motion.npz, rig.mp4.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    models: ModelsDir = None,
    offline: Offline = False,
    cpu: Cpu = False,
    threads: Threads = 1,
) -> None:
    """Make a portrait speak: DREAM-Talk whole, or another paper's way on the same picture and sound.

    Example: `toolkit animate --picture a.png --audio a.wav --emodiff E --transfer T --style angry.mp4 --out talk.mp4`
    """
    from dataclasses import replace

    import torch
    from tqdm import tqdm

    from talkface.api.animate import animate, upscaled
    from talkface.api.sample import sample
    from talkface.console import console
    from talkface.errors import ConfigError
    from talkface.generate.video import Video

    if out.suffix != ".mp4":
        raise ConfigError(f"--out {out}: video is written as .mp4.")
    ways = [run for run in (emodiff, emo, emodiffhead) if run is not None]
    if len(ways) != 1 or (emodiff is not None and transfer is None):
        raise ConfigError("give one of --emodiff RUN with --transfer RUN, --emo RUN, --emodiffhead RUN.")
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
    if emodiff is not None and transfer is not None:
        video = animate(
            picture, audio, motion=emodiff, transfer=transfer, lip=lip, style=style, data=data, emotion=emotion,
            intensity=intensity, upscaler=upscaler, keep=keep, seed=seed, models=models, offline=offline, device=device,
        )  # fmt: skip
    else:
        made = sample(
            ways[0], audio, picture=picture, style=style, data=data, emotion=emotion, intensity=intensity, seed=seed,
            models=models, offline=offline, device=device,
        ).results[0]  # fmt: skip
        if not isinstance(made, Video):
            raise ConfigError(f"{ways[0]}: this run generates motion, not video. Give it as --emodiff.")
        video = upscaled(made, upscaler)
    replace(video, pictures=lambda: iter(tqdm(video.pictures(), total=len(video), unit="frames"))).save(out)
    console.print(f"{out}: {len(video)} frames; synthetic, checkpoint {video.provenance['checkpoint'][:16]}")
