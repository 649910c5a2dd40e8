"""README.md links every page of docs/, links lead somewhere, and the table of settings is that of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from raycelery.app.settings import DEFAULTS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
OTHERS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
#: The default is computed: the table says how.
COMPUTED = {"ray_app_name"}


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


def test_the_table_of_settings_has_all_with_their_defaults() -> None:
    rows = re.findall(
        r"^\| `(ray_\w+)` \| [^|]+ \| ([^|]+) \|", (ROOT / "docs/using.md").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(name for name, _ in rows) == sorted(name for name in DEFAULTS if name.startswith("ray_"))
    for name, default in rows:
        if name not in COMPUTED:
            assert ast.literal_eval(default.strip().strip("`").replace(",", "_")) == DEFAULTS[name], name
