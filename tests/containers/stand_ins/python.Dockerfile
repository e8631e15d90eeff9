# In the place of python:3.13-slim-bookworm. Debian's Python is 3.11, which the service takes as well.
# hadolint ignore=DL3006
FROM zap-stand-in/debian
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
# pip has certificates of its own otherwise.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
