"""What the orchestrator asks of a runner beyond its command line: the extras of the Pipes context.

The command line carries what a person would type. The selection does not fit there: it may name thousands of models, and
an argument list is limited. A whole project is asked for without naming any model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from sqlmesh_pipes_protocol import shapes
from sqlmesh_pipes_protocol.version import PROTOCOL_VERSION, check_version

EXTRAS_KEY = "sqlmesh_pipes"


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The orchestrator's request.

    Attributes:
        run_id: to be put on every event.
        models: FQNs of the models to run, exactly these; None for all that is deployed.
        include_upstream: run what the named models read as well.
        v: the protocol version that the orchestrator speaks.
    """

    run_id: str
    models: tuple[str, ...] | None = None
    include_upstream: bool = False
    v: str = PROTOCOL_VERSION

    def to_extras(self) -> dict[str, object]:
        """As extras of a Pipes context."""
        models = None if self.models is None else list(self.models)
        return {EXTRAS_KEY: {**dataclasses.asdict(self), "models": models}}

    @staticmethod
    def run_id_in(extras: Mapping[str, object]) -> str | None:
        """The run's id in a request of whatever version: what is answered must carry it."""
        value = extras.get(EXTRAS_KEY)
        run_id = value.get("run_id") if isinstance(value, dict) else None
        return run_id if isinstance(run_id, str) else None

    @classmethod
    def from_extras(cls, extras: Mapping[str, object]) -> RunRequest | None:
        """The request in a Pipes context; None where the launcher is not this project's orchestrator.

        Raises:
            DecodeError: the request has another shape.
            VersionMismatchError: the orchestrator speaks another protocol major.
        """
        value = extras.get(EXTRAS_KEY)
        if value is None:
            return None
        if isinstance(value, dict):
            check_version(value.get("v"), path=f"$.extras.{EXTRAS_KEY}.v", subject="orchestrator")
        return shapes.read(cls, value, f"$.extras.{EXTRAS_KEY}")
