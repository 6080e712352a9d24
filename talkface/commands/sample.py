"""``toolkit sample``."""

from pathlib import Path
from typing import Annotated

import typer

from talkface.commands._options import Checkpoint, Cpu, ModelsDir, Offline, SamplingChanges, Threads

MOTION, VIDEO = (".npz", ".csv"), (".mp4",)


def command(
    run: Annotated[Path, typer.Option("--run", help="A run of toolkit train, or one of its checkpoints.")],
    audio: Annotated[str, typer.Option("--audio", help="Sound file or video, any length and rate.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="motion.npz, .csv for Live Link Face, or talk.mp4.")],
    picture: Annotated[
        str | None, typer.Option("--picture", help="Portrait to animate: a PNG, JPEG or WebP file with one face.")
    ] = None,
    lip: Annotated[Path | None, typer.Option("--lip", help="A run of lip, which refines the mouth.")] = None,
    style: Annotated[str | None, typer.Option(help="Video, motion file, or key of a clip of --data.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Dataset of --style's key and of --emotion.")] = None,
    emotion: Annotated[str | None, typer.Option(help="Style of a clip with this label: angry, ...")] = None,
    intensity: Annotated[
        str | None, typer.Option(help="Of --emotion: 1, 2 or 3; with --expression 0..1, or a curve 0:0,2:1 (seconds).")
    ] = None,
    expression: Annotated[
        str | None, typer.Option("--expression", help="Run of expression_gan, motion file, video or clip to act like.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed, also of the clip that --emotion picks.")] = 0,
    variants: Annotated[int, typer.Option(min=1, help="How many to draw: OUT-1, OUT-2, ...")] = 1,
    set_: SamplingChanges = None,
    checkpoint: Checkpoint = "best",
    models: ModelsDir = None,
    offline: Offline = False,
    cpu: Cpu = False,
    threads: Threads = 1,
) -> None:
    """Generate motion for a sound in the style of a clip or a label; with --picture, a video of that face speaking.

    Example: `toolkit sample --run runs/emodiff --audio hello.wav --style angry.mp4 --out motion.npz`
    """
    import torch

    from talkface.api.sample import opened, sample
    from talkface.api.weights import store_of
    from talkface.console import console
    from talkface.errors import ConfigError
    from talkface.generate.provenance import sampling_of

    wanted = MOTION if picture is None else VIDEO
    if out.suffix not in wanted:
        kind = "motion" if picture is None else "video"
        raise ConfigError(f"--out {out}: {kind} is written as {' or '.join(wanted)}.")
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
    model = opened(run, checkpoint, device, store_of(models, offline))
    made = sample(
        model, audio, picture=picture, lip=lip, style=style, data=data, emotion=emotion, intensity=intensity,
        expression=expression, seed=seed,
        variants=variants, settings=sampling_of(model.task, set_ or ()), models=models, offline=offline, device=device,
    )  # fmt: skip
    for number, one in enumerate(made.results, 1):
        path = out if variants == 1 else out.with_stem(f"{out.stem}-{number}")
        one.save(path)
        console.print(f"{path}: {len(one)} frames, {made.seconds:.2f} s", markup=False)
    fast = "" if made.times_real_time is None else f"{made.times_real_time:.1f} x real time ({device}); "
    console.print(f"{fast}style: {made.style or 'none'}; synthetic, checkpoint {model.digest[:16]}", markup=False)
