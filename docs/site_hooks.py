"""Pages of the documentation site that are files at the top of the repository: MkDocs' hooks, named in mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, with their links as seen from the folder of the others.

    Follows https://www.mkdocs.org/user-guide/configuration/#hooks.
    """
    top = Path(config.config_file_path).parent
    for source, target in _PAGES.items():
        text = (top / source).read_text(encoding="utf-8").replace("](docs/", "](")
        for name, page in _PAGES.items():
            text = text.replace(f"]({name}", f"]({page}")
        # Folders of the repository are no pages of the site.
        text = re.sub(r"\[([^]]*)\]\((?:legacy_examples|LICENSE)[^)]*\)", r"\1", text)
        files.append(File.generated(config, target, content=text))
    return files
