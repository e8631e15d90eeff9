# The service in a container: no compiler, nothing downloaded at run time, nothing worth keeping on its disk.
#   docker build --tag zap-service .
ARG BASE=python:3.13-slim-bookworm

# The versions are in the lock.
# hadolint global ignore=DL3006,DL3013
FROM ${BASE} AS build
WORKDIR /build
# Hashes are checked. neonize's Go library is inside its wheel, and pip stays outside.
COPY deploy/requirements.lock ./
RUN python3 -m venv --without-pip /opt/zap \
 && python3 -m pip --python /opt/zap/bin/python install --no-cache-dir --no-deps --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
# Not dev: a node in a container has the URLs of its servers.
COPY service service
COPY generated generated
# What builds the package, and what its libraries bring as tests, is left out of the image; that the library is there,
# and is the one that the service leans on, is found out here and not by the first session.
RUN python3 -m pip --python /opt/zap/bin/python install --no-cache-dir --no-deps --no-build-isolation . \
 && python3 -m pip --python /opt/zap/bin/python uninstall --quiet --yes setuptools \
 && SPHINX=1 /opt/zap/bin/python -c 'from service.worker.library import loader as it; it.import_without_library(); it.load_library(restored=True)' \
 && find /opt/zap/lib -type d -name tests -prune -exec rm -r {} + \
 && /opt/zap/bin/python -m compileall -q /opt/zap/lib

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="zap-service" \
      org.opencontainers.image.description="WhatsApp sessions as a service: scan once, restart for ever" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/zap /opt/zap
ENV PATH=/opt/zap/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ZAP_LISTEN=0.0.0.0:50051 \
    ZAP_HTTP_LISTEN=0.0.0.0:9464
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 50052 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-m", "service.node.healthcheck"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
