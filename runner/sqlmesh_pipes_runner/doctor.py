"""Whether everything is in place for a run: one check after the other, each with what was found and what to do.

Everything is read and nothing written: no state is made or migrated, no file created, no message sent to Dagster. SQLMesh is
imported by the checks that need it, so that the others can be told where it is missing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlmesh_pipes_protocol.errors import ManifestError
from sqlmesh_pipes_protocol.events import ErrorInfo
from sqlmesh_pipes_protocol.manifest import DEFAULT_MANIFEST_NAME, load_manifest, staleness
from sqlmesh_pipes_protocol.spans import moment
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION
from sqlmesh_pipes_runner.checks import CannotTellError, Check, NotOkError
from sqlmesh_pipes_runner.errors import (
    EXIT_FAILED,
    EXIT_INFRASTRUCTURE,
    EXIT_USAGE,
    InstallationError,
    RunnerError,
    UsageError,
)
from sqlmesh_pipes_runner.installation import DISTRIBUTION, check_sqlmesh
from sqlmesh_pipes_runner.options import RunOptions
from sqlmesh_pipes_runner.run import check_project, run_error
from sqlmesh_pipes_runner.secrets import Masker
from sqlmesh_pipes_runner.spelling import counted

if TYPE_CHECKING:
    from sqlmesh_pipes_runner.adapter.inspection import InspectingContext, Role

T = TypeVar("T")
_LOGGER = logging.getLogger(__name__)


class Doctor:
    """Examines a project, its connections and its state.

    Args:
        options: the project, its gateway and environment.
        timeout: seconds that each check may take which waits for others; then it is not ok.
        manifest: where it has to be; by default it is looked at where it usually is, and may be missing.
        variables: of the process.
        store_names: the stores that Dagster hands over by.

    Attributes:
        hangs: whether a check has not come back yet. The process then has to be ended, not waited for.
    """

    def __init__(
        self,
        options: RunOptions,
        *,
        timeout: float,
        manifest: Path | None = None,
        variables: Mapping[str, str] = os.environ,
        store_names: Sequence[str] = (),
    ) -> None:
        self._options = options
        self._timeout = timeout
        self._manifest_path = manifest
        self._variables = variables
        self._store_names = store_names
        self._masker = Masker()
        self._context: InspectingContext | None = None
        self._held: set[Role] = set()
        self._causes: dict[str, str] = {}
        self.hangs = False

    def checks(self) -> Iterator[Check]:
        """Make the checks, one after the other, and tell each when it is made."""
        steps: tuple[tuple[str, tuple[str, ...], Callable[[], str]], ...] = (
            ("project", (), self._project),
            ("versions", (), self._versions),
            ("configuration", ("project", "versions"), self._configuration),
            ("lock", ("configuration",), self._lock),
            ("warehouse", ("configuration",), lambda: self._in_time("warehouse", self._warehouse)),
            ("state", ("configuration",), lambda: self._in_time("state", self._state)),
            ("migration", ("state",), lambda: self._in_time("state", self._migration)),
            ("environment", ("migration",), lambda: self._in_time("state", self._environment)),
            ("manifest", ("project",), self._manifest),
            ("pipes", (), self._pipes),
        )
        try:
            for name, needed, examine in steps:
                yield self._check(name, needed, examine)
        finally:
            self._close()

    def _close(self) -> None:
        if self._context is None or self.hangs:
            return
        try:
            self._context.close()
        except Exception as error:  # noqa: BLE001 - of any driver; what there is to know has been told
            _LOGGER.info("A connection did not close: %s", self._masker.text(_sentence(error)))

    def _check(self, name: str, needed: Sequence[str], examine: Callable[[], str]) -> Check:
        try:
            for other in needed:
                if other in self._causes:
                    raise CannotTellError(self._causes[other])
            return Check(name=name, status="ok", found=self._masker.text(examine()))
        except CannotTellError as error:
            self._causes[name] = error.cause
            return Check(name=name, status="unknown", found=f"cannot be told before {error.cause} is ok")
        except NotOkError as error:
            self._causes[name] = name
            return Check(
                name=name,
                status="not_ok",
                found=self._masker.text(error.found),
                advice=self._masker.text(error.advice),
                exit_code=error.exit_code,
            )

    # The checks. Each returns what was found, or raises NotOkError or CannotTellError.

    def _project(self) -> str:
        try:
            for project in self._options.projects:
                check_project(project)
        except UsageError as error:
            found, _, advice = str(error).rpartition("ive the ")
            raise NotOkError(found.rstrip(" :gG"), f"Give the {advice}", EXIT_USAGE) from error
        return ", ".join(str(project.absolute()) for project in self._options.projects)

    def _versions(self) -> str:
        try:
            installed = check_sqlmesh()
        except InstallationError as error:
            raise NotOkError(error.found, error.advice, EXIT_USAGE) from error
        return (
            f"Python {platform.python_version()}, {DISTRIBUTION} {version(DISTRIBUTION)}, protocol {PROTOCOL_VERSION}, "
            f"SQLMesh {installed}"
        )

    def _configuration(self) -> str:
        from sqlmesh_pipes_runner.adapter import load_configs, secrets_of
        from sqlmesh_pipes_runner.adapter.inspection import InspectingContext, says_none, unset_variables

        options = self._options

        def load() -> InspectingContext:
            configs = load_configs(options)
            self._masker = Masker(secrets_of(configs))
            return InspectingContext(options, configs, load=False)

        try:
            context = self._bounded("the configuration", load)
        except RunnerError as error:
            unset = unset_variables(options.projects, None)
            names = (*unset.used, *unset.others)
            advice = _set_them(names) if names else "Mend it, or name another gateway or configuration."
            raise NotOkError(str(error), advice, EXIT_USAGE) from error
        except NotOkError:
            raise
        except Exception as error:  # whatever SQLMesh, or a user's code, raises: told in a sentence
            raise NotOkError(_sentence(error), "Mend the configuration.", EXIT_USAGE) from error
        self._context = context
        unset = unset_variables(options.projects, context.selected_gateway)
        if unset.used and says_none(context):
            raise NotOkError(
                f"The connections of gateway {context.selected_gateway!r} are made of variables without a value: "
                f"{', '.join(unset.used)}. SQLMesh reads None instead.",
                _set_them(unset.used),
                EXIT_USAGE,
            )
        state = context.described("state") if context.has_state_connection else "in the same place"
        found = [
            f"gateway {context.selected_gateway!r}: {context.described('warehouse')}; state: {state}",
            *(f"variables of {path}" for path in self._dotenv_files()),
        ]
        if unset.others:
            found.append(f"without a value, and not used here: {', '.join(unset.others)}")
        return "; ".join(found)

    def _dotenv_files(self) -> list[Path]:
        if self._options.dotenv is not None:
            return [self._options.dotenv]
        return [path for project in self._options.projects if (path := project / ".env").is_file()]

    def _lock(self) -> str:
        from sqlmesh_pipes_runner.adapter.locks import holder_of

        opened = {role: self._connected().database_files(role) for role in self._roles()}
        files = list(dict.fromkeys(file for theirs in opened.values() for file in theirs))
        held = {file: holder for file in files if (holder := holder_of(file)) is not None}
        self._held = {role for role, theirs in opened.items() if held.keys() & set(theirs)}
        for file, holder in held.items():
            raise NotOkError(
                f"The file {file.path} is held by {holder}.",
                "Wait until that has ended, or end it: DuckDB lets one process in at a time.",
                EXIT_INFRASTRUCTURE,
            )
        names = ", ".join(str(file.path) for file in files)
        return f"{names}: held by nobody" if names else "nothing that one process locks for all others"

    def _warehouse(self) -> str:
        return self._reached("warehouse", self._connected().ask_warehouse)

    def _state(self) -> str:
        context = self._connected()
        if not context.has_state_connection and "warehouse" in self._causes:
            raise CannotTellError(self._causes["warehouse"])
        return self._reached("state", context.connect_state)

    def _reached(self, role: Role, connect: Callable[[], object]) -> str:
        context = self._connected()
        if role in self._held:
            raise CannotTellError("lock")
        for file in context.database_files(role):
            if not file.path.exists():
                raise NotOkError(
                    f"There is no DuckDB file {file.path}.",
                    "Mend the path, which counts from the current directory if it is relative; or deploy the project "
                    "first: `sqlmesh plan` makes the file.",
                    EXIT_INFRASTRUCTURE,
                )
        began = time.monotonic()
        try:
            connect()
        except Exception as error:  # of any driver, told in a sentence
            info = run_error(error)
            raise NotOkError(
                f"{context.described(role)}: {_sentence(error)}",
                _CONNECTION_ADVICE.get((info.category, info.transient), _CONNECTION_ADVICE_OTHERWISE),
                _exit_code(info),
            ) from error
        return f"{context.described(role)} answers in {time.monotonic() - began:.1f} s"

    def _migration(self) -> str:
        context = self._connected()
        versions = self._read(context.state_versions)
        if versions.schema == 0:
            raise NotOkError(
                f"There is no SQLMesh state in {context.described('state')}.",
                f"Deploy the project: `sqlmesh plan {context.target_environment}`; or name the gateway that has it.",
                EXIT_USAGE,
            )
        found = f"of SQLMesh {versions.sqlmesh}, SQLGlot {versions.sqlglot}, schema {versions.schema}"
        if not versions.fits:
            here = version("sqlmesh")
            if versions.is_older:
                raise NotOkError(
                    f"The state is {found}, which is older than SQLMesh {here} here.",
                    "Migrate it with `sqlmesh migrate` when all who use it have the new SQLMesh, or install "
                    f"SQLMesh {versions.sqlmesh} here.",
                    EXIT_USAGE,
                )
            raise NotOkError(
                f"The state is {found}, which is newer than SQLMesh {here} here.",
                f"Install SQLMesh {versions.sqlmesh} in the runner's environment.",
                EXIT_USAGE,
            )
        return found

    def _environment(self) -> str:
        from sqlmesh_pipes_runner.adapter.inspection import runnable

        context = self._connected()
        name = context.target_environment
        try:
            environment = self._read(context.deployed_environment)
        except UsageError as error:
            found, _, advice = str(error).partition(": create it")
            raise NotOkError(f"{found}.", f"Create it{advice}", EXIT_USAGE) from error
        models = runnable(environment)
        if environment.expired:
            raise NotOkError(
                f"The environment {name!r} expired at {moment(environment.expiration_ts or 0)}: SQLMesh's janitor removes it.",
                f"Plan it anew: `sqlmesh plan {name}`.",
                EXIT_USAGE,
            )
        if environment.finalized_ts is None:
            raise NotOkError(
                f"The environment {name!r} is being changed by the plan {environment.plan_id}: a run waits for it.",
                f"Wait until the plan is applied; if it broke off, apply it again: `sqlmesh plan {name}`.",
                EXIT_INFRASTRUCTURE,
            )
        if not models:
            raise NotOkError(
                f"There is no model in the environment {name!r}.",
                f"Deploy some: `sqlmesh plan {name}`.",
                EXIT_USAGE,
            )
        expiry = f", expires at {moment(environment.expiration_ts)}" if environment.expiration_ts else ""
        return f"{name!r}: {counted(len(models), 'model')}, finalized at {moment(environment.finalized_ts)}{expiry}"

    def _manifest(self) -> str:
        projects = self._options.projects
        path = self._manifest_path or projects[0] / DEFAULT_MANIFEST_NAME
        if self._manifest_path is None and not path.exists():
            return f"there is none at {path}: only Dagster needs one"
        gateway = self._context.selected_gateway if self._context is not None else self._options.gateway
        try:
            manifest = load_manifest(path, projects, self._options.gateway)
            stale = staleness(manifest, path, projects, gateway or None)
        except ManifestError as error:
            raise _with_advice(str(error), EXIT_USAGE) from error
        except OSError as error:
            raise NotOkError(
                f"{error.filename} cannot be read: {error.strerror}.", "Let the runner read it.", EXIT_USAGE
            ) from error
        if stale is not None:
            raise _with_advice(stale, EXIT_FAILED)
        return f"{path} fits: {counted(len(manifest.models), 'model')}, of {manifest.created_at}"

    def _pipes(self) -> str:
        from sqlmesh_pipes_runner.handover import CONTEXT, MESSAGES, messages_place, request_in

        given = [name for name in (CONTEXT, MESSAGES) if name in self._variables]
        if not given:
            return "not started by Dagster"
        if len(given) == 1:
            raise NotOkError(
                f"Of {CONTEXT} and {MESSAGES}, {given[0]} alone is set: a run would not report to Dagster.",
                "Let the launcher hand over both, or none.",
                EXIT_USAGE,
            )
        request = request_in(self._variables[CONTEXT], self._store_names)
        place = messages_place(self._variables[MESSAGES], self._store_names)
        models = "all models" if request.models is None else counted(len(request.models), "model")
        return f"run {request.run_id} of Dagster, protocol {request.v}, {models}; messages go to {place}"

    # How they are made.

    def _connected(self) -> InspectingContext:
        assert self._context is not None  # noqa: S101 - the configuration is ok: it is asked for first
        return self._context

    def _roles(self) -> tuple[Role, ...]:
        return ("warehouse", "state") if self._connected().has_state_connection else ("warehouse",)

    def _read(self, ask: Callable[[], T]) -> T:
        """Ask the state, which has answered once."""
        try:
            return ask()
        except RunnerError:
            raise
        except Exception as error:  # of any driver, told in a sentence
            info = run_error(error)
            raise NotOkError(
                f"The state cannot be read: {_sentence(error)}",
                "Let the runner's user read SQLMesh's tables; see whether they are whole.",
                _exit_code(info),
            ) from error

    def _in_time(self, role: Role, examine: Callable[[], str]) -> str:
        return self._bounded(f"the {role}", examine)

    def _bounded(self, subject: str, examine: Callable[[], T]) -> T:
        """Make a check in a thread of its own, and do not wait for ever.

        Raises:
            NotOkError: it has not come back in time; whatever it raises otherwise.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(examine())
            except BaseException as error:  # noqa: BLE001 - the thread's boundary; raised again in the main one
                errors.append(error)

        with _nothing_printed():
            thread = threading.Thread(target=work, name="check", daemon=True)
            thread.start()
            thread.join(self._timeout)
        if errors:
            raise errors[0]
        if not results:
            self.hangs = True
            raise NotOkError(
                f"No answer from {subject} within {self._timeout:g} s.",
                "See whether it is overloaded, or behind a firewall that swallows packets; --timeout allows for more time.",
                EXIT_INFRASTRUCTURE,
            )
        return results[0]


_CONNECTION_ADVICE: Mapping[tuple[str, bool], str] = {
    ("connection", True): "See whether the server runs, and whether host and port are right.",
    ("connection", False): "Mend user, password or database of the connection.",
    ("lock", True): "Wait until the other has ended, and try again.",
    ("timeout", True): "See whether the server is overloaded, and try again.",
    ("config", False): "Mend the connection's configuration.",
}
_CONNECTION_ADVICE_OTHERWISE = "Mend what the message says; `sqlmesh info` tries the same connection."


def _exit_code(error: ErrorInfo) -> int:
    return EXIT_USAGE if error.category == "config" else EXIT_INFRASTRUCTURE


def _set_them(names: Sequence[str]) -> str:
    return f"Set {', '.join(names)} in the environment or the project's .env."


def _sentence(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(run_error(error).message.split())


def _with_advice(message: str, exit_code: int) -> NotOkError:
    """A message of the manifest's, which ends with the command that mends it."""
    found, _, command = message.rpartition(" Write it with: ")
    return NotOkError(found, f"Write it with: {command}", exit_code)


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """SQLMesh says nothing, and what a configuration prints goes to standard error."""
    from sqlmesh.core.console import NoopConsole

    from sqlmesh_pipes_runner.adapter import console_replaced
    from sqlmesh_pipes_runner.answers import output_to_stderr

    with output_to_stderr(), contextlib.redirect_stdout(sys.stderr), console_replaced(NoopConsole()):
        yield
