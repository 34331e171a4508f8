"""What the runner does beside `sqlmesh run`: counted, for times tell of the machine."""

import gc
import json
import re
import shutil
from collections import Counter

import pytest
from sqlmesh.core.analytics import python_api_analytics
from sqlmesh.core.context import Context

from sqlmesh_pipes_runner.adapter import ReportingContext

from .conftest import CONFIG

SENT = """
    import atexit, json, logging, sys

    sent = []

    class Handler(logging.Handler):
        def emit(self, record):
            if record.msg.startswith("Executing SQL"):
                sent.append(record.getMessage().partition(": ")[2])

    logger = logging.getLogger("sqlmesh.core.engine_adapter.base")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Handler())
    atexit.register(lambda: print("\\n" + json.dumps(sent)))
    program, project = sys.argv[1:]
    if program == "runner":
        from sqlmesh_pipes_runner.cli import main
        main(["run", "prod", "--project", project])
    else:
        from sqlmesh.cli.main import cli
        cli(["--paths", project, "--log-file-dir", f"{project}/logs", "run", "prod"])
    """
RANDOM = re.compile(r"/\* .*? \*/ *|(?<=__temp_)\w+|\b[0-9a-f]{32}\b|\b[0-9]{13}\b")
"""Parts of statements that are others each time: the run's id, names of temporary tables, ids of rows, times."""


@pytest.fixture
def statements(warehouse, tmp_path, python):
    """The statements that a program sends in a run with work and in one with nothing due, from the same state.

    One model at a time, and sets in one order: what is sent would differ from run to run.
    """
    warehouse.write({"config.yaml": CONFIG.replace("concurrent_tasks: 4", "concurrent_tasks: 1")})

    def sent(program):
        database = tmp_path / program / "db.duckdb"
        database.parent.mkdir()
        shutil.copy(warehouse.database, database)
        runs = []
        for _ in range(2):
            done = python(
                SENT,
                program,
                str(warehouse.path),
                env={"RUNNER_TEST_DATABASE": str(database), "PYTHONHASHSEED": "0"},
            )
            assert done.returncode == 0, done.stdout + done.stderr
            statements = json.loads(done.stdout.splitlines()[-1])
            runs.append(Counter(RANDOM.sub("", statement) for statement in statements))
        return runs

    return sent


def test_a_run_sends_sqlmeshs_statements_and_one_look_at_the_environment(statements):
    for ours, plain in zip(statements("runner"), statements("plain"), strict=True):
        assert list(plain - ours) == []
        ((extra, times),) = (ours - plain).items()
        assert 'FROM "sqlmesh"."_environments"' in extra
        assert times == 1


def test_a_run_imports_nothing_that_it_does_not_use(warehouse, python):
    done = python(
        """
        import atexit, sys
        from sqlmesh_pipes_runner.cli import main
        spared = ("IPython", "sqlmesh.magics", "sqlmesh.cli.main", "sqlmesh_pipes_runner.reports", "sqlmesh_pipes_runner.live",
                  "sqlmesh_pipes_runner.manifest", "sqlmesh_pipes_runner.doctor", "sqlmesh_pipes_runner.reconcile")
        atexit.register(lambda: print([name for name in spared if name in sys.modules]))
        main(["run", "prod", "--project", sys.argv[1]])
        """,
        str(warehouse.path),
        env={"RUNNER_TEST_DATABASE": str(warehouse.database)},
    )

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_sqlmesh_wraps_its_run_in_its_analytics_alone():
    assert Context.run.__wrapped__ is ReportingContext.run
    assert Context.run.__code__ is python_api_analytics(lambda: None).__code__


def test_a_process_of_the_runners_own_collects_again_when_models_run_and_leaves_alone_what_is_loaded(
    warehouse, python
):
    warehouse.write(
        {
            "models/doubled.py": (warehouse.path / "models/doubled.py")
            .read_text()
            .replace("import typing as t", "import gc\nimport typing as t")
            .replace('print("a model prints")', 'print(f"collects: {gc.isenabled()}")')
        }
    )
    warehouse.plan()

    done = python(
        """
        import atexit, gc, sys
        from sqlmesh_pipes_runner.cli import main
        atexit.register(lambda: print(gc.get_freeze_count() > 100_000))
        main(["run", "prod", "--project", sys.argv[1]])
        """,
        str(warehouse.path),
        env={"RUNNER_TEST_DATABASE": str(warehouse.database)},
    )

    assert done.returncode == 0, done.stderr
    assert "collects: True" in done.stdout
    assert done.stdout.splitlines()[-1] == "True"


def test_in_a_process_of_somebody_elses_a_run_leaves_the_collector_as_it_was(warehouse):
    before = gc.isenabled(), gc.get_freeze_count()

    result, _ = warehouse.run()

    assert result.exit_code == 0
    assert (gc.isenabled(), gc.get_freeze_count()) == before
