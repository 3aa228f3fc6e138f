#!/usr/bin/env bash
# docs/screens/overview.sh: makes the README's picture anew, docs/screens/overview.svg, from a real run. Needs tmux, prlimit (util-linux), and a
# release build (cargo build --release --bin exchange --bin trader --bin shmtop). Takes half a minute.
#
# Sixteen clients: one is stopped, and one is on the socket because the server had no descriptor left for its rings.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$PWD/target/release
cargo build -q -p shmtop --example render-screen
SHMTOP_RUNTIME_DIR=$(mktemp -d)
export SHMTOP_RUNTIME_DIR
screen() { tmux -L "shmtop-picture-$$" -f /dev/null "$@"; }
pids=()
stopped=
end() {
  [ -z "$stopped" ] || kill -CONT "$stopped" 2>/dev/null || true
  screen kill-server 2>/dev/null || true
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  rm -rf "$SHMTOP_RUNTIME_DIR"
}
trap end EXIT

until_it_holds() { # WHAT COMMAND…
  local what=$1
  shift
  for _ in $(seq 200); do if "$@"; then return; fi; sleep 0.1; done
  echo "waited in vain: $what" >&2
  exit 1
}
clients() { "$bin/shmtop" ps -p "$exchange" -f json | grep -q "\"$1\": *$2\b"; }

"$bin/exchange" >"$SHMTOP_RUNTIME_DIR/out" 2>&1 &
exchange=$!
pids+=("$exchange")
until_it_holds "the exchange listens" grep -qs listening "$SHMTOP_RUNTIME_DIR/out"
"$bin/trader" 15 bytes 20000 --processes --think 50us --duration forever >/dev/null 2>&1 &
traders=$!
pids+=("$traders")
until_it_holds "15 clients on shared memory" clients shm 15
# The server's reserve will do for the next client's socket; nothing is left for its rings. One that came while handshakes still held descriptors
# got rings, and goes again.
one_on_the_socket() {
  prlimit --pid "$exchange" --nofile="$(find "/proc/$exchange/fd" -mindepth 1 | wc -l):"
  "$bin/trader" 1 bytes 20000 --think 50us --duration forever >/dev/null 2>&1 &
  local trader=$!
  pids+=("$trader")
  until_it_holds "the 16th client" clients clients 16
  if clients socket 1; then return; fi
  kill "$trader"
  until_it_holds "it has gone" clients clients 15
  return 1
}
until_it_holds "one client on the socket" one_on_the_socket

screen new-session -d -x 120 -y 40 -s picture "$bin/shmtop -p $exchange"
sleep 20 # its charts fill
stopped=$(ps -o pid= --ppid "$traders" | sed -n 7p | tr -d ' ')
kill -STOP "$stopped"
sleep 6
screen capture-pane -e -p -t picture | target/debug/examples/render-screen >"$SHMTOP_RUNTIME_DIR/svg"
mv "$SHMTOP_RUNTIME_DIR/svg" docs/screens/overview.svg
echo "docs/screens/overview.svg"
