# The runner's image: SQLMesh and `sqlmesh-runner`, no Dagster, no compiler, not root.
#
#   pip wheel --no-deps --wheel-dir dist .
#   docker build --file docker/runner.Dockerfile --build-arg ENGINES=postgres --tag sqlmesh-runner:0.1.0 .
#
# The SQLMesh project is mounted at /project, or copied in by an image that begins with this one:
#
#   FROM sqlmesh-runner:0.1.0
#   COPY warehouse /project
#
# Build arguments:
#   BASE_IMAGE       has python3 with venv
#   SQLMESH_VERSION  an exact version; by default the newest that the package allows
#   ENGINES          SQLMesh's extras for drivers, with commas: postgres,snowflake
#   PIP_ARGS         such as --index-url, or --no-index --find-links=/dist for wheels that lie in dist/
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG SQLMESH_VERSION=""
ARG ENGINES=""
ARG PIP_ARGS=""
COPY dist/ /dist/
RUN python3 -m venv /opt/runner \
 && /opt/runner/bin/pip install --no-cache-dir --disable-pip-version-check ${PIP_ARGS} \
      "$(ls /dist/dagster_sqlmesh_pipes-*.whl)[sqlmesh]" \
      "sqlmesh${ENGINES:+[${ENGINES}]}${SQLMESH_VERSION:+==${SQLMESH_VERSION}}" \
 && /opt/runner/bin/python -m compileall -q /opt/runner/lib

FROM ${BASE_IMAGE}
COPY --from=build /opt/runner /opt/runner
RUN useradd --uid 10001 --create-home runner && mkdir /project && chown runner /project
# SQLMesh keeps a folder in the home directory: on a read-only file system /tmp is what there is.
ENV PATH=/opt/runner/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SQLMESH_RUNNER_PROJECT=/project
USER 10001
WORKDIR /project
CMD ["sqlmesh-runner", "--help"]
