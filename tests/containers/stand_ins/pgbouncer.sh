#!/bin/sh
# Writes pgbouncer.ini from the environment, and serves.
set -eu
folder=/etc/pgbouncer

printf '"%s" "%s"\n' "$DB_USER" "$DB_PASSWORD" >"$folder/userlist.txt"
cat >"$folder/pgbouncer.ini" <<END
[databases]
$DB_NAME = host=$DB_HOST port=${DB_PORT:-5432} auth_user=$DB_USER

[pgbouncer]
listen_addr = 0.0.0.0
listen_port = ${LISTEN_PORT:-5432}
unix_socket_dir =
auth_file = $folder/userlist.txt
auth_type = ${AUTH_TYPE:-md5}
pool_mode = ${POOL_MODE:-session}
max_client_conn = ${MAX_CLIENT_CONN:-100}
default_pool_size = ${DEFAULT_POOL_SIZE:-20}
server_login_retry = ${SERVER_LOGIN_RETRY:-15}
dns_nxdomain_ttl = ${DNS_NXDOMAIN_TTL:-15}
dns_max_ttl = ${DNS_MAX_TTL:-15}
ignore_startup_parameters = extra_float_digits
END

exec pgbouncer "$folder/pgbouncer.ini"
