"""Networks of lip refinement: sound to mouth shapes, the emotional residue, and the expert that judges sync.

MagicTalk 3.3 and Fig. 3 (DREAM-Talk 3.3); sizes of the first are VOCA's, which the papers follow.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import nn

ROWS: Final = 16
"""Rows of the sound that are looked at around each frame."""


class RowEncoder(nn.Module):
    """A frame's rows of sound as 64 numbers and the flag that says that none is missing.

    Four convolutions over time, kernel 3 and stride 2: 16 rows become one.
    """

    width = 65

    def __init__(self, features: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into, out in ((features, 32), (32, 32), (32, 64), (64, 64)):
            layers += [nn.Conv1d(into, out, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, sound: Float[torch.Tensor, "*batch flat"]) -> Float[torch.Tensor, "*batch 65"]:
        """``sound`` is what `SoundFacts` gives: the rows one after the other, and the flag."""
        rows = sound[..., :-1].reshape(-1, ROWS, (sound.shape[-1] - 1) // ROWS)
        encoded = self.layers(rows.transpose(1, 2)).squeeze(-1)
        return torch.cat([encoded.reshape(*sound.shape[:-1], 64), sound[..., -1:]], dim=-1)


class AudioToShapes(nn.Module):
    """Audio2BS: neutral mouth shapes from sound, and the features they were made from."""

    def __init__(self, features: int, shapes: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.rows = RowEncoder(features, dropout)
        self.memory = nn.LSTM(
            RowEncoder.width, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0
        )
        self.leave = nn.Linear(hidden, shapes)

    def forward(
        self, sound: Float[torch.Tensor, "batch frames flat"]
    ) -> tuple[Float[torch.Tensor, "batch frames shapes"], Float[torch.Tensor, "batch frames hidden"]]:
        """Shapes in 0..1."""
        rows = self.rows(sound)
        # In full precision: oneDNN has no bfloat16 LSTM for processors without AVX-512.
        with torch.autocast(rows.device.type, enabled=False):
            found, _ = self.memory(rows.float())
        return torch.sigmoid(self.leave(found)), found


class Residue(nn.Module):
    """What an emotion adds to neutral mouth shapes, -1..1, from frames that show the style and the sound's features."""

    def __init__(self, style: int, hidden: int, shapes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into, out in ((style, 64), (64, 128), (128, 128)):
            layers += [nn.Conv1d(into, out, 3, padding=1), nn.ReLU()]
        self.style = nn.Sequential(*layers)
        self.leave = nn.Sequential(nn.Linear(128 + hidden, 128), nn.ReLU(), nn.Linear(128, shapes), nn.Tanh())

    def forward(
        self, style: Float[torch.Tensor, "batch some shapes"], found: Float[torch.Tensor, "batch frames hidden"]
    ) -> Float[torch.Tensor, "batch frames mouth"]:
        """The style is the mean of its frames: their order is of no matter."""
        look = self.style(style.transpose(1, 2)).mean(-1)
        residue: torch.Tensor = self.leave(torch.cat([look[:, None].expand(-1, found.shape[1], -1), found], dim=-1))
        return residue


class LipNet(nn.Module):
    """Neutral shapes and residue; their sum is the refined mouth. Audio2BS learns nothing from the residue's loss."""

    def __init__(self, neutral: nn.Module, style: int, shapes: int, hidden: int) -> None:
        super().__init__()
        self.neutral = neutral
        self.residue = Residue(style, hidden, shapes)

    def forward(
        self, sound: Float[torch.Tensor, "batch frames flat"], style: Float[torch.Tensor, "batch some shapes"]
    ) -> tuple[Float[torch.Tensor, "batch frames mouth"], Float[torch.Tensor, "batch frames mouth"]]:
        """Neutral shapes, and the residue to be added."""
        neutral, found = self.neutral(sound)
        return neutral, self.residue(style, found.detach())


class BlendshapeSyncNet(nn.Module):
    """Mouth and sound of a window as unit vectors with no negative part: their cosine is in 0..1.

    Without the last ReLU a cosine may be negative, of which binary cross-entropy has no logarithm.
    """

    def __init__(self, features: int, shapes: int, frames: int, width: int, dropout: float) -> None:
        super().__init__()
        self.mouth = nn.Sequential(
            nn.Conv1d(shapes, 64, 3, padding=1), nn.ReLU(), nn.Conv1d(64, 128, 3, padding=1), nn.ReLU(), nn.Flatten(),
            nn.Dropout(dropout), nn.Linear(128 * frames, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        )  # fmt: skip
        self.rows = RowEncoder(features, dropout)
        self.sound = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(RowEncoder.width * frames, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
        )  # fmt: skip

    def embed_mouth(self, mouth: Float[torch.Tensor, "batch frames shapes"]) -> Float[torch.Tensor, "batch width"]:
        """Unit vectors."""
        return nn.functional.normalize(self.mouth(mouth.transpose(1, 2)), dim=-1)

    def embed_sound(self, sound: Float[torch.Tensor, "batch frames flat"]) -> Float[torch.Tensor, "batch width"]:
        """Unit vectors."""
        return nn.functional.normalize(self.sound(self.rows(sound)), dim=-1)

    def forward(
        self, mouth: Float[torch.Tensor, "batch frames shapes"], sound: Float[torch.Tensor, "batch frames flat"]
    ) -> tuple[Float[torch.Tensor, "batch width"], Float[torch.Tensor, "batch width"]]:
        """Both embeddings."""
        return self.embed_mouth(mouth), self.embed_sound(sound)
