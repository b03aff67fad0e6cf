"""Figures as small SVG: the same shapes and words as matplotlib writes, in an attribute that gives them back."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
from matplotlib.figure import Figure

from robustbench_local.report.drawing import style
from robustbench_local.report.svg import INK, svg

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = """a "quoted" & <b> 'x' style="fill: red" d="1.23456" 10.55555 | #1e2126 % é \u202e"""


def drawn() -> Figure:
    with style():
        figure = Figure(figsize=(4, 3))
        axes = figure.subplots()
        axes.plot(np.linspace(0, 1, 9) ** 2, marker="o", label=HOSTILE)
        axes.errorbar([1, 2], [0.2, 0.4], yerr=[0.11, 0.07], label="second")
        axes.set_title("style: title", rotation=10)
        figure.legend()
    return figure


def plain() -> ET.Element:
    file = io.StringIO()
    with style():
        drawn().savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return ET.fromstring(file.getvalue())


def lean() -> str:
    with style():
        return svg(drawn())


def styles(root: ET.Element) -> dict[str, str]:
    light = "".join(each.text or "" for each in root.iter(f"{SVG}style")).split("@media")[0]
    return dict(re.findall(r"\.(\w+)\{([^}]*)\}", light))


def tenth(number: str) -> float:
    return float(f"{float(number):.1f}")


def outline(d: str) -> tuple[list[str], list[float]]:
    """Commands and absolute coordinates of a path to the tenth; steps that go nowhere are left out."""
    kinds, points = [], [0.0, 0.0]
    for kind, rest in re.findall(r"([a-zA-Z])([^a-zA-Z]*)", d):
        own = [tenth(each) for each in rest.split()]
        if kind in "HV":
            own, kind = ([own[0], points[-1]] if kind == "H" else [points[-2], own[0]]), "L"
        if kind != "L" or own != points[-2:]:
            kinds.append(kind)
            points += own
    return kinds, points


def around(root: ET.Element, kind: str) -> list[tuple[ET.Element, list[object]]]:
    """Elements of that kind, each with the turns, the clips and the marker of it and of all that holds it."""
    shapes = [each for each in root.iter() if each.tag in (f"{SVG}path", f"{SVG}clipPath") and each.get("id")]
    order = {each.get("id"): place for place, each in enumerate(shapes)}
    found: list[tuple[ET.Element, list[object]]] = []

    def walk(element: ET.Element, outer: list[object]) -> None:
        own = list(outer)
        for key, value in element.attrib.items():
            if key == "transform" and not value.startswith("rotate(-0 "):
                own += [tenth(number) for number in re.findall(r"-?[\d.]+", value)]
            elif key.endswith("href") or key == "clip-path":
                own.append(order[value.removeprefix("url(").strip("#)")])
        if element.tag == SVG + kind:
            found.append((element, own))
        for inner in element:
            walk(inner, own)

    walk(root, [])
    return found


def test_every_shape_is_where_matplotlib_put_it_and_looks_the_same() -> None:
    root = ET.fromstring(lean())
    named = styles(root)
    for kind in ("path", "use", "text"):
        pairs = list(zip(around(plain(), kind), around(root, kind), strict=True))
        assert len(pairs) > 3
        for (old, before), (new, after) in pairs:
            assert outline(old.get("d", "")) == outline(new.get("d", ""))
            for key in ("x", "y"):
                assert tenth(old.get(key, "0")) == float(new.get(key, "0"))
            assert before == after
            look = re.sub(r"font-family: [^;]*; ?", "", old.get("style", "")).replace(" ", "")
            assert look == named.get(new.get("class", ""), "").replace(" ", "")


def test_no_letter_of_a_users_text_is_changed() -> None:
    texts = ["".join(each.itertext()) for each in ET.fromstring(lean()).iter(f"{SVG}text")]
    assert texts == ["".join(each.itertext()) for each in plain().iter(f"{SVG}text")]
    assert HOSTILE in texts


def test_a_title_that_is_turned_stays_turned() -> None:
    (turned,) = [text for text in ET.fromstring(lean()).iter(f"{SVG}text") if text.text == "style: title"]
    assert "rotate(-10" in turned.get("transform", "")


def test_ink_turns_light_on_dark_paper() -> None:
    dark = lean().split("@media (prefers-color-scheme:dark)")[1].split("</style>")[0]
    assert "#e9e7e2" in dark
    assert INK not in dark


def test_it_takes_little_more_than_a_third_of_the_room() -> None:
    assert len(lean()) < 0.4 * len(ET.tostring(plain()))
