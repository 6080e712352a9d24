"""``toolkit transfer``."""

from pathlib import Path
from typing import Annotated

import typer

from talkface.commands._options import Checkpoint, Cpu, ModelsDir, Offline, SamplingChanges, Threads


def command(
    run: Annotated[Path, typer.Option("--run", help="A run of a task that transfers motion, or a checkpoint of it.")],
    picture: Annotated[str, typer.Option("--picture", help="Portrait to animate: a PNG, JPEG or WebP with one face.")],
    driving: Annotated[str, typer.Option("--driving", help="Motion file, video, or key of a clip of --data.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="talk.mp4")],
    data: Annotated[str | None, typer.Option("--data", help="Dataset of --driving's key.")] = None,
    audio: Annotated[str | None, typer.Option("--audio", help="Sound to put in (default: the driving clip's).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    set_: SamplingChanges = None,
    checkpoint: Checkpoint = "best",
    models: ModelsDir = None,
    offline: Offline = False,
    cpu: Cpu = False,
    threads: Threads = 1,
) -> None:
    """Animate the face of a picture with the motion of another: of a motion file, a video or a clip.

    Example: `toolkit transfer --run runs/facevid2vid --picture face.png --driving motion.npz --out talk.mp4`
    """
    import torch

    from talkface.api.sample import opened, transfer
    from talkface.api.weights import store_of
    from talkface.console import console
    from talkface.errors import ConfigError
    from talkface.generate.provenance import sampling_of

    if out.suffix != ".mp4":
        raise ConfigError(f"--out {out}: video is written as .mp4.")
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
    model = opened(run, checkpoint, device, store_of(models, offline))
    with transfer(
        model, picture, driving, data=data, audio=audio, seed=seed, settings=sampling_of(model.task, set_ or ()),
        models=models, offline=offline, device=device,
    ) as video:  # fmt: skip
        video.save(out)
    console.print(f"{out}: {len(video)} frames; synthetic, checkpoint {model.digest[:16]}", markup=False)
