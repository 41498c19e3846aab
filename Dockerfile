# One image for every Forefill process; docker-compose.yml says which command each of them runs.
# The versions of all packages are in requirements-runtime.lock, checked by hash. No secret is needed to build it, and
# none is in it.

ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Dependencies change seldom: a layer of their own. `--only-binary` runs no package's set-up code.
COPY requirements-runtime.lock ./
RUN python -m venv --without-pip /opt/forefill \
 && python -m pip --python /opt/forefill/bin/python install --only-binary :all: --require-hashes -r requirements-runtime.lock

COPY deploy/requirements-build.lock deploy/
RUN python -m venv --without-pip /opt/build \
 && python -m pip --python /opt/build/bin/python install --only-binary :all: --require-hashes -r deploy/requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY pipeline/ pipeline/
COPY workers/ workers/
COPY api/ api/
COPY migrations/ migrations/
COPY deploy/health.py deploy/presence.py /opt/forefill/
# Bytecode that is not compared with its source starts fastest, and stays valid whatever rewrites time stamps.
RUN /opt/build/bin/hatchling build -t wheel -d /tmp/wheel \
 && python -m pip --python /opt/forefill/bin/python install --no-deps --no-index /tmp/wheel/*.whl \
 && /opt/forefill/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/forefill/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Forefill" org.opencontainers.image.licenses="Apache-2.0"
# Nothing is installed at run time, so nothing that installs stays.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore setuptools wheel pip \
 && groupadd --system --gid 10001 forefill \
 && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/forefill --no-create-home --shell /usr/sbin/nologin forefill \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/forefill
COPY --from=build /opt/forefill /opt/forefill
ENV PATH=/opt/forefill/bin:$PATH PYTHONUNBUFFERED=1
# The only folder it writes to besides /tmp; a volume where something must stay. Numbers, so that an orchestrator can
# see that the user is not root.
WORKDIR /var/lib/forefill
USER 10001:10001
STOPSIGNAL SIGTERM
EXPOSE 8080
# Health is each service's own: docker-compose.yml.
CMD ["forefill", "--help"]
