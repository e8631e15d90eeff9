#!/bin/sh
# Makes POSTGRES_DB for POSTGRES_USER in an empty folder, and serves it.
set -eu
bin=/usr/lib/postgresql/15/bin

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA"
  chown postgres:postgres "$PGDATA"
  chmod 700 "$PGDATA"
  exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
  "$bin/initdb" --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile /tmp/password --encoding UTF8 --auth-host scram-sha-256 --auth-local trust
  rm /tmp/password
  printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  "$bin/pg_ctl" --pgdata "$PGDATA" --wait --options '-c listen_addresses= -c unix_socket_directories=/var/run/postgresql' start
  "$bin/createdb" --username "$POSTGRES_USER" "$POSTGRES_DB"
  "$bin/pg_ctl" --pgdata "$PGDATA" --wait stop
fi

exec "$bin/postgres" -D "$PGDATA" -c 'listen_addresses=*' -c unix_socket_directories=/var/run/postgresql
