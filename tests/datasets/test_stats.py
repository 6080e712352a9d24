"""What became of a source: it is found by name, end, path and pattern, and what is not found is told what is near."""

import pytest

from talkface.datasets.reader import Dataset
from talkface.datasets.stats import why
from talkface.errors import DatasetError


@pytest.mark.parametrize("asked", ["s3.mp4", "/x/s3.mp4", "s3*", "elsewhere/s3.mp4"])
def test_a_source_is_found_by_name_path_and_pattern(dataset: Dataset, asked: str) -> None:
    assert why(dataset, asked)[0].startswith("s3.mp4: ")


@pytest.mark.parametrize(
    ("asked", "near"), [("S", "'s0.mp4', 's1.mp4', 's2.mp4'"), ("s5", "'s5.mp4'"), ("s3.mp5", "'s3.mp4'")]
)
def test_a_source_that_is_not_there_is_told_what_is_near(dataset: Dataset, asked: str, near: str) -> None:
    with pytest.raises(DatasetError) as error:
        why(dataset, asked)
    assert str(error.value) == (
        f"{asked}: no source of {dataset.url} is called that; it has 6 sources (near: {near}). "
        f"Patterns work too: '*{asked}*'."
    )
