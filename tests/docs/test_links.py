"""Links in Markdown lead somewhere: within the repository, from the site into it, and in form those to elsewhere.

Links between the site's pages are MkDocs' to check: `make docs` is strict.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from docs.generate.links import (
    DOCS,
    ROOT,
    BrokenLinkError,
    anchors,
    follow,
    is_absolute,
    links,
    rewritten,
)

from support.markdown import markdown_files, name_of, pages

REPOSITORY = re.search(r"^repo_url: (\S+)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)[1]  # type: ignore[index]  # there is one


@pytest.mark.parametrize("path", markdown_files(), ids=name_of)
def test_relative_links_lead_to_files_and_headings(path: Path) -> None:
    for line, target in links(path.read_text("utf-8")):
        if is_absolute(target):
            continue
        found = follow(path, target)
        anchor = target.partition("#")[2]
        # The site's own anchors are more than a file's text has: some headings are generated.
        if anchor and found.suffix == ".md" and not (path in pages() and found in pages()):
            assert anchor in anchors(found.read_text("utf-8")), f"{name_of(path)}:{line}: {target}"


@pytest.mark.parametrize("path", markdown_files(), ids=name_of)
def test_links_to_elsewhere_are_whole_and_https(path: Path) -> None:
    for line, target in links(path.read_text("utf-8")):
        if not is_absolute(target) or target.startswith("mailto:"):
            continue
        parts = urlsplit(target)
        host = parts.hostname or ""
        is_local = host in ("127.0.0.1", "localhost")
        assert is_local or (parts.scheme == "https" and "." in host), f"{name_of(path)}:{line}: {target}"
        if target.startswith((f"{REPOSITORY}/blob/", f"{REPOSITORY}/tree/")):
            inside = parts.path.removeprefix(urlsplit(REPOSITORY).path).split("/", 3)[3]
            assert (ROOT / inside).exists(), f"{name_of(path)}:{line}: {target}"


def test_links_that_leave_the_site_lead_to_the_repository() -> None:
    text = (
        "See [the example](../examples/shop/demo.py), [the folder](../examples/ci/), [concepts](concepts.md#plan), [web](https://a.example).\n"
        '`[no](../link.md)` and [`code`](../README.md "title")\n\n```markdown\n[no](../link.md)\n```\n'
    )

    assert rewritten(text, DOCS / "a.md", DOCS / "a.md", "https://forge.example/us/it") == (
        "See [the example](https://forge.example/us/it/blob/main/examples/shop/demo.py), "
        "[the folder](https://forge.example/us/it/tree/main/examples/ci), [concepts](concepts.md#plan), [web](https://a.example).\n"
        '`[no](../link.md)` and [`code`](https://forge.example/us/it/blob/main/README.md "title")\n\n'
        "```markdown\n[no](../link.md)\n```\n"
    )


def test_links_of_a_file_from_elsewhere_lead_to_the_sites_pages() -> None:
    text = "[pages](docs/terminal.md#x) and [files](SECURITY.md)\n"

    assert rewritten(text, ROOT / "CHANGELOG.md", DOCS / "changelog.md", "https://forge.example/us/it") == (
        "[pages](terminal.md#x) and [files](https://forge.example/us/it/blob/main/SECURITY.md)\n"
    )


@pytest.mark.parametrize("target", ["../nowhere.md", "../../etc/passwd", "generate/nothing.py"])
def test_a_link_that_leaves_the_site_for_nothing_is_an_error(target: str) -> None:
    with pytest.raises(BrokenLinkError, match=re.escape(target)):
        rewritten(f"[x]({target})\n", DOCS / "a.md", DOCS / "a.md", "https://forge.example/us/it")


def test_anchors_are_as_github_names_them() -> None:
    text = (
        "# Two `sqlmesh run`s at once: why?\n## a & b\n### [Linked](x.md) *words*\n## a & b\n"
        '```\n# no heading\n```\n<a id="set"></a>\n## snake_case #\n'
    )

    assert anchors(text) == {
        "two-sqlmesh-runs-at-once-why",
        "a--b",
        "linked-words",
        "a--b-1",
        "set",
        "snake_case",
    }
