"""The resource that asset functions use to run SQLMesh.

Annotations are not postponed here: Dagster reads them when the class is made.
"""

import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr

from dagster_sqlmesh_pipes.compat import parent_runs, read_by_other_steps
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers import Launcher, RunnerCall, SubprocessLauncher, answer
from dagster_sqlmesh_pipes.mapping import Result, ResultMapper
from dagster_sqlmesh_pipes.partitions import PartitionedRun
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.session import Session
from dagster_sqlmesh_pipes.specs import MODEL_COUNT_TAG, MODEL_KEY, SpecIndex
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator
from sqlmesh_pipes_protocol.events import Timestamp
from sqlmesh_pipes_protocol.reconcile import ReconcileReport, read_reconcile_report
from sqlmesh_pipes_protocol.request import RunRequest

_RUN_ENDS_SECONDS = 120.0
"""How long a runner may go on whose step worker has died."""
_ANSWER_SECONDS = 120.0
"""How long the state may take to say what was recorded; a pod has to start for it."""


class SQLMeshRunConfig(dg.Config):
    """What one run is to do; an asset function that takes it offers it in Dagster's launchpad."""

    start: str | None = Field(
        default=None, description="Start of the interval to run: 2026-01-31, '1 week ago' …"
    )
    end: str | None = Field(default=None, description="End of the interval to run.")
    execution_time: str | None = Field(default=None, description="What counts as now.")
    ignore_cron: bool = Field(
        default=False, description="Run all missing intervals, whether a cron has elapsed or not."
    )


class SQLMeshResource(dg.ConfigurableResource[Any]):
    """Runs SQLMesh out of process.

    Make it from a project, ``SQLMeshResource(project)``, or from the single values. The launcher says how and where the
    runner is started; by default as ``sqlmesh-runner`` from the PATH, on this host.
    """

    project_dirs: list[str] = Field(
        description="The SQLMesh project's directory, where the runner sees it; several for a multi-repository project."
    )
    gateway: str | None = Field(default=None, description="A gateway of the project; None for its default.")
    environment: str = Field(default="prod", description="The SQLMesh environment to run.")
    config: str | None = Field(default=None, description="Name of a config object in config.py.")
    ignore_cron: bool = Field(
        default=False, description="Run all missing intervals, whether a cron has elapsed or not."
    )
    skip_janitor: bool = Field(
        default=False, description="Do not clean up expired environments and snapshots."
    )
    skips_pass: bool = Field(
        default=False,
        description="Let `sqlmesh_execution_status` pass for models that were skipped because nothing was to do.",
    )
    concurrency_limit: int | None = Field(
        default=None,
        ge=1,
        description="How many models SQLMesh evaluates at once; by default as its connection says.",
    )
    launcher: dg.ResourceDependency[Launcher]
    """Starts the runner; by default the project's launcher, or else `SubprocessLauncher()`."""

    _sessions: list[Session] = PrivateAttr(default_factory=list)
    _project: SQLMeshProject | None = PrivateAttr(default=None)
    _translator: SQLMeshTranslator | None = PrivateAttr(default=None)

    def __init__(
        self,
        project: SQLMeshProject | None = None,
        *,
        project_dir: str | Path | None = None,
        launcher: Launcher | None = None,
        translator: SQLMeshTranslator | None = None,
        **settings: Any,
    ) -> None:
        """Make the resource of a project, or of single values.

        Args:
            project: gives directories, gateway, environment and launcher where they are not given here.
            project_dir: instead of a project: where it is.
            launcher: starts the runner.
            translator: for the factories that make assets of this resource.
            settings: the fields of this class.
        """
        if project is not None:
            settings.setdefault("project_dirs", [str(path) for path in project.project_dirs])
            settings.setdefault("gateway", project.gateway)
            settings.setdefault("environment", project.environment)
        elif project_dir is not None:
            settings.setdefault("project_dirs", [str(Path(project_dir).absolute())])
        unknown = settings.keys() - type(self).model_fields.keys()
        if unknown:
            raise TypeError(
                f"SQLMeshResource has no setting {', '.join(map(repr, sorted(unknown)))}: it has "
                f"{', '.join(sorted(type(self).model_fields))}, project, project_dir and translator."
            )
        settings["launcher"] = launcher or (project.launcher if project else SubprocessLauncher())
        super().__init__(**{name: value for name, value in settings.items() if value is not None})
        self._project = project
        self._translator = translator

    @property
    def project(self) -> SQLMeshProject:
        """The project that it was made from, or one made of its values."""
        if self._project is None:
            self._project = SQLMeshProject(
                self.project_dirs, gateway=self.gateway, environment=self.environment, launcher=self.launcher
            )
        return self._project

    @property
    def translator(self) -> SQLMeshTranslator:
        """How its models look in Dagster."""
        return self._translator or SQLMeshTranslator()

    def run(
        self,
        context: dg.AssetExecutionContext,
        *,
        config: SQLMeshRunConfig | None = None,
        include_upstream: bool = False,
        message_reader: dg.PipesMessageReader | None = None,
        context_injector: dg.PipesContextInjector | None = None,
    ) -> Iterator[Result]:
        """Run the assets that Dagster selected, and yield their results while SQLMesh runs.

        Args:
            context: of a function made an asset with `sqlmesh_assets`.
            config: what to run, where SQLMesh is not to decide: the run config of the asset function, or one made by hand.
            include_upstream: run what the selected models read as well. Dagster takes no results for assets that it did not
                select: those go to its event log directly.
            message_reader: a Pipes message reader to take the place of the default one.
            context_injector: a Pipes context injector to take the place of the launcher's.

        Yields:
            A `dagster.MaterializeResult` with check results for each model that ran, check results alone for one that was
            skipped or failed, each as soon as it is known.

        Raises:
            dagster.Failure: after all results: a model failed, the run did, or the runner died. Retries are allowed if trying
                again can help.
        """
        definition = context.assets_def
        index = SpecIndex.of(definition.specs, definition.check_specs)
        selected = context.selected_asset_keys
        models = [fqn for fqn, key in index.keys.items() if key in selected]
        if not models:
            raise dg.Failure(
                "SQLMesh evaluates an audit when it runs the audit's model: to have a check evaluated, materialize its asset.",
                allow_retries=False,
            )
        config = config or SQLMeshRunConfig()
        partitions = PartitionedRun.of(context)
        if partitions is not None:
            start, end = partitions.range
            config = config.model_copy(update={"start": start, "end": end})
        limited = config.start or config.end or config.execution_time
        try:
            arguments = self._arguments(config)
        except LaunchError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        whole = str(len(models)) == context.op_def.tags.get(MODEL_COUNT_TAG)
        read_elsewhere, awaited = read_by_other_steps(context, MODEL_KEY)
        session = Session(
            context,
            self.launcher,
            RunnerCall(
                arguments=arguments,
                env={},
                project_dir=Path(self.project_dirs[0]),
            ),
            RunRequest(
                run_id=str(uuid.uuid4()),
                models=None if whole else tuple(models),
                include_upstream=include_upstream,
            ),
            ResultMapper(
                index,
                selected,
                context.selected_asset_check_keys,
                _materialized_by_earlier_attempts(context),
                tell_all=include_upstream,
                skips_pass=self.skips_pass,
                partitions=partitions,
                as_of=None if limited else datetime.now(timezone.utc),
                awaited=awaited,
                read_elsewhere=read_elsewhere,
            ),
            self._recorded_since,
            message_reader,
            context_injector,
        )
        self._sessions.append(session)
        yield from session.results()

    def due_arguments(self) -> list[str]:
        """Of the ``sqlmesh-runner`` that says what is due in the environment.

        Raises:
            LaunchError: the environment's name cannot be one.
        """
        return [*self._command("due"), "--format", "json"]

    def _recorded_since(self, since: Timestamp) -> ReconcileReport:
        """What SQLMesh has recorded in the environment since a time.

        Raises:
            LaunchError: the runner cannot be started, or cannot say.
            ProtocolError: its answer cannot be read.
        """
        arguments = [*self._command("reconcile"), "--since", since]
        # A runner whose step worker died may still be ending.
        wait = max(_RUN_ENDS_SECONDS, self.launcher.grace_period_seconds + 60)
        arguments += ["--wait-for-run", f"{wait:g}", "--format", "json"]
        call = RunnerCall(arguments=arguments, env={}, project_dir=self.project.project_dir)
        return read_reconcile_report(answer(self.launcher, call, wait + _ANSWER_SECONDS))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End what still runs: Dagster does not resume an asset function that it interrupted between two results."""
        for session in self._sessions:
            session.close()

    def _arguments(self, config: SQLMeshRunConfig) -> list[str]:
        arguments = self._command("run")
        named = {"start": config.start, "end": config.end, "execution-time": config.execution_time}
        for name, value in named.items():
            if value is not None:
                arguments += [f"--{name}", value]
        if self.ignore_cron or config.ignore_cron:
            arguments.append("--ignore-cron")
        if self.skip_janitor:
            arguments.append("--skip-janitor")
        if self.concurrency_limit is not None:
            arguments += ["--concurrent-tasks", str(self.concurrency_limit)]
        arguments += ["--grace-period", f"{max(self.launcher.grace_period_seconds - 5, 1):g}"]
        return arguments

    def _command(self, name: str) -> list[str]:
        if self.environment.startswith("-"):
            raise LaunchError(
                f"A SQLMesh environment cannot be called {self.environment!r}: the runner would take it for an option."
            )
        arguments = [name, self.environment]
        for directory in self.project_dirs:
            arguments += ["--project", directory]
        for name, value in {"gateway": self.gateway, "config": self.config}.items():
            if value is not None:
                arguments += [f"--{name}", value]
        return arguments


def _materialized_by_earlier_attempts(context: dg.AssetExecutionContext) -> set[dg.AssetKey]:
    """What is done already of the work that is tried again, and what SQLMesh then has nothing to do for.

    That is what this run has materialized, on a retry of the step, and what the runs before it have, where Dagster
    re-executes from a failure.
    """
    runs = [*([context.run_id] if context.retry_number else []), *parent_runs(context)]
    return {
        event.asset_key
        for run_id in runs
        for record in context.instance.get_records_for_run(
            run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
        if (event := record.event_log_entry.dagster_event) is not None and event.asset_key is not None
    }
