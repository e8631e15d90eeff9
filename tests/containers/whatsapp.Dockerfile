# The simulated WhatsApp: the service's image, since it has the same neonize, with the simulator and what that needs.
#   docker build --file tests/containers/whatsapp.Dockerfile --build-arg SERVICE=zap-service simulator
ARG BASE=python:3.13-slim-bookworm
ARG SERVICE=zap-service
# hadolint global ignore=DL3006,DL3013

FROM ${BASE} AS build
RUN python3 -m pip install --no-cache-dir --target /opt/more 'aiohttp>=3.14,<4' 'wsproto>=1.3,<2'

FROM ${SERVICE}
COPY --from=build /opt/more /opt/simulator
COPY . /opt/simulator/simulator
ENV PYTHONPATH=/opt/simulator
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "simulator"]
CMD []
