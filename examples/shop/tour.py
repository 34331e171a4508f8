"""The tour: the shop in Dagster's web UI, on a good day and on one with wrong payments, as pictures.

Called by `make screenshots`, in Dagster's environment: ``python tour.py DIRECTORY``. It works on a copy of its own below the temporary
directory, starts Dagster's web server and daemon on this host alone, and ends all that it started.

1. The job runs, and all is well but for one audit, which does not block.
2. A day later the payment provider sends a payment twice. ``stg_payments`` fails an audit, and what reads it is skipped.

Each picture is of a page that shows what is expected: its texts are waited for, and the tour fails if they do not come. With ``--texts``
what the pages say is written beside the pictures.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Error, Page, sync_playwright

SHOP = Path(__file__).parent
ROOT = SHOP.parents[1]
MODULE = "shop_dagster.definitions"
COLORS = 256
STARTS_SECONDS = 240
RUN_SECONDS = 180
PAGE_SECONDS = 60
SETTLES_SECONDS = 6
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FAILED = ("FAILURE", "CANCELED")


class TourError(Exception):
    """The tour cannot go on; the message says why."""


@dataclass(frozen=True)
class Picture:
    """A picture, and what its page has to show.

    Attributes:
        name: of the file, without its ending.
        path: of the page; ``{good}`` and ``{failed}`` are the ids of the two runs.
        shows: texts that are on it.
        clicks: texts to click on, one after the other.
        filter: what to look for in a run's log.
        expand: show all groups of the graph.
        size: of the page, width and height.
    """

    name: str
    path: str
    shows: Sequence[str]
    clicks: Sequence[str] = ()
    filter: str = ""
    expand: bool = False
    size: tuple[int, int] = (1440, 860)


WITH_WRONG_PAYMENTS = (
    Picture(
        "failed-run",
        "/runs/{failed}",
        ["shop.staging.stg_payments failed its audits: unique_values."],
        filter="shop.staging.stg_payments",
    ),
    Picture(
        "failed-check",
        "/assets/shop/staging/stg_payments?view=checks",
        ["sqlmesh_execution_status", "not_null_paid_at", "1 row failed.", "columns := (payment_id)"],
        clicks=["unique_values"],
    ),
    Picture(
        "skipped-model",
        "/assets/shop/marts/order_payments?view=checks",
        ["Skipped. Upstream shop.staging.stg_payments failed.", "upstream_failed", "blocked_by"],
        clicks=["sqlmesh_execution_status"],
    ),
)
ON_A_GOOD_DAY = (
    Picture(
        "asset-graph",
        "/asset-groups",
        ["stg_payments", "order_payments", "revenue_report", "customer_segments"],
        expand=True,
        size=(1300, 1200),
    ),
    Picture(
        "model-checks",
        "/assets/shop/marts/order_payments?view=checks",
        ["amount_is_positive", "unique_values", "sqlmesh_execution_status", "1 row failed."],
        clicks=["orders_have_a_payment"],
    ),
    Picture(
        "model",
        "/assets/shop/marts/order_payments",
        ["What remains to be paid, in euros.", "finance@example.com", "SQLMesh"],
    ),
    Picture(
        "lineage",
        "/assets/shop/marts/order_payments?view=lineage",
        ["stg_payments", "revenue_report", "Nearest Neighbors"],
    ),
    Picture(
        "run",
        "/runs/{good}",
        ["warehouse", "orders_have_a_payment", "failing_rows"],
        filter="order_payments",
    ),
    Picture(
        "schedule",
        "/locations/shop_dagster.definitions/schedules/warehouse_schedule",
        ["Nothing is due; the next model is due at"],
        clicks=["Preview tick result", "Continue"],
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Take pictures of the shop in Dagster's web UI.")
    parser.add_argument("directory", type=Path, help="where the pictures go")
    parser.add_argument("--texts", action="store_true", help="write what the pages say beside the pictures")
    arguments = parser.parse_args()
    directory: Path = arguments.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        executable = chromium()
        with tempfile.TemporaryDirectory(prefix="shop-tour-") as work:
            take_all(Path(work), executable, directory, with_texts=arguments.texts)
    except (TourError, Error) as error:  # Playwright's errors say what was waited for
        print(error, file=sys.stderr)
        return 1
    return 0


def chromium() -> str:
    """The browser of this host."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        raise TourError("There is no Chromium on this host: install it (Debian: apt-get install chromium).")
    return found


def take_all(work: Path, executable: str, directory: Path, *, with_texts: bool) -> None:
    env = environment(work)
    payments = Path(env["SHOP_PAYMENTS"])
    shutil.copyfile(SHOP / "data" / "payments.csv", payments)
    say("planning the shop")
    run(["make", "--no-print-directory", "demo-plan", f"DEMO_DIR={work}"], env)
    with contextlib.ExitStack() as stack:
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=executable, args=[*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        )
        stack.callback(browser.close)
        ui = Dagster(stack.enter_context(services(work, env)))
        say("the job, on a good day")
        runs = {"good": ui.run("shop")}
        for picture in ON_A_GOOD_DAY:
            take(browser, ui.url, picture, runs, directory, with_texts=with_texts)
        say("a day later, with a payment that comes twice")
        lines = payments.read_text().splitlines()
        payments.write_text("\n".join([*lines, lines[-1]]) + "\n")
        tomorrow = datetime.now(timezone.utc).date() + timedelta(days=1)
        runs["failed"] = ui.run("shop", {"warehouse": {"config": {"execution_time": str(tomorrow)}}})
        for picture in WITH_WRONG_PAYMENTS:
            take(browser, ui.url, picture, runs, directory, with_texts=with_texts)


def environment(work: Path) -> dict[str, str]:
    """As `make demo` has it, in a directory of the tour's own."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "DAGSTER_"))},
        "SHOP_DATABASE": str(work / "shop.duckdb"),
        "SHOP_REPORTS": str(work),
        "SHOP_MANIFEST": str(work / "sqlmesh_manifest.json"),
        "SHOP_PAYMENTS": str(work / "payments.csv"),
        "SHOP_RUNNER": os.environ.get("SHOP_RUNNER", str(ROOT / ".venv-runner" / "bin" / "sqlmesh-runner")),
        "DAGSTER_HOME": str(work / "dagster_home"),
        "PYTHONPATH": str(SHOP),
    }


def run(command: Sequence[str], env: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=STARTS_SECONDS, check=False
    )
    if done.returncode != 0:
        raise TourError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def services(work: Path, env: Mapping[str, str]) -> Iterator[str]:
    """Dagster's web server and daemon, until the end; gives the server's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bin_dir = Path(sys.executable).parent
    commands: Sequence[Sequence[str | Path]] = (
        [bin_dir / "dagster-webserver", "-m", MODULE, "-h", "127.0.0.1", "-p", str(port)],
        [bin_dir / "dagster-daemon", "run", "-m", MODULE],
    )
    with contextlib.ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((work / f"{Path(command[0]).name}.log").open("wb"))
            # In a group of its own: servers of the code location belong to it, and runs.
            process = subprocess.Popen(
                list(map(str, command)), cwd=SHOP, env=env, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(end, process)
        yield f"http://127.0.0.1:{port}"


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=15)


class Dagster:
    """A deployment on this host, by its web server: what its UI does when somebody clicks."""

    def __init__(self, url: str) -> None:
        self.url = url
        deadline = time.monotonic() + STARTS_SECONDS
        while (repository := self._first_repository()) is None:
            if time.monotonic() > deadline:
                raise TourError(f"Dagster's web server does not answer in {STARTS_SECONDS} s.")
            time.sleep(0.5)
        self._repository = {
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
        }

    def _first_repository(self) -> dict[str, Any] | None:
        """None while the server does not listen, or has not loaded the definitions."""
        query = "{found: repositoriesOrError {... on RepositoryConnection {nodes {name location {name}}}}}"
        with contextlib.suppress(OSError):
            return next(iter(self._ask(query)["found"].get("nodes", [])), None)
        return None

    def run(self, job: str, ops: Mapping[str, Any] | None = None) -> str:
        """Run a job to its end, with settings of its ops; returns the run's id."""
        params = {
            "selector": {**self._repository, "pipelineName": job},
            "mode": "default",
            "runConfigData": {"ops": ops or {}},
        }
        mutation = (
            "mutation ($params: ExecutionParams!) {launched: launchRun(executionParams: $params) "
            "{__typename ... on LaunchRunSuccess {run {id}} ... on Error {message}}}"
        )
        answer = self._ask(mutation, params=params)["launched"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise TourError(f"Dagster does not launch a run: {answer}")
        run_id = str(answer["run"]["id"])
        deadline = time.monotonic() + RUN_SECONDS
        question = "query ($id: ID!) {run: runOrError(runId: $id) {... on Run {status}}}"
        while (status := self._ask(question, id=run_id)["run"]["status"]) not in ("SUCCESS", *FAILED):
            if time.monotonic() > deadline:
                raise TourError(f"The run {run_id} has not ended in {RUN_SECONDS} s; it is {status}.")
            time.sleep(0.5)
        return run_id

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
        if "errors" in answer:
            raise TourError(f"Dagster's web server does not understand: {answer['errors']}")
        data: dict[str, Any] = answer["data"]
        return data


def take(
    browser: Browser,
    url: str,
    picture: Picture,
    runs: Mapping[str, str],
    directory: Path,
    *,
    with_texts: bool,
) -> None:
    """One picture, once its page shows all that it is to show."""
    context = browser.new_context(
        viewport={"width": picture.size[0], "height": picture.size[1]},
        color_scheme="light",
        reduced_motion="reduce",
        timezone_id="UTC",
        locale="en-US",
    )
    with contextlib.closing(context):
        page = context.new_page()
        page.set_default_timeout(PAGE_SECONDS * 1000)
        file = directory / f"{picture.name}.png"
        page.goto(url + picture.path.format_map(runs))
        try:
            lead_to(page, picture)
        except Error as error:
            kept = Path(tempfile.gettempdir()) / f"shop-tour-{picture.name}.png"
            page.screenshot(path=kept)
            raise TourError(
                f"{picture.name}: the page does not show what it should, see {kept}. {error}"
            ) from error
        settle(page)
        file.write_bytes(small(page.screenshot(animations="disabled")))
        if with_texts:
            file.with_suffix(".txt").write_text(page.locator("body").inner_text())
    say(f"{file.name}: {file.stat().st_size // 1024} KB")


def lead_to(page: Page, picture: Picture) -> None:
    """Do what leads to what a picture shows, and wait for that."""
    if picture.expand:
        expand(page, picture.size)
    for text in picture.clicks:
        shown(page, text).click()
    if picture.filter:
        page.get_by_placeholder("Filter…").fill(picture.filter)
    for text in picture.shows:
        shown(page, text).wait_for()


def shown(page: Page, text: str) -> Any:
    """The first place where a text is seen: Dagster measures texts in hidden ones."""
    return page.get_by_text(text).filter(visible=True).first


def expand(page: Page, size: tuple[int, int]) -> None:
    shown(page, "reporting").wait_for()
    settle(page)
    page.mouse.click(size[0] * 0.7, size[1] * 0.8, button="right")
    shown(page, "Expand all groups").click()
    shown(page, "stg_payments").wait_for()
    shown(page, "Hide navigation").click()
    page.reload()  # the graph then fits the page


def settle(page: Page) -> None:
    """Wait until nothing moves: two looks at the page, half a second apart, are the same."""
    page.mouse.move(0, 0)
    deadline = time.monotonic() + SETTLES_SECONDS
    before, now = b"", page.screenshot(animations="disabled")
    while before != now:
        if time.monotonic() > deadline:
            return  # something ticks; what is to be seen is there
        time.sleep(0.5)
        before, now = now, page.screenshot(animations="disabled")


def small(png: bytes) -> bytes:
    """With a palette: a third of the size, and no difference to be seen."""
    palette = (
        Image.open(BytesIO(png))
        .convert("RGB")
        .quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    file = BytesIO()
    palette.save(file, "PNG", optimize=True)
    return file.getvalue()


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
