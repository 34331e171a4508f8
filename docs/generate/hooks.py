"""What MkDocs calls while it builds the site, from the project's root: ``python -m mkdocs build``."""

from __future__ import annotations

import logging

from docs.generate import decisions, diagrams, links, pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LOGGER = logging.getLogger("mkdocs.hooks.generate")  # a warning below "mkdocs" fails a strict build
_TAKEN_IN = {"changelog.md": links.ROOT / "CHANGELOG.md"}
"""Pages whose files stand elsewhere."""
_MERMAID = "assets/javascripts/mermaid.min.js"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the decisions, and let the site have its own copy of Mermaid where there is one."""
    for entry in config.nav or []:
        for section, listed in entry.items():
            if listed == "adr/":
                names = ["README.md", *(path.name for path in decisions.records())]
                entry[section] = [f"adr/{name}" for name in names]
    if diagrams.BUNDLE.is_file():
        config.extra_javascript.append(_MERMAID)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what stands outside of docs/."""
    for name, path in _TAKEN_IN.items():
        files.append(File.generated(config, name, content=path.read_text("utf-8")))
    if diagrams.BUNDLE.is_file():
        files.append(File.generated(config, _MERMAID, abs_src_path=str(diagrams.BUNDLE)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated, and lead links to the repository that leave the site."""
    place = links.DOCS / page.file.src_uri
    source = _TAKEN_IN.get(page.file.src_uri, place)
    try:
        return links.rewritten(pages.filled(markdown), source, place, str(config.repo_url).rstrip("/"))
    except links.BrokenLinkError as error:
        _LOGGER.warning("%s", error)
    except (AttributeError, KeyError) as error:
        _LOGGER.warning(
            "%s asks for something generated, or something has no description: %s", page.file.src_uri, error
        )
    return markdown
