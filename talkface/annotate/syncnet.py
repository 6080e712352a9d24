"""Agreement of picture and sound by SyncNet: the measures LSE-D and LSE-C, and the offset."""

from pydantic import Field

from talkface.annotate._face_squares import FPS, follow
from talkface.annotate.base import AnnotatorConfig, ClipView, Result
from talkface.clip import ScoreSpec
from talkface.nets.syncnet import agreement, embeddings, load_syncnet, n_windows
from talkface.speech.mfcc import mfcc
from talkface.weights import Models


class SyncNetConfig(AnnotatorConfig):
    """Settings of the syncnet annotator."""

    batch: int = Field(20, ge=1, description="windows that go through the network at once")


class Annotator:
    """Scores alone; NaN for a clip without sound, without a face, or of under six frames."""

    name = "syncnet"
    version = 2
    columns = ()
    scores = (
        ScoreSpec(
            name="syncnet_offset_ms",
            unit="ms",
            description="positive is sound late, as in sync_offset_ms; the authors' own offset is minus this over 40",
        ),
        ScoreSpec(name="lse_c", unit="distance", description="LSE-C: median of the mean distances less the least"),
        ScoreSpec(name="lse_d", unit="distance", description="LSE-D: the least mean distance over 31 shifts"),
    )
    needs = ("box",)
    reads = ("mp4", "flac")
    weights = (("syncnet",),)
    licence = "Apache-2.0"
    on_gpu = True
    Config = SyncNetConfig

    def __init__(self, config: SyncNetConfig) -> None:
        self.config = config

    def open(self, models: Models) -> None:
        """Raises WeightsError if ``syncnet_v2.model`` cannot be had or is not SyncNet's."""
        self._net = load_syncnet(models.get("syncnet"))

    def clip(self, view: ClipView) -> Result:
        """The clip's scores."""
        unknown = Result(scores={spec.name: float("nan") for spec in self.scores})
        faces = follow(view) if view.has_sound else None
        if faces is None or n_windows(len(faces), len(view.sound)) == 0:
            return unknown
        windows = n_windows(len(faces), len(view.sound))
        found = agreement(*embeddings(self._net, faces, mfcc(view.sound), windows=windows, batch=self.config.batch))
        late_ms = -found.offset * 1000 / FPS
        return Result(scores={"syncnet_offset_ms": late_ms, "lse_c": found.confidence, "lse_d": found.distance})
