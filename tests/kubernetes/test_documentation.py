"""docs/kubernetes.md says what there is: its code location loads, its tables are complete."""

import os
import re
from pathlib import Path

import dagster as dg

from dagster_sqlmesh_pipes import KubernetesLauncher, RunnerCall
from dagster_sqlmesh_pipes.launchers.pod_template import build_pod
from support.pod_security import violations

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/kubernetes.md").read_text()
MANIFEST = ROOT / "tests/protocol/golden/manifest-1.json"


def first_column(title: str) -> set[str]:
    """What stands in backquotes in the first column of the table under a heading."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_code_location_loads_and_its_pod_passes_the_restricted_standard(monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.setitem(os.environ, "SQLMESH_RUNNER_IMAGE", "registry.example.com/warehouse-sqlmesh:1")
    names: dict = {}

    exec(
        compile(code.replace("/code/sqlmesh_manifest.json", str(MANIFEST)), "docs/kubernetes.md", "exec"),
        names,
    )

    dg.Definitions.validate_loadable(names["defs"])
    call = RunnerCall(arguments=("run", "prod"), env={}, project_dir=Path("/project"), name="sqlmesh-1")
    pod = build_pod(names["project"].launcher, call)
    assert violations(pod) == []
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "sqlmesh-warehouse"}}]


def test_the_launchers_settings_are_listed_and_no_others():
    assert first_column("The launcher's settings") == set(KubernetesLauncher.model_fields)


def test_the_manifests_are_listed_and_no_others():
    there = {path.name for path in (ROOT / "docker/k8s").iterdir()} - {"kustomization.yaml"}

    assert first_column("2. What the cluster needs") == there | {"docker/k8s/"}
