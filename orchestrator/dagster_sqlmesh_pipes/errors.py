"""What can go wrong on Dagster's side before, beside and after a run, one class a cause."""

from __future__ import annotations


class SQLMeshPipesError(Exception):
    """Base of this package's errors; the message is for the user, whole and by itself."""


class LaunchError(SQLMeshPipesError):
    """The runner could not be started.

    Attributes:
        transient: whether starting it again, with nothing changed, can help.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        self.transient = transient
        super().__init__(message)


class DuplicateAssetKeyError(SQLMeshPipesError):
    """Two models got one asset key, or keys that Dagster cannot tell apart.

    Attributes:
        models: FQNs of both.
    """

    def __init__(self, first: str, second: str, key: str) -> None:
        self.models = (first, second)
        super().__init__(
            f"The models {first} and {second} both get the asset key {key}: "
            "give them different keys, by the translator's get_asset_key, a component's translation, or a tag dagster:asset_key:… on a model."
        )


class ExternalAssetKeyError(SQLMeshPipesError):
    """The key of a table that SQLMesh reads and does not build is none, or a model's."""


class SelectionError(SQLMeshPipesError):
    """A selection cannot be read, or selects nothing; the message shows it."""


class PartitionsError(SQLMeshPipesError):
    """Partitions were asked for where there can be none; the message names the model."""


class TranslationError(SQLMeshPipesError):
    """A translator, or a component's translation, gives something for a model that Dagster cannot take.

    Attributes:
        model: its FQN.
    """

    def __init__(self, model: str, problem: object) -> None:
        self.model = model
        super().__init__(f"What the translator gives for the model {model} is no asset: {problem}")
