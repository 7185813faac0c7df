"""Curves as SVG: well-formed, the same for the same figures, gaps left out."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

import pytest

from benchmarks.curves_svg import PANELS, Curve, smoothed, svg

HELD_OUT: Mapping[str, Curve] = {"": {"update": [0, 2, 4], "accuracy": [0.0, None, 1.0], "length": [10.0, 20.0, 30.0]}}
TRAINING: Mapping[str, Curve] = {"": {"update": [1, 2, 3], "accuracy": [0.5, 0.5, 0.5]}}
NAME = "{http://www.w3.org/2000/svg}"


def test_held_out_prompts_are_dots_and_training_is_a_line() -> None:
    drawn = svg("a <b>", HELD_OUT, TRAINING)
    assert drawn == svg("a <b>", HELD_OUT, TRAINING)
    tree = ElementTree.fromstring(drawn)
    accuracy, length = tree.findall(f"{NAME}g")
    assert len(accuracy.findall(f"{NAME}polyline")) == 2 and len(length.findall(f"{NAME}polyline")) == 1
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in accuracy.findall(f"{NAME}circle")]
    assert dots[0][0] < dots[1][0] and dots[0][1] > dots[1][1], "later is right, better is up"
    words = [text.text for text in accuracy.iter(f"{NAME}text")]
    assert {"100%", "update 4", "held-out", "training"} <= set(words)


def test_no_curve_is_an_empty_picture() -> None:
    assert len(ElementTree.fromstring(svg("a", {}, {})).findall(f"{NAME}g")) == len(PANELS)


def test_a_training_curve_is_averaged_over_what_is_there() -> None:
    assert smoothed([1.0, None, 3.0, 5.0], 3) == pytest.approx([1.0, 1.0, 2.0, 4.0])
    assert smoothed([None, None]) == [None, None]
