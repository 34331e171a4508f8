"""The wheel and the sdist hold what they should and nothing else, and an index can show them."""

import io
import re
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from html.parser import HTMLParser

import pytest
from readme_renderer import markdown

from support.distributions import BIN, PACKAGES, ROOT, build, succeed

pytestmark = pytest.mark.xdist_group("distributions")  # one build


def ours():
    """Files of the three packages, by their path in the repository: what is to be published of them."""
    return {
        path.relative_to(ROOT).as_posix()
        for name, folder in PACKAGES.items()
        for path in (folder / name).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }


def installed_path(path):
    """Of a file of the tree, in site-packages."""
    return path.partition("/")[2]


def metadata(wheel) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def about(built):
    return metadata(built.wheel)


@pytest.fixture(scope="module")
def files_of_wheel(built):
    with zipfile.ZipFile(built.wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_three_packages_and_nothing_else(files_of_wheel, about):
    info = f"dagster_sqlmesh_pipes-{about['Version']}.dist-info"

    assert set(files_of_wheel) == {installed_path(path) for path in ours()} | {
        f"{info}/METADATA",
        f"{info}/WHEEL",
        f"{info}/RECORD",
        f"{info}/entry_points.txt",
        f"{info}/licenses/LICENSE",
    }
    assert {name for name in files_of_wheel if name.endswith("py.typed")} == {
        f"{name}/py.typed" for name in PACKAGES
    }
    for path in ours():
        assert files_of_wheel[installed_path(path)] == (ROOT / path).read_bytes()


def test_the_sdist_holds_what_a_wheel_is_built_from_and_nothing_else(built, about):
    top = f"dagster_sqlmesh_pipes-{about['Version']}/"
    with tarfile.open(built.sdist) as archive:
        names = {member.name.removeprefix(top) for member in archive if member.isfile()}

    files = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"}
    # Hatchling adds the last two: the metadata, and what a build of the unpacked sdist is to leave out.
    assert names == ours() | files | {"PKG-INFO", ".gitignore"}


def test_a_wheel_of_the_tree_is_that_of_the_sdist(built, files_of_wheel, tmp_path):
    build(tmp_path, "--wheel")

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files_of_wheel
    assert wheel.read_bytes() == built.wheel.read_bytes()


def test_an_index_takes_both(built):
    succeed([BIN / "twine", "check", "--strict", built.sdist, built.wheel])


def test_the_wheel_is_for_every_python_that_its_classifiers_name(built, about):
    versions = [
        tuple(map(int, found[1].split(".")))
        for classifier in about.get_all("Classifier")
        if (found := re.fullmatch(r"Programming Language :: Python :: (\d+\.\d+)", classifier))
    ]

    assert built.wheel.name.endswith("-py3-none-any.whl")
    assert about["Requires-Python"] == ">=" + ".".join(map(str, versions[0]))
    assert versions == [(3, minor) for minor in range(versions[0][1], versions[-1][1] + 1)]
    assert about["License-Expression"] == "Apache-2.0"
    assert about.get_all("License-File") == ["LICENSE"]
    assert not [name for name in about.get_all("Classifier") if name.startswith("License")]


def test_the_console_script_and_the_component_registry_are_entry_points(files_of_wheel):
    (points,) = (content for name, content in files_of_wheel.items() if name.endswith("/entry_points.txt"))

    assert points.decode().split("\n\n") == [
        "[console_scripts]\nsqlmesh-runner = sqlmesh_pipes_runner.cli:main",
        "[dagster_dg_cli.registry_modules]\ndagster_sqlmesh_pipes = dagster_sqlmesh_pipes\n",
    ]


class Links(HTMLParser):
    """What a page leads to and shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, _tag, attributes):
        self.found += [value for name, value in attributes if name in ("href", "src", "srcset") and value]


def targets(readme):
    warnings = io.StringIO()
    page = markdown.render(readme, stream=warnings)
    assert page, warnings.getvalue()
    return Links(page).found


def test_the_readme_leads_from_an_index_to_files_of_the_release(about):
    home = dict(url.split(", ") for url in about.get_all("Project-URL"))["Homepage"]
    raw = home.replace("//github.com/", "//raw.githubusercontent.com/")
    tag = f"v{about['Version']}"
    of_the_release = re.compile(
        rf"(?:{re.escape(home)}/blob|{re.escape(raw)})/{re.escape(tag)}/([^#]+)(#.+)?"
    )

    in_the_tree = [
        target for target in targets((ROOT / "README.md").read_text()) if not re.match(r"[a-z]+:|#", target)
    ]
    on_an_index = [target for target in targets(about.get_payload()) if target.startswith((home, raw))]

    assert in_the_tree
    assert [
        found[1] + (found[2] or "") for target in on_an_index if (found := of_the_release.fullmatch(target))
    ] == in_the_tree
    assert [target for target in in_the_tree if not (ROOT / target.partition("#")[0]).exists()] == []
    assert [
        target for target in targets(about.get_payload()) if not re.match(r"https?:|mailto:|#", target)
    ] == []
    shown = [target for target in on_an_index if re.search(r"\.(png|svg|gif|jpe?g)$", target)]
    assert [target for target in shown if not target.startswith(raw)] == []


def test_all_urls_are_of_one_repository(about):
    urls = dict(url.split(", ") for url in about.get_all("Project-URL"))

    assert [url for url in urls.values() if not url.startswith(urls["Homepage"])] == []
    named = re.findall(
        r"https://(?:github|raw\.githubusercontent)\.com/([^/\s\"]+/[^/\s\"]+)",
        (ROOT / "pyproject.toml").read_text(),
    )
    assert {f"https://github.com/{repository}" for repository in named} == {urls["Homepage"]}
