"""Contexts that know a project's state: what is deployed in an environment, read and never written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlmesh.core.context import Context
from sqlmesh.core.environment import Environment
from sqlmesh.core.state_sync import StateSync

from sqlmesh_pipes_protocol.manifest import DeployedModel, Deployment
from sqlmesh_pipes_protocol.spans import moment
from sqlmesh_pipes_runner.errors import UsageError
from sqlmesh_pipes_runner.options import RunOptions


class StateContext(Context):
    """A SQLMesh context that fails where its state is out of reach, and says which environments there are."""

    def __init__(self, options: RunOptions, configs: Mapping[Path, Any], *, load: bool) -> None:
        self._options = options
        if options.concurrent_tasks is not None:
            # On the connection, not as the context's own setting: SQLMesh sizes pools, and makes its adapters fit for
            # threads, by the connection's.
            config = next(iter(configs.values()))
            gateway = (options.gateway or config.default_gateway_name).lower()
            config.get_connection(gateway).concurrent_tasks = options.concurrent_tasks
        super().__init__(
            paths=[str(path) for path in options.projects],
            config=dict(configs),
            gateway=options.gateway,
            load=load,
        )

    @property
    def target_environment(self) -> str:
        name: str = Environment.sanitize_name(
            self._options.environment or self.config.default_target_environment
        )
        return name

    @property
    def state_connection(self) -> Any:
        """The configuration of the connection to the state."""
        return self._state_connection_config

    def deployed_environment(self) -> Environment:
        """The target environment.

        Raises:
            UsageError: it has never been planned.
        """
        name = self.target_environment
        environment = self.state_reader.get_environment(name)
        if environment is None:
            raise self._no_environment(
                sorted(summary.name for summary in self.state_reader.get_environments_summary())
            )
        return environment

    def close(self) -> None:
        """Release everything, the warehouse's connection too: SQLMesh leaves it open where nothing was evaluated."""
        super().close()
        if self._engine_adapter is not None:
            self._engine_adapter.close()

    def _no_environment(self, known: list[str]) -> UsageError:
        name = self.target_environment
        # A state without any is mostly another one than was meant: a DuckDB path counts from the current directory.
        doubt = "" if known else ", or see with `sqlmesh-runner doctor` where this state is"
        return UsageError(
            f"There is no environment {name!r} in the state of gateway {self.selected_gateway!r} "
            f"(it has {', '.join(known) or 'none'}): create it with `sqlmesh plan {name}`{doubt}."
        )

    def _new_state_sync(self) -> StateSync:
        state_sync = super()._new_state_sync()
        adapter = getattr(state_sync, "engine_adapter", None)
        if adapter is not None:
            # Connected here, where a failure ends the command. SQLMesh swallows the first one where it looks for its state,
            # and then goes on with a DuckDB in memory if the file of a `catalogs` connection is locked.
            _ = adapter.cursor
        return state_sync


class ReadingContext(StateContext):
    """Reads the state and leaves it as it is: SQLMesh's own context would make one where there is none."""

    @property
    def state_sync(self) -> StateSync:
        if self._state_sync is None:
            state_sync = self._new_state_sync()
            try:
                if state_sync.get_versions(validate=False).schema_version == 0:
                    raise self._no_environment([])
                state_sync.get_versions()  # refuses the state of another SQLMesh
            except BaseException:
                state_sync.close()
                raise
            self._state_sync = state_sync
        return self._state_sync

    def deployment(self) -> Deployment:
        """What the target environment holds; external models are left out.

        Raises:
            UsageError: there is no such environment.
        """
        environment = self.deployed_environment()
        finalized = environment.finalized_ts
        return Deployment(
            environment=environment.name,
            finalized_at=None if finalized is None else moment(finalized),
            models={
                snapshot.name: DeployedModel(
                    data_hash=snapshot.fingerprint.data_hash,
                    metadata_hash=snapshot.fingerprint.metadata_hash,
                )
                for snapshot in sorted(environment.snapshots, key=lambda snapshot: snapshot.name)
                if snapshot.is_model and not snapshot.is_external
            },
        )
