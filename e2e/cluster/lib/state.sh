# shellcheck shell=bash
# What belongs to one run: its names, its folders, its lock and its processes.

# init_names: sets the names that everything of this run carries. Two checkouts get two suffixes, so
# that their clusters can be up at the same time.
init_names() {
  CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/session-operator
  if [ -z "$SUFFIX" ]; then
    SUFFIX=$(printf '%s' "$CLUSTER_HOME" | sha256sum | cut -c1-6)
  fi
  [[ $SUFFIX =~ ^[a-z0-9]{1,12}$ ]] ||
    die "--suffix $SUFFIX: expected 1 to 12 lower-case letters and digits"
  local run=$STAGE
  [ "$STAGE" = cluster ] || run=api-$KUBERNETES
  STATE=${XDG_STATE_HOME:-$HOME/.local/state}/session-operator/$SUFFIX/$run
  LOGS=$STATE/logs
  PKI=$STATE/pki
  LOCK=$CACHE/locks/run-$SUFFIX-$run
}

# lock_run: one verb at a time changes a run. The lock ends with the process that holds it.
lock_run() {
  mkdir -p "$CACHE/locks"
  exec {LOCK_FD}>"$LOCK"
  if ! flock -n "$LOCK_FD"; then
    say "cluster: another command is changing this cluster (suffix $SUFFIX); waiting for it"
    flock -w 900 "$LOCK_FD" || die "the other command did not end within 15 minutes; lock file: $LOCK"
  fi
}

# --- processes -----------------------------------------------------------------------------------------
# A record is a file pids/NAME with the pid and its start time, so that a pid that was given to another
# process meanwhile is never mistaken for ours.

# start_time PID: in clock ticks since boot, field 22 of /proc/PID/stat; fails if there is no such process.
start_time() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  # The second field, the command's name, may hold blanks: count from behind its bracket.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  [ "$1" != Z ] || return 1
  printf '%s' "${20}"
}

# spawn NAME COMMAND…: starts a daemon that outlives this script. It records itself before it becomes
# COMMAND, so that no interrupt can leave it unrecorded.
spawn() {
  local name=$1 lock=${LOCK_FD:-}
  shift
  mkdir -p "$STATE/pids" "$LOGS"
  rm -f "$STATE/pids/$name"
  (
    [ -z "$lock" ] || exec {lock}>&-
    # shellcheck disable=SC2016
    exec setsid bash -c '
      stat=$(<"/proc/$$/stat"); record=$0; pid=$$; command=("$@")
      set -- ${stat##*) }
      echo "$pid ${20}" >"$record.new"; mv "$record.new" "$record"
      exec "${command[@]}"
    ' "$STATE/pids/$name" "$@"
  ) >>"$LOGS/$name.log" 2>&1 </dev/null &
  wait_until "$START_LIMIT" "$name to be started" test -s "$STATE/pids/$name"
}

# process_pid NAME: the pid if the process is alive.
process_pid() {
  local pid start
  [ -s "$STATE/pids/$1" ] || return 1
  read -r pid start <"$STATE/pids/$1"
  [ "$(start_time "$pid")" = "$start" ] || return 1
  printf '%s' "$pid"
}

# need_process NAME: for conditions that cannot come true without it.
need_process() {
  process_pid "$1" >/dev/null || { echo "$1 has ended; its log is $LOGS/$1.log" && return "$GIVE_UP"; }
}

process_gone() { ! process_pid "$1" >/dev/null; }

# stop_process NAME SIGNAL LIMIT: ends a recorded process; after LIMIT seconds by SIGKILL.
stop_process() {
  local name=$1 signal=$2 limit=$3 pid
  if pid=$(process_pid "$name"); then
    kill "-$signal" "$pid" 2>/dev/null || true
    if ! wait_until "$limit" "$name to end" process_gone "$name" 2>/dev/null; then
      kill -KILL "$pid" 2>/dev/null || true
      wait_until 10 "$name to end after SIGKILL" process_gone "$name"
    fi
  fi
  rm -f "$STATE/pids/$name"
}

# recorded_processes: the names of all records.
recorded_processes() {
  local record
  for record in "$STATE"/pids/*; do
    [ ! -e "$record" ] || printf '%s\n' "${record##*/}"
  done
}

# own_ancestry: the pids of this script and of those that called it; they are never ended, even if
# somebody runs this script inside a node's namespace.
own_ancestry() {
  local pid=$$
  while ((pid > 1)); do
    printf '%s\n' "$pid"
    pid=$(awk '/^PPid:/ {print $2}' "/proc/$pid/status")
  done
}

# collect_logs FOLDER: copies the logs to where a failing test wants them.
collect_logs() {
  mkdir -p "$1"
  [ ! -d "$LOGS" ] || cp -a "$LOGS/." "$1/"
}
