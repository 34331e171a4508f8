# Dagster's image: code locations, web server and daemon; no SQLMesh, not root. From a checkout of this project:
#
#   docker build --file docker/orchestrator.Dockerfile --tag sqlmesh-orchestrator:0.1.0 .
#
# A code location is an image that begins with this one, and brings its code and the manifest, which is all that it needs of the
# SQLMesh project. The runner's image makes it in the same build; examples/shop/Dockerfile is one to copy:
#
#   FROM sqlmesh-runner:0.1.0 AS runner
#   COPY warehouse /project
#   RUN sqlmesh-runner manifest --output /tmp/sqlmesh_manifest.json
#
#   FROM sqlmesh-orchestrator:0.1.0
#   COPY my_code_location /code/my_code_location
#   COPY --from=runner /tmp/sqlmesh_manifest.json /code/
#
# Build arguments:
#   BASE_IMAGE  has python3 with venv
#   EXTRAS      of dagster-sqlmesh-pipes, for the launchers: docker, k8s
#   PACKAGES    other packages, with spaces
#   PIP_ARGS    such as --index-url; or --no-index --find-links=/wheels, for wheels that lie in docker/wheels
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
LABEL org.opencontainers.image.title=sqlmesh-orchestrator
ARG EXTRAS="docker,k8s"
# With SQLAlchemy 2.1, the addresses that dagster-postgres 0.29 makes are taken for another driver than the one it brings.
ARG PACKAGES="dagster-webserver dagster-postgres sqlalchemy<2.1"
ARG PIP_ARGS=""
COPY docker/wheels/ /wheels/
# Dagster by itself: a change of this project does not install it again.
RUN python3 -m venv /opt/dagster \
 && /opt/dagster/bin/pip install --no-cache-dir --disable-pip-version-check ${PIP_ARGS} dagster ${PACKAGES}
COPY pyproject.toml README.md LICENSE /src/
COPY orchestrator/ /src/orchestrator/
COPY runner/ /src/runner/
COPY shared_protocol/ /src/shared_protocol/
RUN /opt/dagster/bin/pip install --no-cache-dir --disable-pip-version-check ${PIP_ARGS} "/src[dagster,${EXTRAS}]"

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title=sqlmesh-orchestrator
COPY --from=build /opt/dagster /opt/dagster
RUN useradd --uid 10002 --create-home dagster && mkdir -p /code /opt/dagster_home/storage \
 && chown -R dagster /code /opt/dagster_home
ENV PATH=/opt/dagster/bin:$PATH DAGSTER_HOME=/opt/dagster_home PYTHONUNBUFFERED=1
USER 10002
WORKDIR /code
CMD ["dagster", "--help"]
