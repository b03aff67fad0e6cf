"""Figures as small SVG: the same shapes and words as matplotlib writes, in an attribute that gives them back."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
from matplotlib.figure import Figure

from robustbench_local.report.drawing import style
from robustbench_local.report.svg import INK, data_uri, svg

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


def numbers(text: str) -> np.ndarray:
    return np.array(re.findall(r"-?\d+(?:\.\d+)?", text), float)


def test_every_shape_is_where_matplotlib_put_it_and_looks_the_same() -> None:
    root = ET.fromstring(lean())
    named = styles(root)
    for kind in ("path", "use", "text"):
        pairs = list(zip(plain().iter(SVG + kind), root.iter(SVG + kind), strict=True))
        assert len(pairs) > 3
        for old, new in pairs:
            for key in ("d", "x", "y"):
                assert np.allclose(numbers(old.get(key, "")), numbers(new.get(key, "")), atol=0.051)
                assert re.sub(r"[^a-zA-Z]", "", old.get(key, "")) == re.sub(r"[^a-zA-Z]", "", new.get(key, ""))
            before = re.sub(r"font-family: [^;]*; ?", "", old.get("style", "")).replace(" ", "")
            assert before == named.get(new.get("class", ""), "").replace(" ", "")


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


def test_it_takes_less_than_half_the_room() -> None:
    assert len(data_uri(lean())) < len(ET.tostring(plain())) / 2


def test_a_page_gives_the_picture_back_as_it_was() -> None:
    found: list[str | None] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value for name, value in attrs if name == "src")

    reader = Reader()
    reader.feed(f'<p><img src="{data_uri(lean())}" alt=""></p>')
    (address,) = found
    assert address
    assert unquote(address.removeprefix("data:image/svg+xml,")) == lean()
