"""Expressions: what they are made of, how they are dialled, and the boxes of the losses around mouth and eyes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.train.base import configure, task_class
from talkface.train.inputs.expression import UPPER, Expression, dialled, filled, intensities
from talkface.train.inputs.regions import EYES, LIPS, box_mask, mean_inside, points_box
from talkface.vocab import MOUTH
from tests.train.making import make


def test_dialling_goes_towards_the_emotion() -> None:
    """Eq. 14 and 15: k = 1 is the emotion itself. As printed (d_y = e_n - e_y) it leads away from it."""
    neutral, emotion = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    k = torch.tensor([0.0, 1.0, 0.5, 1.0])
    made = dialled(neutral, emotion, k)
    torch.testing.assert_close(made[:, 0], neutral[:, 0])
    torch.testing.assert_close(made[:, 1], emotion[:, 1])
    torch.testing.assert_close(made[:, 2], (neutral + emotion)[:, 2] / 2)
    away = dialled(neutral, emotion, k, "printed")
    torch.testing.assert_close(away[:, 1], 2 * neutral[:, 1] - emotion[:, 1])


def test_intensity_curves() -> None:
    assert intensities("0.7", 3, 30.0).tolist() == pytest.approx([0.7] * 3)
    curve = intensities("0:0,2:1,4:0.3", 6, 1.0)
    assert curve.tolist() == pytest.approx([0, 0.5, 1, 0.65, 0.3, 0.3])
    for bad in ("much", "0:0,0:1", "2:1,1:0", "0:0,1", "nan"):
        with pytest.raises(ConfigError, match="--intensity"):
            intensities(bad, 3, 30.0)


def test_the_mouth_is_left_to_the_sound() -> None:
    assert not set(UPPER) & set(MOUTH) and "jawOpen" not in UPPER and len(UPPER) == 24


def test_missing_frames_are_their_neighbours() -> None:
    nan = torch.nan
    sequence = torch.tensor([[nan, 1.0, nan, nan, 2.0], [nan] * 5])[..., None]
    assert filled(sequence)[0, :, 0].tolist() == [1, 1, 1, 1, 2]
    assert torch.isnan(filled(sequence)[1]).all()


def test_numbers_there_and_back(talkers: str) -> None:
    dataset = Dataset(talkers)
    found = Expression.of(Expression.learn(dataset, "arkit").facts())
    column = dataset.arrays(dataset.keys()[0], ["arkit"])["arkit"]
    numbers = found.of_column(torch.from_numpy(column.copy()))
    seen = np.isfinite(column).any(1)
    back = found.in_units(numbers)[seen]
    index = [i for i, ok in enumerate(found.valid) if ok]
    want = column[seen][:, [list(dataset.spec("arkit").names).index(UPPER[i]) for i in index]]
    np.testing.assert_allclose(back[:, index], want, atol=1e-5)


def test_boxes_are_around_their_points() -> None:
    """The mouth's points alone move the mouth's box; no points, no box and no say."""
    points = torch.full((2, 68, 2), 5.0)
    points[0, list(LIPS)] = torch.tensor([20.0, 24.0])
    points[1] = torch.nan
    lip, eye = (box_mask(points_box(points, part, 2.0), 32) for part in (LIPS, EYES))
    rows, columns = torch.nonzero(lip[0, 0], as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (22, 25, 18, 21)
    assert not (lip[0] & eye[0]).any() and not lip[1].any() and not eye[1].any()
    error = torch.zeros(2, 3, 32, 32)
    error[0, :, 22:26, 18:22], error[1] = 4.0, 100.0
    value, count = mean_inside(error, lip)
    assert (value.item(), int(count)) == (4.0, 1)


def test_only_the_strongest_and_neutral_are_learned(talkers: str, tmp_path: Path) -> None:
    config = configure("expression_gan", "tiny")
    gan = task_class("expression_gan")
    facts = gan.learn(config, Dataset(talkers))
    assert facts["strongest"] == {"happy": 3, "neutral": 3}
    task = gan(config, facts)
    assert task.is_strong("happy", 3) and task.is_strong("neutral", None)
    assert not task.is_strong("happy", 1) and not task.is_strong(None, None) and not task.is_strong("sad", 3)
    with pytest.raises(ConfigError, match="has learned no sad; it knows happy, neutral"):
        task.sequences(task.build(), "sad", torch.ones(4), torch.Generator())
    bare = make(tmp_path / "bare", [("p0", None)])
    with pytest.raises(ConfigError, match="no clip has an emotion"):
        gan.learn(config, Dataset(bare))


def test_both_ends_of_the_dial_have_the_same_noise(talkers: str) -> None:
    """At k = 0 the sequence is the neutral one of that noise, whatever the emotion."""
    config = configure("expression_gan", "tiny")
    task = task_class("expression_gan")(config, task_class("expression_gan").learn(config, Dataset(talkers)))
    torch.manual_seed(0)
    net = task.build()

    def made(emotion: str, k: float) -> torch.Tensor:
        return task.sequences(net, emotion, torch.full((8,), k), torch.Generator().manual_seed(3))

    torch.testing.assert_close(made("happy", 0.0), made("neutral", 0.3))
    torch.testing.assert_close(made("happy", 0.5), (made("happy", 0.0) + made("happy", 1.0)) / 2)
    assert (made("happy", 1.0) - made("happy", 0.0)).abs().max() > 1e-3
