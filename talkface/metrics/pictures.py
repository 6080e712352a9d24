"""Pictures against pictures: PSNR and SSIM, by torchmetrics.

Frame by frame on the generated clip's clock (`clocks.both`), whole pictures. SSIM: Gaussian of 11, sigma 1.5, K 0.01
and 0.03.
"""

from collections.abc import Mapping

from talkface.metrics.base import Comparison, Face, Value, mean
from talkface.metrics.clocks import both


class Metric:
    """PSNR and SSIM."""

    name = "pictures"
    needs = ("pairs", "pictures")
    describes = False
    values: Mapping[str, Value] = {
        "psnr": Value("dB", "higher", "peak signal-to-noise ratio, mean over frames; 100 for equal pictures"),
        "ssim": Value("-1..1", "higher", "structural similarity, mean over frames"),
    }

    def compute(self, given: Comparison) -> dict[str, float]:
        """Mean over clips; a clip whose reference is of another shape, or never at the same time, is left out."""
        rows = [_of(a, b) for a, b in given.pairs]
        return {"psnr": mean([p for p, _ in rows]), "ssim": mean([s for _, s in rows])}


def _of(generated: Face, reference: Face) -> tuple[float, float]:
    import torch  # noqa: PLC0415  heavy, and optional for the other metrics
    from torchmetrics.functional.image import (  # noqa: PLC0415
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    noise, likeness = [], []
    for one, other in both(generated, reference):
        a, b = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() for p in (one, other))
        ratio = float(peak_signal_noise_ratio(a, b, data_range=255.0))
        noise.append(min(ratio, 100.0))
        likeness.append(float(structural_similarity_index_measure(a, b, data_range=255.0)))
    return mean(noise), mean(likeness)
