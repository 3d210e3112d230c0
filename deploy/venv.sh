# shellcheck shell=bash
# Sourced by deploy/quickstart and tests/run: a virtual environment with exactly what a lock file names, and this project in it.
# Progress goes to stderr. Asks no more of the machine than python3; Debian's missing venv module is fetched by apt as root.

say() { printf '%s\n' "$*" >&2; }

give_up() {
  say "$@"
  exit 1
}

apt_install() { # PACKAGE…: quietly, one retry, since a mirror may be in the middle of an update
  [ "$(id -u)" = 0 ] || give_up "Missing here: $*. Ask an administrator for: apt-get install --no-install-recommends $*"
  command -v apt-get >/dev/null || give_up "Missing here: $*, and there is no apt-get to install them with. Install what your system calls them."
  say "Installing $* …"
  local attempt log
  log=$(mktemp)
  for attempt in 1 2; do
    # RUNLEVEL=1: what is installed starts no daemon of its own
    if DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 bash -c '
      apt-get -q update && apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@"' apt "$@" >"$log" 2>&1 </dev/null; then
      rm -f "$log"
      return
    fi
    say "apt-get failed, attempt $attempt of 2."
  done
  tail -n 20 "$log" >&2
  rm -f "$log"
  exit 1
}

have_python() {
  local python=${PYTHON:-python3}
  command -v "$python" >/dev/null || give_up "$python is missing. Install Python 3.11 or later, or name it: PYTHON=/path/to/python3 $0"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    give_up "$("$python" --version) is too old: streamer needs Python 3.11 or later. Name another one: PYTHON=/path/to/python3.11 $0"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
}

make_venv() { # DIRECTORY LOCKFILE…: nothing is done when it was made of the same files, Python and place
  local python=${PYTHON:-python3} wanted
  have_python
  wanted=$({ "$python" -c 'import sys; print(sys.version, sys.executable)'; pwd; cat "${@:2}"; sed '/^\[tool\./,$d' pyproject.toml; } | sha256sum)
  [ "$(cat "$1/made-of" 2>/dev/null)" != "$wanted" ] || return 0
  { mkdir -p "$(dirname "$1")" && : >>"$1.lock"; } || give_up "Run this in a copy of the repository that you may write to."
  ( # one at a time
    flock 9
    [ "$(cat "$1/made-of" 2>/dev/null)" = "$wanted" ] || fill_venv "$wanted" "$@"
  ) 9>"$1.lock"
}

fill_venv() { # WANTED DIRECTORY LOCKFILE…
  local python=${PYTHON:-python3} wanted=$1 directory=$2 log=$2.log
  shift 2
  say "Making a virtual environment in $directory …"
  rm -rf "$directory"
  if ! {
    "$python" -m venv "$directory" &&
      "$directory/bin/pip" install --disable-pip-version-check --require-hashes --only-binary :all: ${@/#/--requirement=} &&
      "$directory/bin/pip" install --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
  } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    give_up "The virtual environment could not be made; the whole story is in $log."
  fi
  printf '%s\n' "$wanted" >"$directory/made-of"
}
