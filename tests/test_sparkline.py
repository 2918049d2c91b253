"""Curves as large as a word: where their points are, and what is not drawn."""

import re
from xml.etree import ElementTree

import pytest

from lpw_jax.display import sparkline


def drawn(values, alt="loss", **options):
    return ElementTree.fromstring(sparkline.svg(values, alt, **options))


def points(line):
    return [tuple(map(float, point.split(","))) for point in line.get("points").split()]


def test_points_span_the_picture_from_the_highest_to_the_lowest():
    (line,) = drawn([3.0, 1.0, 2.0]).iter("polyline")
    assert points(line) == [(2.0, 2.0), (60.0, 26.0), (118.0, 14.0)]


def test_what_is_not_finite_is_a_gap_and_a_lone_point_a_dot():
    picture = drawn([1.0, 2.0, None, 3.0, float("inf"), 1.0, 1.5])
    assert [len(points(line)) for line in picture.iter("polyline")] == [2, 2]
    assert len(list(picture.iter("circle"))) == 1


@pytest.mark.parametrize("values", [[], [None], [float("nan"), None]])
def test_nothing_finite_is_nothing(values):
    assert sparkline.svg(values, "loss") == ""


def test_a_constant_is_in_the_middle_and_a_mark_where_it_belongs():
    picture = drawn([2.0] * 11, mark=5)
    (line,), (mark,) = picture.iter("polyline"), picture.iter("line")
    assert {y for _, y in points(line)} == {14.0} and mark.get("x1") == "60.0"
    assert not list(drawn([2.0] * 11, mark=11).iter("line"))


def test_long_curves_are_means_of_their_parts():
    (line,) = drawn(list(range(1000))).iter("polyline")
    (x, first), *_, (_, last) = points(line)
    assert len(points(line)) == 112 and x == 2.0 and 24 < first < 26 and 2 <= last < 4


def test_what_it_shows_is_text():
    text = sparkline.svg([1.0, 2.0], '<b>&"')
    assert ElementTree.fromstring(text).get("aria-label") == '<b>&"' and "<b>" not in text
    assert not re.search(r"href|style", text)
