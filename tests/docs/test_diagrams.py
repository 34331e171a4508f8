"""The Mermaid diagrams can be parsed by Mermaid."""

from __future__ import annotations

import pytest
from docs.generate.diagrams import Diagram, diagrams, faults, obstacle


@pytest.fixture(autouse=True)
def _mermaid() -> None:
    reason = obstacle()
    if reason is not None:
        pytest.skip(f"{reason}: make docs brings Mermaid where npm is")


def test_every_diagram_can_be_parsed() -> None:
    found = list(diagrams())

    assert found
    assert faults(found) == []


def test_a_diagram_that_cannot_is_told_with_its_place() -> None:
    whole, broken = Diagram("a.md:1", "flowchart LR\n  a --> b"), Diagram("a.md:7", "flowchart LR\n  a -- b")

    (fault,) = faults([whole, broken])

    assert fault.startswith("a.md:7: ")
