"""README.md links every page of docs/, links lead somewhere, and the page of settings is that of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs import protocol_page, settings_page
from raycelery.app.settings import DEFAULTS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
OTHERS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
#: The default is computed: the table says how.
COMPUTED = {"ray_app_name"}
#: What else begins so: a fixture, a module that the codemod writes; and metrics.
NO_SETTINGS = {"ray_session", "ray_tasks"}


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_links_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\(docs/([\w-]+\.md)\)", readme.partition("## What is and is not")[0]))
    assert listed == {page.name for page in PAGES}


@pytest.mark.parametrize("page", [*OTHERS, *PAGES], ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_page_of_the_protocol_is_that_of_the_code() -> None:
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    assert text == protocol_page.page(), "run: python docs/protocol_page.py > docs/protocol.md"


def test_files_that_the_design_names_are_there() -> None:
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!word|---).*\| (.*?) \|$", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert len(named) > 40
    assert not [name for name in named if not (ROOT / "raycelery" / name).exists()]
    rooms = re.findall(
        r"(?:^  | {2,})(\w+(?:/|\.py))(?=\s)", text.partition("```\n")[2].partition("```")[0], re.MULTILINE
    )
    there = {f"{one.name}/" for one in (ROOT / "raycelery").iterdir() if (one / "__init__.py").exists()}
    assert there <= set(rooms), "every folder is in the picture"


def test_the_page_of_settings_is_that_of_the_code() -> None:
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert text == settings_page.page(), "run: python docs/settings_page.py > docs/settings.md"
    rows = re.findall(r"^\| `(ray_\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == sorted(name for name in DEFAULTS if name.startswith("ray_"))
    for name, kind, default, about in rows:
        assert kind
        assert len(about) > 20, name
        if name not in COMPUTED:
            assert ast.literal_eval(default.strip().strip("`").replace(",", "_")) == DEFAULTS[name], name


@pytest.mark.parametrize("page", [*OTHERS, *PAGES], ids=lambda page: page.name)
def test_settings_that_pages_name_are_there(page: Path) -> None:
    named = re.findall(r"(?<![\w./])(ray_(?!raycelery_)[a-z_]+)(?= ?=|`)", page.read_text(encoding="utf-8"))
    assert {name for name in named if name not in DEFAULTS} <= NO_SETTINGS
