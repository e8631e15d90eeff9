#!/bin/sh
# Builds stand-ins for the images that the compose file and the Dockerfile begin with, out of Debian's packages, where no
# image registry can be reached. They are for tests: they have what these files use of the real ones, and no more.
#   sudo tests/containers/stand_ins/build.sh      makes zap-stand-in/{python,postgres,redis,pgbouncer}
# Needs debootstrap, and takes the mirror and the certificates that this machine uses.
set -eu
cd "$(dirname "$0")"

say() { printf '%s\n' "stand-ins: $*" >&2; }

command -v debootstrap >/dev/null 2>&1 || {
  say 'debootstrap is not installed: apt-get install debootstrap'
  exit 1
}
# A snapshot's signatures are older than they may be.
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
# shellcheck source=/dev/null
suite=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
[ -n "$mirror" ] || {
  say 'no Debian mirror is known here: run apt-get update'
  exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

if ! docker image inspect zap-stand-in/debian >/dev/null 2>&1; then
  say "debootstrap of $suite"
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$work/root" "$mirror" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    exit 1
  }
  # What this machine trusts, proxies of its own included.
  cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
  printf 'Acquire::Check-Valid-Until "false";\nAPT::Install-Recommends "false";\n' >"$work/root/etc/apt/apt.conf.d/90stand-in"
  # Nothing is started while it is installed.
  printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d"
  chmod 755 "$work/root/usr/sbin/policy-rc.d"
  tar --directory "$work/root" --create . | docker import - zap-stand-in/debian >/dev/null
fi

for image in python postgres redis pgbouncer; do
  say "zap-stand-in/$image"
  docker build --quiet --network host --tag "zap-stand-in/$image" --file "$image.Dockerfile" . >/dev/null
done
