"""The demo on a Kubernetes cluster, the one that KUBECONFIG names: PostgreSQL and SQLMesh in pods, Dagster on this host.

Called by `make k8s-demo`, in Dagster's environment. A namespace of its own is made and, whatever happens, deleted: PostgreSQL
starts in it, SQLMesh plans and writes the manifest, both from the runner's image, then ``demo.py`` materializes everything, with a pod
for SQLMesh, and prints the table. Pods reach PostgreSQL by its pod's address: no service, no DNS is needed.

From the environment: SHOP_RUNNER_IMAGE, of ``Dockerfile``, which the cluster's nodes have or can pull; POSTGRES_IMAGE, and
POSTGRES_UID, the user that it runs as; DEMO_DIR, where files go.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import yaml

from kubernetes import client, config

T = TypeVar("T")

SHOP = Path(__file__).parent
MANIFESTS = SHOP.parents[1] / "docker" / "k8s"
DEMO_DIR = Path(os.environ["DEMO_DIR"]).absolute()
RUNNER_IMAGE = os.environ["SHOP_RUNNER_IMAGE"]
POSTGRES_IMAGE = os.environ.get("POSTGRES_IMAGE") or "postgres:16"
POSTGRES_UID = int(os.environ.get("POSTGRES_UID") or 999)
RUNNER_UID = 10001
POD_SECONDS = 300
"""How long a pod may take to start, or to end: an image may have to be pulled."""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Namespace:
    """What the demo does in the cluster: a namespace of its own."""

    def __init__(self, core: client.CoreV1Api, name: str) -> None:
        self._core = core
        self.name = name

    def run(self, name: str, image: str, command: Sequence[str]) -> str:
        """Run a command in a pod to its end; returns what it wrote."""
        say(f"{name}: {command[-1] if command[0] == 'sh' else ' '.join(command)}")
        self.start(name, image, RUNNER_UID, {"command": list(command), **from_secret()})
        pod = self.wait(name, lambda pod: pod.status.phase in ("Succeeded", "Failed"))
        log = self.log(name)
        if pod.status.phase == "Failed":
            raise DemoError(f"{name} failed:\n{log}")
        return log

    def start(self, name: str, image: str, user: int, settings: Mapping[str, object]) -> None:
        """Start a pod that passes the restricted Pod Security Standard, of one container that writes to /tmp alone."""
        container = {
            "name": name,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            **settings,
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        }
        self._core.create_namespaced_pod(self.name, {"metadata": {"name": name}, "spec": spec})

    def wait(self, name: str, condition: Callable[[client.V1Pod], bool]) -> client.V1Pod:
        """A pod, as soon as a condition holds."""
        deadline = time.monotonic() + POD_SECONDS
        while True:
            pod = self._core.read_namespaced_pod(name, self.name)
            if condition(pod):
                return pod
            if pod.status.phase == "Failed" or time.monotonic() > deadline:
                why = [event.message for event in self._core.list_namespaced_event(self.name).items[-5:]]
                with contextlib.suppress(client.ApiException):  # there is no log where nothing started
                    why.append(self.log(name))
                raise DemoError("\n".join([f"The pod {name} is {pod.status.phase}.", *why]))
            time.sleep(0.3)

    def log(self, name: str) -> str:
        answer = self._core.read_namespaced_pod_log(name, self.name, _preload_content=False)
        return str(answer.data.decode("utf-8", "replace"))

    def keep_secret(self, name: str, values: Mapping[str, str]) -> None:
        body = {"metadata": {"name": name}, "stringData": dict(values)}
        self._core.create_namespaced_secret(self.name, body)


def main() -> int:
    try:
        core = client.CoreV1Api(config.new_client_from_config())
        with namespace(core) as shop:
            return demo(shop)
    except config.ConfigException as error:
        print(f"KUBECONFIG names no cluster: {error}", file=sys.stderr)
    except DemoError as error:
        print(error, file=sys.stderr)
    return 1


@contextlib.contextmanager
def namespace(core: client.CoreV1Api) -> Iterator[Namespace]:
    """A new namespace as docker/k8s/ has it, with the runners' account; deleted in the end, with all that is in it."""
    body = yaml.safe_load((MANIFESTS / "namespace.yaml").read_text())
    name = body["metadata"]["name"] = f"sqlmesh-shop-{secrets.token_hex(3)}"
    say(f"namespace {name}")
    core.create_namespace(body)
    try:
        account = yaml.safe_load((MANIFESTS / "runner-service-account.yaml").read_text())
        core.create_namespaced_service_account(name, account)
        eventually(
            lambda: core.list_namespaced_service_account(name, field_selector="metadata.name=default").items
        )
        yield Namespace(core, name)
    finally:
        say(f"deleting namespace {name}")
        core.delete_namespace(name)


def demo(shop: Namespace) -> int:
    password = secrets.token_urlsafe(16)
    shop.keep_secret("shop-postgres", {"POSTGRES_PASSWORD": password})
    say(f"PostgreSQL, of {POSTGRES_IMAGE}")
    shop.start(
        "postgres",
        POSTGRES_IMAGE,
        POSTGRES_UID,
        {
            "env": [
                {"name": "POSTGRES_USER", "value": "shop"},
                {"name": "POSTGRES_DB", "value": "shop"},
                {"name": "PGDATA", "value": "/tmp/data"},
            ],
            "envFrom": [{"secretRef": {"name": "shop-postgres"}}],
            # While the database is made, the server listens on its socket alone.
            "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
        },
    )
    address = shop.wait("postgres", is_ready).status.pod_ip
    # The kubelet hands it to runners: Dagster has no part in it.
    shop.keep_secret(
        "shop-warehouse",
        {"SHOP_GATEWAY": "postgres", "SHOP_POSTGRES_HOST": address, "SHOP_POSTGRES_PASSWORD": password},
    )
    with reachable(shop, address) as (host, port):
        (DEMO_DIR / "dagster_home").mkdir(parents=True, exist_ok=True)
        shutil.copy(SHOP / "dagster.yaml", DEMO_DIR / "dagster_home")
        env = {
            "SHOP_GATEWAY": "postgres",
            "SHOP_POSTGRES_HOST": host,
            "PGPORT": str(port),
            "SHOP_POSTGRES_PASSWORD": password,
            "SHOP_LAUNCHER": "kubernetes",
            "SHOP_NAMESPACE": shop.name,
            "SHOP_RUNNER_IMAGE": RUNNER_IMAGE,
            "SHOP_PROJECT": "/project",
            "SHOP_MANIFEST": str(DEMO_DIR / "sqlmesh_manifest.json"),
            "SHOP_REPORTS": str(DEMO_DIR),
            "DAGSTER_HOME": str(DEMO_DIR / "dagster_home"),
        }
        # Nothing but the manifest goes to standard output, which the log has together with standard error.
        manifest = shop.run(
            "manifest",
            RUNNER_IMAGE,
            ["sh", "-c", "sqlmesh-runner manifest --output - 2>/tmp/said || { cat /tmp/said; exit 1; }"],
        )
        Path(env["SHOP_MANIFEST"]).write_text(manifest)
        if on_this_host("prepare", env):
            return 1
        # The plan leaves the work to the run: nothing is backfilled.
        shop.run(
            "plan",
            RUNNER_IMAGE,
            [
                "sqlmesh",
                "--log-file-dir",
                "/tmp/logs",
                "plan",
                "prod",
                "--skip-backfill",
                "--auto-apply",
                "--no-prompts",
            ],
        )
        return on_this_host("run", env)


def from_secret() -> dict[str, object]:
    return {"envFrom": [{"secretRef": {"name": "shop-warehouse"}}]}


def is_ready(pod: client.V1Pod) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or ())


@contextlib.contextmanager
def reachable(shop: Namespace, address: str) -> Iterator[tuple[str, int]]:
    """Where this host reaches PostgreSQL: at the pod's address, as on a node of the cluster, else by `kubectl port-forward`."""
    if answers(address, 5432):
        yield address, 5432
        return
    if shutil.which("kubectl") is None:
        raise DemoError(
            f"This host does not reach the pod's address, {address}, and has no kubectl to reach it with."
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    say(f"PostgreSQL on port {port} of this host, by kubectl port-forward")
    command = ["kubectl", "--namespace", shop.name, "port-forward", "pod/postgres", f"{port}:5432"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: answers("127.0.0.1", port))
            yield "127.0.0.1", port
        finally:
            process.terminate()


def answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=3):
            return True
    except OSError:
        return False


def on_this_host(command: str, env: Mapping[str, str]) -> int:
    """`demo.py`; returns its exit status."""
    done = subprocess.run(
        [sys.executable, str(SHOP / "demo.py"), command], env={**os.environ, **env}, check=False, timeout=1800
    )
    return done.returncode


def eventually(condition: Callable[[], T]) -> T:
    deadline = time.monotonic() + 60
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise DemoError("The cluster takes more than a minute for what it should do at once.")
        time.sleep(0.2)
    return result


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
