"""Object stores by which Dagster's message readers and context injectors hand things over, and how they are reached.

What they hand over does not say which store it is of: a bucket may be of Amazon, Google or Azure. So the runner is told, by
``--pipes``. A store's driver is imported when it is asked for: the runner needs none otherwise. Read against dagster-pipes 1.13.27.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from dagster_pipes import (
    DagsterPipesError,
    PipesAzureBlobStorageContextLoader,
    PipesAzureBlobStorageMessageWriter,
    PipesBlobStoreMessageWriter,
    PipesContextLoader,
    PipesDbfsContextLoader,
    PipesDbfsMessageWriter,
    PipesDefaultContextLoader,
    PipesGCSContextLoader,
    PipesGCSMessageWriter,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    PipesUnityCatalogVolumesMessageWriter,
)

from sqlmesh_pipes_runner.errors import EXIT_INFRASTRUCTURE, StoreError
from sqlmesh_pipes_runner.secrets import Masker

_CONNECT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Store:
    """A kind of object store.

    Attributes:
        name: as ``--pipes`` takes it.
        parameter: by which its readers and injectors are known.
        scheme: of its places, for messages.
        driver: the distribution to install for it; empty for what is a folder.
        connect: makes the driver's client; None for what is a folder.
        loader: of Dagster, from the client.
        writer: of Dagster, from the client.
        look: asks the store for a bucket, and raises what the driver does if there is none.
        folder: where a path is, of a store that is a folder.
    """

    name: str
    parameter: str
    scheme: str
    driver: str = ""
    connect: Callable[[], Any] = lambda: None
    loader: Callable[[Any], PipesContextLoader]
    writer: Callable[[Any], PipesBlobStoreMessageWriter[Any]]
    look: Callable[[Any, str], object] = lambda client, path: Path(path).stat()

    folder: Callable[[str], Path] | None = None

    def uploader(
        self, writer: PipesBlobStoreMessageWriter[Any], params: Mapping[str, Any]
    ) -> Callable[[str, int], None]:
        """What puts an object there, of its text and its number: whole or not at all."""
        if self.folder is not None:
            folder = self.folder(params[self.parameter])
            return lambda text, number: _put(folder / f"{number}.json", text)
        channel = writer.make_channel(params)
        return lambda text, number: channel.upload_messages_chunk(StringIO(text), number)

    def place(self, params: Mapping[str, object]) -> str:
        """Where parameters point to, for messages."""
        parts = [params.get(self.parameter), params.get("key_prefix") or params.get("key")]
        return self.scheme + "/".join(str(part) for part in parts if part)

    def client(self) -> Any:
        """The driver's client, configured by the driver's own variables.

        Raises:
            StoreError: the driver is not installed, or knows too little.
        """
        try:
            return self.connect()
        except ModuleNotFoundError as error:
            raise StoreError(
                f"--pipes {self.name} needs a package that is not installed ({error.name}).",
                f"Install it in the runner's environment: pip install {self.driver}",
            ) from error
        except StoreError:
            raise
        except Exception as error:  # of any driver, told in a sentence
            raise StoreError(
                f"There is no client for --pipes {self.name}: {sentence(error)}",
                "Give the runner's environment what the driver asks for.",
            ) from error

    def context_loader(self) -> PipesContextLoader:
        return self.loader(self.client())

    def message_writer(self) -> PipesBlobStoreMessageWriter[Any]:
        return self.writer(self.client())


def _s3() -> Any:
    import boto3  # type: ignore[import-not-found, import-untyped, unused-ignore]  # a driver, if installed
    from botocore.config import (  # type: ignore[import-not-found, import-untyped, unused-ignore]  # with it
        Config,
    )

    return boto3.client(
        "s3", config=Config(connect_timeout=_CONNECT_SECONDS, retries={"mode": "standard", "max_attempts": 3})
    )


def _gcs() -> Any:
    from google.cloud import (  # type: ignore[attr-defined, import-not-found, import-untyped, unused-ignore]  # a driver, if installed
        storage,
    )

    return storage.Client()


def _azure() -> Any:
    from azure.storage.blob import (  # type: ignore[import-not-found, import-untyped, unused-ignore]  # a driver, if installed
        BlobServiceClient,
    )

    connection = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    if connection:
        return BlobServiceClient.from_connection_string(connection, connection_timeout=_CONNECT_SECONDS)
    account = os.environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise StoreError(
            "--pipes azure needs an account.",
            "Set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT for the identity that the runner has.",
        )
    from azure.identity import (  # type: ignore[import-not-found, import-untyped, unused-ignore]  # a driver, if installed
        DefaultAzureCredential,
    )

    return BlobServiceClient(
        f"https://{account}.blob.core.windows.net",
        credential=DefaultAzureCredential(),
        connection_timeout=_CONNECT_SECONDS,
    )


STORES: Mapping[str, Store] = {
    store.name: store
    for store in (
        Store(
            name="s3",
            parameter="bucket",
            scheme="s3://",
            driver="boto3",
            connect=_s3,
            loader=PipesS3ContextLoader,
            writer=PipesS3MessageWriter,
            look=lambda client, bucket: client.head_bucket(Bucket=bucket),
        ),
        Store(
            name="gcs",
            parameter="bucket",
            scheme="gs://",
            driver="google-cloud-storage",
            connect=_gcs,
            loader=PipesGCSContextLoader,
            writer=PipesGCSMessageWriter,
            look=lambda client, bucket: client.get_bucket(bucket),
        ),
        Store(
            name="azure",
            parameter="bucket",
            scheme="azure://",
            driver="azure-storage-blob azure-identity",
            connect=_azure,
            loader=PipesAzureBlobStorageContextLoader,
            writer=PipesAzureBlobStorageMessageWriter,
            look=lambda client, bucket: client.get_container_client(bucket).get_container_properties(),
        ),
        Store(
            name="dbfs",
            parameter="path",
            scheme="dbfs:",
            loader=lambda client: PipesDbfsContextLoader(),
            writer=lambda client: PipesDbfsMessageWriter(),
            look=lambda client, path: _mounted(path).stat(),
            folder=lambda path: _mounted(path),
        ),
        Store(
            name="volumes",
            parameter="path",
            scheme="",
            loader=lambda client: PipesDefaultContextLoader(),
            writer=lambda client: PipesUnityCatalogVolumesMessageWriter(),
            folder=Path,
        ),
    )
}
"""By name. ``volumes`` are Databricks' Unity Catalog volumes, and any folder that both sides see."""


def _mounted(path: str) -> Path:
    return Path("/dbfs", path.lstrip("/"))


def _put(file: Path, text: str) -> None:
    """A file that a reader never sees half of, where the file system can rename."""
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    try:
        partial.replace(file)
    except OSError:
        file.write_text(text, encoding="utf-8")
        partial.unlink()


@contextmanager
def reached(doing: str) -> Iterator[None]:
    """Raise a StoreError for whatever a store's driver raises.

    Args:
        doing: what was not possible: ``Messages cannot be written to s3://warehouse``.
    """
    try:
        yield
    except Exception as error:  # of any driver, told in a sentence
        raise StoreError(
            f"{doing}: {sentence(error)}",
            "See whether the store can be reached from where the runner is, and what its credentials allow.",
            EXIT_INFRASTRUCTURE,
        ) from error


def store_of(params: Mapping[str, object], names: Sequence[str]) -> Store | None:
    """The store that parameters of Dagster's are for; None where they are for none.

    Args:
        params: what a message reader or context injector hands over.
        names: the stores that the runner was told of; at most one is meant by a bucket, and one by a path.

    Raises:
        StoreError: they name a bucket, and it is not known of which store.
    """
    parameter = next((name for name in ("bucket", "path") if isinstance(params.get(name), str)), None)
    told = [name for name in dict.fromkeys(names) if STORES[name].parameter == parameter]
    if parameter == "bucket" and len(told) != 1:
        of_buckets = ", ".join(name for name, store in STORES.items() if store.parameter == "bucket")
        raise StoreError(
            f"Dagster hands over by way of a bucket ({params['bucket']}), and it is not said of which store.",
            f"Give one of --pipes {of_buckets}, or set SQLMESH_RUNNER_PIPES to it.",
        )
    if len(told) > 1:
        raise StoreError(
            f"Dagster hands over by way of one path, and --pipes says {' and '.join(told)}.", "Give one."
        )
    return STORES[told[0]] if told else None


def sentence(error: BaseException) -> str:
    """What a driver's error says in its first line, without credentials."""
    said = str(error).strip().partition("\n")[0].strip() or type(error).__name__
    if not isinstance(error, (OSError, DagsterPipesError)):
        said = f"{type(error).__name__}: {said}"
    return Masker().text(said if said.endswith(".") else f"{said}.")
