#!/bin/sh
# Make the database on the first start, as the official image does, then be the server.
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres}
  printf '%s' "${POSTGRES_PASSWORD:?}" > /tmp/password
  initdb --username="$user" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 --no-sync >/dev/null
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --silent --options="-c listen_addresses=''" start >/dev/null
  [ "${POSTGRES_DB:-$user}" = postgres ] || createdb --username="$user" "${POSTGRES_DB:-$user}"
  for file in /docker-entrypoint-initdb.d/*.sql; do
    [ ! -f "$file" ] || psql --username="$user" --dbname="${POSTGRES_DB:-$user}" --set=ON_ERROR_STOP=1 --quiet --file="$file"
  done
  pg_ctl --wait --silent --mode=fast stop >/dev/null
fi
exec postgres -c listen_addresses='*'
