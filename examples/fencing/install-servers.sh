#!/bin/sh
# Installs the servers of the fencing example from the packages of Debian or Ubuntu. The example starts
# servers of its own from them; what the packages start by themselves is not touched.
set -eu

has_postgres() {
    command -v postgres || ls /usr/lib/postgresql/*/bin/postgres
}

if command -v redis-server && has_postgres; then
    exit 0
fi >/dev/null 2>&1

if [ "$(id -u)" -eq 0 ]; then
    as_root=
else
    as_root=sudo
fi

$as_root apt-get update
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postgresql redis-server util-linux
