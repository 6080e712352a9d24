"""``toolkit sample``."""

from pathlib import Path
from typing import Annotated

import typer

from talkface.commands._options import ModelsDir, Offline


def command(
    run: Annotated[Path, typer.Option("--run", help="A run of emodiff, or one of its checkpoints.")],
    audio: Annotated[str, typer.Option("--audio", help="Sound file or video, any length and rate.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="motion.npz, or .csv for Live Link Face.")],
    lip: Annotated[Path | None, typer.Option("--lip", help="A run of lip, which refines the mouth.")] = None,
    style: Annotated[str | None, typer.Option(help="Video, motion file, or key of a clip of --data.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Dataset of the style.")] = None,
    emotion: Annotated[str | None, typer.Option(help="Style of a clip with this label: angry, ...")] = None,
    intensity: Annotated[int | None, typer.Option(help="And with this intensity: 1, 2 or 3.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of motion, and of the clip with the label.")] = 0,
    variants: Annotated[int, typer.Option(min=1, help="How many to draw: OUT-1, OUT-2, ...")] = 1,
    guidance: Annotated[float, typer.Option(help="w of classifier-free guidance.")] = 0.15,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 50,
    scheduler: Annotated[str, typer.Option(help="ddpm, ddim or dpm++.")] = "ddim",
    checkpoint: Annotated[str, typer.Option(help="best, last or a step.")] = "best",
    models: ModelsDir = None,
    offline: Offline = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave a GPU alone.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch on a CPU; more help large networks.")] = 1,
) -> None:
    """Make motion for a sound, in the style of a clip or a label.

    Example: `toolkit sample --run runs/emodiff --audio hello.wav --style angry.mp4 --out motion.npz`
    """
    import torch

    from talkface.config import parse
    from talkface.console import console
    from talkface.datasets.open import open_dataset
    from talkface.errors import ConfigError
    from talkface.generate import motion as sampling
    from talkface.train import checkpoint as checkpoints
    from talkface.train.tasks.emodiff import Sampling
    from talkface.weights import Models

    if out.suffix not in (".npz", ".csv"):
        raise ConfigError(f"--out {out}: expected a name ending in .npz or .csv.")
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
    settings = {"sampler": scheduler, "steps": steps, "guidance": guidance}
    how = parse(Sampling, settings, where="sample")
    store = Models(models, offline=offline)
    model = checkpoints.load(run, which=checkpoint, device=device)
    refiner = None if lip is None else checkpoints.load(lip, device=device)
    speech = sampling.read_speech(audio, [m for m in (model, refiner) if m], store)
    dataset = None if data is None else open_dataset(data)
    look = sampling.read_style(style, store, data=dataset, emotion=emotion, intensity=intensity, seed=seed)
    made = sampling.sample(
        model, speech, look, how, lip=refiner, seed=seed, variants=variants, about={"sound": Path(audio).name}
    )
    for number, motion in enumerate(made.motions, 1):
        path = out if variants == 1 else out.with_stem(f"{out.stem}-{number}")
        motion.save(path)
        console.print(f"{path}: {len(motion)} frames, {speech.seconds:.2f} s")
    console.print(
        f"{made.times_real_time:.1f} x real time ({steps} steps, {scheduler}, {device}); style: {look.name}; "
        f"synthetic, checkpoint {model.digest[:16]}"
    )
