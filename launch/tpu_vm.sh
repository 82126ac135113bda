#!/bin/bash
# A run on a slice of Cloud TPU VMs, by queued resources. docs/tpu_vm.md has an example of each.
#
#   launch/tpu_vm.sh create                        asks for the slice, and waits until it is there
#   launch/tpu_vm.sh setup                         copies this checkout to every host and installs it
#   launch/tpu_vm.sh run vlc train ...             runs a command on every host; they find each other by metadata
#   launch/tpu_vm.sh stop                          SIGTERM to the command on one host: all of them save and leave
#   launch/tpu_vm.sh delete                        gives the slice back
#
# NAME, ZONE, TYPE (v5litepod-16, v4-32, v6e-64, ...) and RUNTIME are read from the environment; the project is gcloud's.
set -euo pipefail
: "${NAME:?set NAME, what the slice is to be called}" "${ZONE:?set ZONE, as in us-west4-a}"
ACTION=${1:?create, setup, run, stop or delete}
shift
on_all() { gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command "$1"; }
on_first() { gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=0 --command "$1"; }

# The hosts share no disk of their own: what they write goes to a bucket, or to a disk that the user has mounted.
refuse_local() {
  local option=""
  for word in "$@"; do
    case $option in --workdir | --out) check_place "$option" "$word" ;; esac
    case $word in --workdir=* | --out=*) check_place "${word%%=*}" "${word#*=}" ;; esac
    option=$word
  done
}
check_place() {
  case $2 in *://*) return ;; esac
  [ -n "${SHARED_DISK:-}" ] && return
  echo "launch/tpu_vm.sh: $1 $2: the hosts of a slice share no disk. Name a bucket (gs://BUCKET/RUN); where this is a" \
    "mounted disk that all of them share, or there is one host, set SHARED_DISK=1." >&2
  exit 2
}

case $ACTION in
  create)
    : "${TYPE:?set TYPE, as in v5litepod-16}" "${RUNTIME:?set RUNTIME, as in v2-alpha-tpuv5-lite}"
    gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" --zone "$ZONE" \
      --accelerator-type "$TYPE" --runtime-version "$RUNTIME" ${MORE:-}
    until gcloud compute tpus queued-resources describe "$NAME" --zone "$ZONE" --format='value(state.state)' |
      tee /dev/stderr | grep -qx ACTIVE; do sleep 30; done
    ;;
  setup)
    git archive --format=tar.gz HEAD > /tmp/vlc.tar.gz
    gcloud compute tpus tpu-vm scp /tmp/vlc.tar.gz "$NAME": --zone "$ZONE" --worker=all
    on_all 'mkdir -p vlc && tar -xzf vlc.tar.gz -C vlc && python3.12 -m venv vlc/.venv && vlc/.venv/bin/pip install -q -e "vlc[tpu,cloud]"'
    ;;
  run)
    # Again where a host was lost (76) or a process was killed; not after bad input, divergence, or when asked to stop.
    # gcloud has a status of its own, so the first host keeps the command's.
    # The command's own number is written down before it begins, so that nothing else is ever signalled.
    refuse_local "$@"
    begin='echo $$ > process; exec "$@"'
    for _ in $(seq "${RESTARTS:-20}"); do
      on_all "cd vlc && rm -f status process && PATH=\$PWD/.venv/bin:\$PATH bash -c '$begin' vlc $(printf '%q ' "$@"); echo \$? > status" || true
      status=$(on_first 'cat vlc/status' || echo 255)
      case $status in 0 | 2 | 3 | 75) exit "$status" ;; esac
      on_all 'kill -KILL "$(cat vlc/process)"' || true
    done
    exit "$status"
    ;;
  stop) on_first 'kill -TERM "$(cat vlc/process)"' ;;
  delete) gcloud compute tpus queued-resources delete "$NAME" --zone "$ZONE" --force ;;
  *) echo "launch/tpu_vm.sh: no action \"$ACTION\"; create, setup, run, stop or delete." >&2; exit 2 ;;
esac
