"""`make docker-demo` on a real Docker engine: the shop on PostgreSQL, Dagster's services and the runner in containers."""

import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest

from support import images
from support.make import make, table

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(1500)]


def docker(*arguments: str) -> list[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.split()


@pytest.fixture
def demo(docker_host: str | None) -> Iterator[Callable[[], list[list[str]]]]:
    """Runs the demo, beside others on the engine; returns the table's rows."""
    if docker_host is not None:
        pytest.skip("the code location is given the engine's default socket, where none answers")
    if shutil.which("docker-compose") is None and not has_compose():
        pytest.skip("Docker Compose is not installed (Debian: apt-get install docker-compose)")
    name = f"sqlmesh-shop-{uuid.uuid4().hex[:8]}"
    settings = {
        "BASE_IMAGE": images.base_image(),
        "POSTGRES_IMAGE": images.postgres_image(),
        "PIP_ARGS": images.pip_args(),
        "COMPOSE_PROJECT_NAME": name,
        "SHOP_TAG": name,
        "DAGSTER_PORT": "0",  # any that is free
    }

    def run() -> list[list[str]]:
        done = make("docker-demo", timeout=1200, env=settings)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        # Nothing goes on: no service, no runner.
        assert docker("ps", "--all", "--quiet", "--filter", f"network={name}") == []
        assert docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={name}") == []
        return table(done.stdout)

    yield run
    make("docker-down", timeout=1200, env=settings)
    assert docker("volume", "ls", "--quiet", "--filter", f"name={name}") == []
    tags = ("sqlmesh-runner", "sqlmesh-orchestrator", "shop-runner", "shop-orchestrator")
    docker("image", "rm", *(f"{tag}:{name}" for tag in reversed(tags)))


def has_compose() -> bool:
    return not subprocess.run(
        ["docker", "compose", "version"], capture_output=True, timeout=60, check=False
    ).returncode


def test_the_demo_in_containers_shows_what_the_demo_shows(demo):
    first = {row[0]: row[1:] for row in demo()}
    second = {row[0]: row[1:] for row in demo()}

    models = {name for name in first if name.startswith("shop/") and name != "shop/raw/payments"}
    assert len(models) == 13
    assert {first[name][0] for name in models} == {"executed"}
    assert first["shop/raw/payments"][0] == "materialized"
    assert first["revenue_report"][0] == "materialized"
    assert first["shop/marts/order_payments"][1].startswith("2 passed, 1 warned")
    assert {second[name][0] for name in models} == {"skipped"}
    assert second["shop/raw/orders"][1].strip() == "up_to_date"
    assert second["shop/marts/orders"][1].strip().startswith("cron_not_due, next due ")
    assert second["revenue_report"][:2] == ["not", "run"]


def test_without_docker_the_demo_says_what_to_install(tmp_path):
    for program in ("bash", "dirname", "make"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))

    done = make("docker-demo", timeout=1200, env={"PATH": str(tmp_path)})

    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("Docker is not installed: ")


def test_without_an_engine_that_answers_the_demo_says_what_to_do():
    if shutil.which("docker") is None:
        pytest.skip("the docker command is not installed (Debian: apt-get install docker.io)")

    done = make("docker-demo", timeout=1200, env={"DOCKER_HOST": "unix:///no/such/socket"})

    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("The Docker engine does not answer: ")
