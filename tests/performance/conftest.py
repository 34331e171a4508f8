import pytest
from benchmarks.places import Place


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("benchmarks"), quick=True)
