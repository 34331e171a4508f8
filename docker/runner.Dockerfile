# The runner's image: SQLMesh and `sqlmesh-runner`; no Dagster, no compiler, not root. From a checkout of this project:
#
#   docker build --file docker/runner.Dockerfile --build-arg PACKAGES=psycopg2-binary --tag sqlmesh-runner:0.1.0 .
#
# The SQLMesh project is mounted at /project, or copied in by an image that begins with this one:
#
#   FROM sqlmesh-runner:0.1.0
#   COPY warehouse /project
#
# Whether an image, its project and its connections are in order says `sqlmesh-runner doctor`, run in it. There is no HEALTHCHECK:
# a container of this image is one run, and ends.
#
# Build arguments:
#   BASE_IMAGE       has python3 with venv
#   SQLMESH_VERSION  an exact version; by default the newest that the package allows
#   ENGINES          SQLMesh's extras for drivers, with commas: bigquery,snowflake
#   PACKAGES         other packages, with spaces. PostgreSQL's driver belongs here, as psycopg2-binary: the extra `postgres` asks for
#                    one that is compiled, and there is no compiler
#   PIP_ARGS         such as --index-url; or --no-index --find-links=/wheels, for wheels that lie in docker/wheels
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
LABEL org.opencontainers.image.title=sqlmesh-runner
ARG SQLMESH_VERSION=""
ARG ENGINES=""
ARG PACKAGES=""
ARG PIP_ARGS=""
COPY docker/wheels/ /wheels/
# SQLMesh by itself: a change of this project does not install it again.
RUN python3 -m venv /opt/runner \
 && /opt/runner/bin/pip install --no-cache-dir --disable-pip-version-check ${PIP_ARGS} \
      "sqlmesh${ENGINES:+[${ENGINES}]}${SQLMESH_VERSION:+==${SQLMESH_VERSION}}" ${PACKAGES}
COPY pyproject.toml README.md LICENSE /src/
COPY orchestrator/ /src/orchestrator/
COPY runner/ /src/runner/
COPY shared_protocol/ /src/shared_protocol/
RUN /opt/runner/bin/pip install --no-cache-dir --disable-pip-version-check ${PIP_ARGS} \
      "/src[sqlmesh]" "sqlmesh${SQLMESH_VERSION:+==${SQLMESH_VERSION}}"

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title=sqlmesh-runner
COPY --from=build /opt/runner /opt/runner
RUN useradd --uid 10001 --create-home runner && mkdir /project && chown runner /project
# SQLMesh writes into the home directory, and its cache into the project: on a read-only file system /tmp is what there is.
ENV PATH=/opt/runner/bin:$PATH HOME=/tmp SQLMESH__CACHE_DIR=/tmp/sqlmesh-cache SQLMESH_RUNNER_PROJECT=/project \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /project
CMD ["sqlmesh-runner", "--help"]
