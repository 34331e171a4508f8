#!/usr/bin/env bash
# The shop in containers, for `make docker-demo` and `make docker-dev`: its images, its services, its demo.
#
#   docker/shop.sh build    make the four images
#   docker/shop.sh demo     start everything, plan, run the job through Dagster, print the table, stop everything
#   docker/shop.sh up       start everything, plan, and say where the UI is
#   docker/shop.sh down     stop everything; `down --volumes` forgets the data as well
#
# From the environment: BASE_IMAGE, POSTGRES_IMAGE and PIP_ARGS where the defaults cannot be had; DAGSTER_PORT for the UI;
# COMPOSE_PROJECT_NAME to have several side by side; SHOP_TAG of the images that are built.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "$*" >&2; exit 1; }

command -v docker >/dev/null || fail "Docker is not installed: https://docs.docker.com/engine/install (Debian: apt-get install docker.io)."
docker version >/dev/null 2>&1 ||
  fail "The Docker engine does not answer: start it, let this user ask it (\`docker version\` must work), or set DOCKER_HOST."

tag=${SHOP_TAG:-$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)}
export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-sqlmesh-shop}
export SHOP_NETWORK=$COMPOSE_PROJECT_NAME
export SHOP_RUNNER_IMAGE=shop-runner:$tag SHOP_ORCHESTRATOR_IMAGE=shop-orchestrator:$tag
# What is empty is as good as not given.
[ -n "${POSTGRES_IMAGE:-}" ] || unset POSTGRES_IMAGE

with_compose() {
  if docker compose version >/dev/null 2>&1; then
    compose=(docker compose --file docker/compose.yaml)
  elif command -v docker-compose >/dev/null; then
    compose=(docker-compose --file docker/compose.yaml)
  else
    fail "Docker Compose is not installed: https://docs.docker.com/compose/install (Debian: apt-get install docker-compose)."
  fi
}

image() {  # TAG DOCKERFILE CONTEXT OPTIONS...
  local made=$1 dockerfile=$2 context=$3
  shift 3
  echo "Building $made ..." >&2
  docker build --quiet --force-rm --file "$dockerfile" --tag "$made" "$@" "$context" >/dev/null
}

build() {
  local own=(--build-arg "PIP_ARGS=${PIP_ARGS:-}")
  [ -z "${BASE_IMAGE:-}" ] || own+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
  image "sqlmesh-runner:$tag" docker/runner.Dockerfile . "${own[@]}" --build-arg PACKAGES=psycopg2-binary
  image "sqlmesh-orchestrator:$tag" docker/orchestrator.Dockerfile . "${own[@]}"
  own=(--build-arg "RUNNER_IMAGE=sqlmesh-runner:$tag" --build-arg "ORCHESTRATOR_IMAGE=sqlmesh-orchestrator:$tag")
  image "$SHOP_RUNNER_IMAGE" examples/shop/Dockerfile examples/shop "${own[@]}" --target runner
  image "$SHOP_ORCHESTRATOR_IMAGE" examples/shop/Dockerfile examples/shop "${own[@]}" --target orchestrator
}

socket() {
  # As the engine sees it: with Docker Desktop that is in its virtual machine. Its group is what lets the code location in.
  export DOCKER_SOCKET=${DOCKER_SOCKET:-/var/run/docker.sock}
  DOCKER_GID=$(docker run --rm --user 0 --network none --volume "$DOCKER_SOCKET:/socket" "$SHOP_ORCHESTRATOR_IMAGE" stat --format %g /socket)
  export DOCKER_GID
}

# The plan needs the table that it reads, and leaves the work to the run.
up() {
  socket
  "${compose[@]}" up --detach postgres code-location
  wait_for code-location
  "${compose[@]}" exec -T code-location python demo.py prepare
  "${compose[@]}" run --rm -T plan
  "${compose[@]}" up --detach postgres code-location webserver daemon
  wait_for webserver
}

wait_for() {
  local container
  container=$("${compose[@]}" ps -q "$1")
  for _ in $(seq 180); do
    case $(docker inspect --format '{{.State.Health.Status}} {{.RestartCount}}' "$container" 2>/dev/null || true) in
      healthy*) return ;;
      *" 3") break ;;  # it will not come up
    esac
    sleep 1
  done
  "${compose[@]}" logs --tail 50 "$1" >&2
  fail "$1 does not come up; above is what it said last."
}

down() {
  "${compose[@]}" down --remove-orphans "$@"
}

case ${1:-} in
  build)
    build
    ;;
  up)
    with_compose
    build
    up
    echo "Dagster's UI: http://127.0.0.1:${DAGSTER_PORT:-3000}. \`make docker-down\` stops it."
    ;;
  demo)
    with_compose
    build
    trap 'down >/dev/null 2>&1' EXIT
    up
    "${compose[@]}" exec -T code-location python demo.py launch webserver 3000
    ;;
  down)
    with_compose
    shift
    down "$@"
    ;;
  *)
    fail "usage: docker/shop.sh build|demo|up|down"
    ;;
esac
