# In the place of edoburu/pgbouncer: the variables that the compose file sets.
# hadolint ignore=DL3006
FROM zap-stand-in/debian
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends pgbouncer postgresql-client-15 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && chown -R postgres /etc/pgbouncer
COPY pgbouncer.sh /usr/local/bin/entrypoint
# hadolint ignore=DL3066
USER postgres
ENTRYPOINT ["/usr/local/bin/entrypoint"]
