"""What a licence's name says: whether commerce is forbidden, and which of several binds most."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.errors import ConfigError
from talkface.licences import UNKNOWN, forbids_commerce, is_unknown, require_sources, strictest
from talkface.weights import REGISTRY

NON_COMMERCIAL = (
    "CC-BY-NC-4.0", "CC BY NC", "CC_BY_NC", "cc_by_nc_sa_4.0", "CC-BY-NC4.0", "CCBYNC", "CC BY-NC-ND 4.0",
    "PolyForm-Noncommercial-1.0.0", "non-commercial", "Non_Commercial", "noncommercial use", "NON COMMERCIAL",
    "no commercial use", "not for commercial use", "not to be used for any commercial purpose",
    "may not be used commercially", "Commercial use is prohibited", "commercial use not allowed",
    "don't use commercially", "for research and commercial use prohibited", "non-profit use only",
    "Commercial use is strictly prohibited", "commercial use: no", "no use for commercial purposes",
    "prohibits commercial use", "excluding commercial use", "not-for-profit", "not for profit use",
)  # fmt: skip
LIMITED = (
    "research only", "researchers only", "for_research", "academic use", "academia only", "evaluation only",
    "for evaluation purposes only", "evaluation licence", "personal use only", "Personal_Use", "private use",
    "educational use only", "internal use only", "student use only", "All rights reserved", "proprietary",
    "BSD-3-Clause; trained on 300-W data, for research",
)  # fmt: skip
FREE = (
    "MIT", "Apache-2.0", "BSD-3-Clause", "BSD_2_Clause", "CC-BY-4.0", "CC_BY_SA_4.0", "CC0", "CC0-1.0", "ISC",
    "GPL-3.0", "NCSA", "University of Illinois/NCSA Open Source License", "AFL-3.0", "Academic Free License v3.0",
    "ECL-2.0", "Educational Community License v2.0", "OCLC Research Public License 2.0", "public domain", "Unlicense",
    "free for commercial use", "commercial use allowed", "commercial use is not restricted", "Pexels",
    "free for commercial and non-commercial use", "non-commercial or commercial",
    "free for research and commercial use", "commercial and research use", "no restrictions on commercial use",
    "no commercial restrictions",
)  # fmt: skip
UNSTATED = (UNKNOWN, "", "Unknown", "none stated", "not specified", "licence_unknown", "N/A", "no licence", "tbd")
SYNCNET = REGISTRY["syncnet"].licence


@pytest.mark.parametrize("licence", [*NON_COMMERCIAL, *LIMITED, SYNCNET])
def test_what_forbids_commerce(licence: str) -> None:
    assert forbids_commerce(licence) and forbids_commerce(licence.upper())
    with pytest.raises(ConfigError, match=r"^a\.mp4: its licence, .*, forbids commercial use\. Leave it out"):
        require_sources("commercial", {"a.mp4": licence})
    require_sources("any", {"a.mp4": licence})


@pytest.mark.parametrize("licence", [*FREE, *UNSTATED])
def test_what_does_not(licence: str) -> None:
    assert not forbids_commerce(licence) and not forbids_commerce(licence.upper())


def test_the_registry_says_the_same_of_its_entries() -> None:
    for weight in REGISTRY.values():
        assert forbids_commerce(weight.licence) != weight.commercial, weight.name


KINDS = (NON_COMMERCIAL, LIMITED, (*UNSTATED, SYNCNET), FREE)


def test_the_strictest_is_of_the_strictest_kind() -> None:
    for i, kind in enumerate(KINDS):
        for licence in kind:
            for other in (o for later in KINDS[i + 1 :] for o in later):
                assert strictest([licence, other]) == strictest([other, licence]) == licence
    assert strictest([]) == UNKNOWN


@pytest.mark.parametrize(
    "falling",
    [
        ["CC-BY-NC-SA-4.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0", "CC-BY-4.0", "Apache-2.0"],
        ["DECA licence, non-commercial research", "CC-BY-NC-4.0", REGISTRY["fan"].licence, SYNCNET, UNKNOWN, "MIT"],
    ],
)
def test_more_terms_bind_more(falling: list[str]) -> None:
    for i, licence in enumerate(falling):
        assert strictest(falling[i:][::-1]) == licence


@given(st.lists(st.sampled_from([x for kind in KINDS for x in kind])), st.randoms())
def test_what_one_forbids_the_strictest_forbids(licences: list[str], random: Random) -> None:
    """So that whoever knows the strictest alone, such as a finished dataset, lets nothing through."""
    found = strictest(licences)
    assert forbids_commerce(found) == any(map(forbids_commerce, licences))
    random.shuffle(licences)
    assert strictest(licences) == found


@given(st.lists(st.sampled_from(["cc", "by", "nc", "sa", "4"]), min_size=1), st.sampled_from(list("-_ /.,;")))
def test_separators_are_alike(words: list[str], separator: str) -> None:
    assert forbids_commerce(separator.join(words)) == forbids_commerce("-".join(words)) == ("nc" in words)


def test_unstated_is_unknown() -> None:
    assert all(map(is_unknown, (*UNSTATED, SYNCNET)))
    assert not any(map(is_unknown, (*NON_COMMERCIAL, *LIMITED, *FREE)))
