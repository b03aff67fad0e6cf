"""The documentation: links lead somewhere, the site builds, and it asks no other host for anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from pydoc import locate

import pytest

import robustbench_local

ROOT = Path(__file__).parents[2]
IN_ERRORS = {"robustbench_local.RobustBenchError"}  # that page describes a module
FETCHED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*>""")


def links(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci/links.py")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_links_between_pages_lead_somewhere() -> None:
    done = links(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("link", ["nowhere.md", "there.md#gone", "#gone", "picture.png", "there.md#in-a-fence"])
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, link: str) -> None:
    (tmp_path / "there.md").write_text("# A title, here\n\n```sh\n# in a fence\n```\n", encoding="utf-8")
    page = "# Own\n[good](there.md) [good](there.md#a-title-here) [good](#own) [other](https://example.org/x#y)\n"
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    assert links(tmp_path).returncode == 0
    (tmp_path / "page.md").write_text(f"{page}[bad]({link})\n", encoding="utf-8")
    done = links(tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"page.md: {link}"]


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs`, of the pages in that folder."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=120)


def test_the_design_names_the_rooms_in_their_order() -> None:
    held = (ROOT / "tests/project/test_rooms.py").read_text(encoding="utf-8")
    rooms = re.findall(r'"(\w+)"', held.partition("\nROOMS = (")[2].partition("\n)")[0])
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/design.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rooms) > 10 and table == rooms


def test_the_api_pages_describe_every_public_name_and_nothing_that_is_gone() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/api").glob("*.md"))
    described = re.findall(r"^::: ([\w.]+)$", pages, re.MULTILINE)
    assert {f"robustbench_local.{name}" for name in robustbench_local.__all__} <= {*described, *IN_ERRORS}
    assert [name for name in described if locate(name) is None] == []
    assert locate("robustbench_local.core.gone") is None  # the twin


@pytest.mark.slow
def test_the_site_builds_and_asks_no_other_host(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")
    }
    assert {name: FETCHED.findall(text) for name, text in pages.items() if FETCHED.search(text)} == {}
    assert "[docs" not in pages["changelog.html"] and "Unreleased" in pages["changelog.html"]
    for name in ("evaluate", "audit_model", "run_grid", "load_data", "load_model"):
        assert f">{name}</span>" in pages["api/calls.html"], name


def test_what_another_host_would_be_asked_for_is_found() -> None:
    assert FETCHED.search('<script src="https://example.org/x.js">') and FETCHED.search("<img src=//example.org/x.png>")
    assert not FETCHED.search('<a href="https://example.org"><script src="../assets/x.js">')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[bad](nowhere.md)", "nowhere.md"),
        ("[bad](glossary.md#gone)", "#gone"),
        ("![bad](none.png)", "none.png"),
        ("[bad](../README.md)", "../README.md"),
        ("::: robustbench_local.core.threat.Gone", "robustbench_local.core.threat.Gone"),
    ],
)
def test_a_page_that_is_wrong_ends_the_build(tmp_path: Path, text: str, complaint: str) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "robustbench_local").symlink_to(ROOT / "robustbench_local")
    page = tmp_path / "docs" / "index.md"
    page.write_text(f"{page.read_text(encoding='utf-8')}\n\n{text}\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert complaint in done.stderr


TERMS = ("APGD", "AutoAttack", "BPDA", "EOT", "zoo")
OTHER = re.compile(r"```.*?```|`[^`\n]*`|^#[^\n]*|^\|[^\n]*", re.DOTALL | re.MULTILINE)  # code, titles and tables


def unexplained(text: str) -> list[str]:
    """The terms whose first use in prose is no link to the glossary."""
    prose = OTHER.sub("", text)
    found = []
    for term in TERMS:
        linked = re.search(rf"\[[^\]]*\b{term}\b[^\]]*\]\([^)]*glossary", prose)
        plain = re.search(rf"\b{term}\b", re.sub(r"\[[^\]]*\]\([^)]*\)", lambda each: " " * len(each[0]), prose))
        if plain and not (linked and linked.start() < plain.start()):
            found.append(term)
    return found


def test_the_first_use_of_a_term_leads_to_the_glossary() -> None:
    left_out = {"glossary.md", "changelog.md"}
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path.name not in left_out and path.parent.name != "api"]
    assert {path.name: unexplained(path.read_text(encoding="utf-8")) for path in pages} == {
        path.name: [] for path in pages
    }
    twin = "# EOT\n\nEOT helps. [EOT](glossary.md#x), `BPDA`, [the zoo](glossary.md), zoo"
    assert unexplained(twin) == ["EOT"]
