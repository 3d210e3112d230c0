# shellcheck shell=bash
# Sourced by tests/run, after deploy/venv.sh: the real parts that the tests want on this machine, fetched when missing.

# program, and the Debian packages that bring it
PURE_PARTS="
  systemd-analyze  systemd
"
LIVE_PARTS="
  dockerd       docker.io
  iptables      iptables
  busybox       busybox-static
  redis-server  redis-server
  linux.uml     user-mode-linux
  java          default-jre-headless
  mvn           maven
  kcat          kcat
  ps            procps
  ip            iproute2
  gcc           gcc libc6-dev
  git           git
  promtool      prometheus
"

BROWSER_PARTS="
  chromium      chromium fonts-dejavu-core
"

install_parts() { # TABLE…
  local program packages missing=()
  while read -r program packages; do
    # shellcheck disable=SC2206  # several packages are several words
    [ -z "$program" ] || PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=($packages)
  done <<<"$(printf '%s\n' "$@")"
  [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

fetch_kafka() { # as the fixture does; here, so that no test waits for it
  .cache/venv-test/bin/python - <<'PYTHON'
import sys
sys.path.insert(0, ".")
from tests.support.brokers import kafka_libs
kafka_libs()
PYTHON
}

sweep_temporary() { # servers of runs that were killed are gone, their directories are not
  find "${TMPDIR:-/tmp}" -maxdepth 1 -type d \( -name 'streamer-redis-server-*' -o -name 'streamer-java-*' \) -mmin +600 -exec rm -rf {} +
}
