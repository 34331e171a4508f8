"""The images of docker/ on the Docker engine that answers, built once for all who test at the same time.

No registry is needed: bases are made of Debian's packages with debootstrap, and pip takes wheels that lie in docker/wheels. With
BASE_IMAGE in the environment that image is the base, and pip asks the index that PIP_ARGS names.

Needs the standard library and the `docker` command alone, so that a Makefile can ask as well as a test; prints the image's tag:

    python tests/support/images.py runner
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
WHEELS = ROOT / "docker" / "wheels"
PYTHON = (3, 11)
"""Of the base that is made here, Debian's: wheels are made by the same version."""
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "orchestrator", "runner", "shared_protocol")
REQUIREMENTS = (
    "hatch-fancy-pypi-readme",
    "hatchling",
    "psycopg2-binary",
    "dagster-webserver",
    "dagster-postgres",
    "sqlalchemy<2.1",
    ".[dagster,docker,k8s,sqlmesh]",
)
RUNNER_ARGUMENTS = {"ENGINES": "motherduck", "PACKAGES": "psycopg2-binary"}
"""A driver by an extra of SQLMesh, which needs nothing more than SQLMesh does, and one by a package."""
KEEP = timedelta(hours=3)
"""How long an image of other sources stays: another test session may be using it."""


class ImageError(Exception):
    """An image cannot be made; the message says why and what to do."""


def runner_image(host: str | None = None) -> str:
    """The runner's image, of docker/runner.Dockerfile, with drivers for DuckDB and PostgreSQL."""
    return _project_image("sqlmesh-runner", "docker/runner.Dockerfile", RUNNER_ARGUMENTS, host)


def orchestrator_image(host: str | None = None) -> str:
    """Dagster's image, of docker/orchestrator.Dockerfile."""
    return _project_image("sqlmesh-orchestrator", "docker/orchestrator.Dockerfile", {}, host)


def shop_runner_image(host: str | None = None) -> str:
    """The runner's image with the shop's warehouse in it."""
    return _shop_image("runner", host)


def shop_orchestrator_image(host: str | None = None) -> str:
    """Dagster's image with the shop's code location in it."""
    return _shop_image("orchestrator", host)


def base_image(host: str | None = None) -> str:
    """A small Debian with Python; BASE_IMAGE in the environment takes its place."""
    given = os.environ.get("BASE_IMAGE")
    return given or _debian("python-slim", ("python3", "python3-venv"), host)


def postgres_image(host: str | None = None) -> str:
    """A PostgreSQL that takes the variables of the official image; POSTGRES_IMAGE in the environment takes its place."""
    given = os.environ.get("POSTGRES_IMAGE")
    if given:
        return given
    base = _debian("postgres-base", ("postgresql",), host)
    folder = Path(__file__).parent / "postgres_image"
    tag = f"tests/postgres:{_digest([base], sorted(folder.iterdir()))}"
    return _once(tag, host, lambda: _build(tag, folder / "Dockerfile", folder, {"BASE_IMAGE": base}, host))


def pip_args() -> str:
    """What pip is told in a build: to take the wheels of docker/wheels, which are then there, or what PIP_ARGS says."""
    if os.environ.get("BASE_IMAGE"):
        return os.environ.get("PIP_ARGS", "")
    with _locked("wheels"):
        _fill_wheels()
    return "--no-index --find-links=/wheels"


def answers(host: str | None = None) -> bool:
    """Whether there is a Docker engine: of this address, or the one that DOCKER_HOST or the default socket leads to."""
    if shutil.which("docker") is None:
        return False
    try:
        return not _docker(
            host, "version", "--format", "{{.Server.Version}}", check=False, timeout=20
        ).returncode
    except subprocess.TimeoutExpired:
        return False


def _project_image(name: str, dockerfile: str, arguments: Mapping[str, str], host: str | None) -> str:
    base, pip = base_image(host), pip_args()
    arguments = {**arguments, "BASE_IMAGE": base, "PIP_ARGS": pip}
    files = [ROOT / dockerfile, ROOT / ".dockerignore", *(ROOT / source for source in SOURCES)]
    tag = f"tests/{name}:{_digest([repr(sorted(arguments.items())), _wheels_digest()], files)}"
    return _once(tag, host, lambda: _build(tag, ROOT / dockerfile, ROOT, arguments, host))


def _shop_image(target: str, host: str | None) -> str:
    arguments = {"RUNNER_IMAGE": runner_image(host), "ORCHESTRATOR_IMAGE": orchestrator_image(host)}
    shop = ROOT / "examples" / "shop"
    tag = f"tests/shop-{target}:{_digest([repr(sorted(arguments.items()))], [shop])}"
    return _once(
        tag, host, lambda: _build(tag, shop / "Dockerfile", shop, arguments, host, "--target", target)
    )


def _build(
    tag: str, dockerfile: Path, context: Path, arguments: Mapping[str, str], host: str | None, *options: str
) -> None:
    given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    _docker(
        host,
        "build",
        "--quiet",
        "--force-rm",
        "--file",
        str(dockerfile),
        "--tag",
        tag,
        *given,
        *options,
        str(context),
    )


def _once(tag: str, host: str | None, make: Callable[[], None]) -> str:
    """The image, made if it is not there; one process makes it, and the others wait. Old ones of its name are removed."""
    if not _exists(tag, host):
        with _locked("images"):
            if not _exists(tag, host):
                make()
                _forget_others(tag, host)
    return tag


def _exists(tag: str, host: str | None) -> bool:
    return not _docker(host, "image", "inspect", tag, check=False).returncode


def _forget_others(tag: str, host: str | None) -> None:
    name = tag.partition(":")[0]
    for other in _docker(host, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name).stdout.split():
        seen = _docker(
            host, "image", "inspect", "--format", "{{.Metadata.LastTagTime.Unix}}", other, check=False
        )
        made = datetime.fromtimestamp(int(seen.stdout or 0), timezone.utc)
        if other != tag and datetime.now(timezone.utc) - made > KEEP:
            _docker(host, "image", "rm", other, check=False)  # refused while a container uses it
    old = ["--filter", f"until={KEEP.total_seconds():.0f}s"]
    for title in ("sqlmesh-runner", "sqlmesh-orchestrator"):  # the stages that they were built in
        label = f"label=org.opencontainers.image.title={title}"
        _docker(host, "image", "prune", "--force", "--filter", label, *old, check=False)


def _debian(name: str, packages: tuple[str, ...], host: str | None) -> str:
    tag = f"tests/{name}:bookworm"

    def make() -> None:
        _docker(host, "import", str(_root_file_system(name, packages)), tag)

    return _once(tag, host, make)


def _root_file_system(name: str, packages: tuple[str, ...]) -> Path:
    """A tar file of a small Debian with these packages; kept in the project's cache folder, since it takes a minute."""
    cached = CACHE / f"{name}-bookworm.tar"
    if cached.exists():
        return cached
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise ImageError(
            "A base image is made here with debootstrap, as root (Debian: apt-get install debootstrap); "
            "or name one in BASE_IMAGE and POSTGRES_IMAGE."
        )
    with tempfile.TemporaryDirectory(prefix="debian-") as folder:
        root = Path(folder) / "root"
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            "bookworm",
            str(root),
        ]
        _run(command, timeout=900)
        for left in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc"):
            shutil.rmtree(root / left, ignore_errors=True)
        partial = cached.with_suffix(".partial")
        _run(["tar", "-C", str(root), "-cf", str(partial), "."], timeout=300)
        partial.replace(cached)
    return cached


def _fill_wheels() -> None:
    """Everything that the images install, for the base's Python, in docker/wheels."""
    marker = WHEELS / ".made"
    # Each requirement has a bound; the other lines of the file bring no wheel.
    required = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if ">=" in line]
    wanted = _digest([repr(REQUIREMENTS), repr(PYTHON), repr(required)], [])
    if marker.exists() and marker.read_text() == wanted:
        return
    python = ROOT / ".venv-runner" / "bin" / "python"
    version = _run([str(python), "-c", "import sys; print(*sys.version_info[:2])"], timeout=60).stdout
    if version.split() != [str(part) for part in PYTHON]:
        raise ImageError(
            f"Wheels for Debian's Python {'.'.join(map(str, PYTHON))} cannot be made here, with {'.'.join(version.split())}: "
            "name a base in BASE_IMAGE, and what pip needs in PIP_ARGS."
        )
    for old in WHEELS.glob("*.whl"):
        old.unlink()
    marker.unlink(missing_ok=True)
    options = ["--quiet", "--disable-pip-version-check", "--wheel-dir", str(WHEELS)]
    _run([str(python), "-m", "pip", "wheel", *options, *REQUIREMENTS], timeout=1200, cwd=ROOT)
    for own in WHEELS.glob("dagster_sqlmesh_pipes-*.whl"):
        own.unlink()  # the images build it of the sources
    marker.write_text(wanted)


def _wheels_digest() -> str:
    """By name, which has the version."""
    return " ".join(sorted(wheel.name for wheel in WHEELS.glob("*.whl")))


def _digest(words: list[str], files: list[Path]) -> str:
    """Of what goes into an image: words, files, and all that folders hold."""
    digest = hashlib.sha256("\0".join(words).encode())
    for given in files:
        for file in sorted(given.rglob("*")) if given.is_dir() else [given]:
            if file.is_file() and not {"__pycache__", ".cache", "logs"} & set(file.parts[len(ROOT.parts) :]):
                digest.update(f"\0{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """One process at a time, of all that work in this checkout."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        deadline = time.monotonic() + 1800
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ImageError(f"Another process has held {file.name} for half an hour.") from None
                time.sleep(0.2)
        yield  # released with the file


def _docker(
    host: str | None, *arguments: str, check: bool = True, timeout: float = 1200
) -> subprocess.CompletedProcess[str]:
    where = ["--host", host] if host else []
    return _run(["docker", *where, *arguments], check=check, timeout=timeout)


def _run(
    command: list[str], *, timeout: float, check: bool = True, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False)
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()[-3000:]
        raise ImageError(f"`{' '.join(command[:3])}` ended with status {done.returncode}: {said}")
    return done


IMAGES: Mapping[str, Callable[[], str]] = {
    "base": base_image,
    "runner": runner_image,
    "orchestrator": orchestrator_image,
    "postgres": postgres_image,
    "shop-runner": shop_runner_image,
    "shop-orchestrator": shop_orchestrator_image,
    "pip-args": pip_args,
}


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in IMAGES:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(IMAGES)}")
    try:
        print(IMAGES[sys.argv[1]]())
    except ImageError as error:
        sys.exit(str(error))
