"""How many seeds would decide: checked by comparing with that many, and with one fewer."""

import pytest

from lpw_jax.comparison import words
from lpw_jax.comparison.statistics import MAX_SEEDS, Sample, compare

SINGLE = Sample(96.5, None, 1)
PUBLISHED = Sample(96.46, 0.15, 5)  # percent
DECIDED = {"equivalent", "better", "worse"}


def accuracy(ours, theirs, margin=0.5):
    return compare(ours, theirs, margin=margin, higher_is_better=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "margin", "shown"),
    [
        (Sample(96.40, 0.60, 3), PUBLISHED, 0.5, "equivalence"),
        (Sample(97.00, 0.60, 3), PUBLISHED, 0.5, "a difference"),
        (Sample(96.20, 0.90, 4), PUBLISHED, None, "a difference"),
        (Sample(0.3, 2.0, 2), Sample(0.0, 0.1, 30), 1.0, "equivalence"),
        (Sample(0.3, 2.0, 2), Sample(0.0, 0.0, 3), 0.4, "a difference"),
    ],
)
def test_the_seeds_to_decide_decide_and_one_fewer_does_not(ours, theirs, margin, shown):
    found = accuracy(ours, theirs, margin=margin)
    needed = found.seeds_to_decide
    assert found.verdict == "undecided" and needed > ours.n
    assert found.seeds_reason == f"{needed} seeds of ours would show {shown}"
    grown = [Sample(ours.mean, ours.std, n) for n in range(ours.n, needed + 1)]
    later = [accuracy(sample, theirs, margin=margin).verdict for sample in grown]
    assert set(later[:-1]) == {"undecided"} and later[-1] in DECIDED
    assert (later[-1] == "equivalent") == (shown == "equivalence")


def test_a_verdict_needs_no_more_seeds():
    found = accuracy(Sample(96.5, 0.15, 5), PUBLISHED)
    assert found.seeds_to_decide is None and "verdict already" in found.seeds_reason


def test_no_number_of_our_seeds_makes_up_for_a_wide_spread_of_theirs():
    wide = Sample(96.0, 1.0, 3)  # its mean alone is known to +/- 2.5
    found = accuracy(Sample(96.3, 0.1, 3), wide)
    assert found.verdict == "undecided" and found.seeds_to_decide is None
    assert "spread of theirs alone is too wide" in found.seeds_reason
    assert accuracy(Sample(96.3, 0.1, 10**9), wide).verdict == "undecided"


def test_more_seeds_than_anybody_makes_are_told_apart_from_none():
    # Differences of 0.02 spreads take about (1.96 / 0.02)^2 = 9604 seeds.
    theirs = Sample(0.0, 1e-3, 9)
    found = accuracy(Sample(0.02, 1.0, 5), theirs, margin=None)
    assert found.seeds_to_decide is None and f"more than {MAX_SEEDS}" in found.seeds_reason
    assert accuracy(Sample(0.02, 1.0, 9800), theirs, margin=None).verdict == "better"
    assert accuracy(Sample(0.02, 1.0, 1500), theirs, margin=None).seeds_to_decide is None


def test_equal_means_are_shown_by_no_number_of_seeds_without_a_margin():
    for std in (0.0, 0.2):
        found = accuracy(Sample(1.0, std, 3), Sample(1.0, std, 3), margin=None)
        assert found.seeds_to_decide is None and "without a margin" in found.seeds_reason
    assert accuracy(Sample(1.0, 0.3, 3), Sample(1.0, 0.3, 3)).seeds_to_decide == 4


def test_more_seeds_may_lose_a_verdict_that_fewer_give():
    # Against two seeds of theirs the degrees of freedom fall towards 1 as ours grow.
    theirs = Sample(0.0, 1.0, 2)
    found = [accuracy(Sample(3.55, 1.0, n), theirs, margin=None) for n in (2, 3, 50)]
    assert [each.verdict for each in found] == ["undecided", "better", "undecided"]
    assert found[0].seeds_to_decide == 3
    assert found[2].seeds_to_decide is None  # there are 50 already: going back is not offered


def test_for_one_seed_the_other_sides_spread_stands_in():
    found = accuracy(SINGLE, PUBLISHED, margin=0.2)
    needed = found.seeds_to_decide
    assert "one seed has no spread, theirs stands in for it" in found.seeds_reason
    enough = Sample(96.5, PUBLISHED.std, needed)
    assert accuracy(enough, PUBLISHED, margin=0.2).verdict == "equivalent"
    fewer = Sample(96.5, PUBLISHED.std, needed - 1)
    assert accuracy(fewer, PUBLISHED, margin=0.2).verdict == "undecided"
    hopeless = accuracy(Sample(96.1, None, 1), Sample(96.0, 1.0, 3))
    assert hopeless.seeds_to_decide is None and "too wide" in hopeless.seeds_reason
    assert accuracy(Sample(1.0, None, 1), Sample(0.5, 0.0, 3)).seeds_to_decide == 2


@pytest.mark.parametrize(
    ("ours", "theirs", "margin", "status", "cell"),
    [
        (Sample(96.5, 0.15, 5), PUBLISHED, 0.5, "decided", "-"),
        (Sample(1.0, 0.3, 3), Sample(1.0, 0.3, 3), 0.5, "found", "4"),
        (Sample(96.3, 0.1, 3), Sample(96.0, 1.0, 3), 0.5, "none", "none can"),
        (Sample(1.0, 0.2, 3), Sample(1.0, 0.2, 3), None, "none", "none can"),
        (Sample(0.02, 1.0, 5), Sample(0.0, 1e-3, 9), None, "too many", "> 1000"),
        (Sample(96.5, None, 3), PUBLISHED, 0.5, "unknown", "unknown"),
        (SINGLE, Sample(96.0, None, 3), 0.5, "unknown", "unknown"),
        (SINGLE, Sample(96.5, 0.0, 3), None, "none", "none can"),
    ],
)
def test_the_cell_of_seeds_follows_the_status_and_not_the_sentence(
    ours, theirs, margin, status, cell
):
    found = vars(accuracy(ours, theirs, margin=margin)) | {"seeds_reason": "in other words"}
    assert found["seeds_status"] == status
    assert words.seeds(found) == cell


def test_seeds_of_both_sides_decide_where_more_of_one_cannot():
    ours, theirs = Sample(1.0, 0.4, 2), Sample(0.0, 0.9, 2)
    options = {"margin": None, "higher_is_better": True}
    assert compare(ours, theirs, **options).seeds_status == "none"
    found = compare(ours, theirs, **options, both_grow=True)
    assert found.seeds_status == "found" and "of each" in found.seeds_reason
    for n, decides in ((found.seeds_to_decide, True), (found.seeds_to_decide - 1, False)):
        p = compare(Sample(1.0, 0.4, n), Sample(0.0, 0.9, n), **options).welch_p
        assert (p < 0.05) == decides
