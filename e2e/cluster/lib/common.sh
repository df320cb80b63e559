# shellcheck shell=bash
# Messages, waiting and the progress display. Knows nothing of the cluster.

say() { printf '%s\n' "$*" >&2; }

die() {
  printf 'cluster: %s\n' "$*" >&2
  exit 1
}

# duration SECONDS: 7s, 1m04s
duration() {
  if (($1 < 60)); then printf '%ds' "$1"; else printf '%dm%02ds' $(($1 / 60)) $(($1 % 60)); fi
}

# Whatever starts gets this many seconds. Only a failure lasts that long, so it is generous: on a machine
# busy with other work everything takes ten times as long.
START_LIMIT=240

# A condition of wait_until that can no longer come true returns this.
GIVE_UP=99

# wait_until LIMIT WHAT COMMAND…: repeats COMMAND until it succeeds. After LIMIT seconds, or when COMMAND gives
# up, it says what was waited for, with the last answer of COMMAND, and fails.
wait_until() {
  local limit=$1 what=$2 answer status start=$SECONDS
  shift 2
  while :; do
    status=0
    answer=$("$@" 2>&1) || status=$?
    ((status != 0)) || return 0
    if ((status == GIVE_UP || SECONDS - start >= limit)); then
      say "cluster: waited $(duration $((SECONDS - start))) in vain for: $what"
      [ -z "$answer" ] || say "cluster: the last answer was: $answer"
      return 1
    fi
    sleep 0.2
  done
}

# --- steps with progress -------------------------------------------------------------------------------

STEP_LABELS=()
STEP_COMMANDS=()
STEP_PID=

# queue_step LABEL COMMAND…: remembers a step; run_steps runs all of them, numbered.
queue_step() {
  STEP_LABELS+=("$1")
  shift
  STEP_COMMANDS+=("$(printf '%q ' "$@")")
}

# run_steps FOLDER: runs the queued steps one after the other; what they print goes to files in FOLDER.
# A step runs in a subshell, so it hands on results by files only. Never call this in a condition: bash
# would then ignore errors inside the steps.
run_steps() {
  local folder=$1 total=${#STEP_LABELS[@]} i
  mkdir -p "$folder"
  for ((i = 0; i < total; i++)); do
    run_step "$((i + 1))" "$total" "${STEP_LABELS[i]}" "${STEP_COMMANDS[i]}" "$folder"
  done
  STEP_LABELS=()
  STEP_COMMANDS=()
}

run_step() {
  local number=$1 total=$2 label=$3 command=$4 folder=$5
  local start=$SECONDS status=0 head log
  printf -v head '[%2d/%d] %s' "$number" "$total" "$label"
  log=$folder/$(printf '%s' "$label" | tr -cs 'A-Za-z0-9.' '-').log
  # Job control gives the step its own process group, so that an interrupt can end all of it.
  set -m
  (eval "$command") >"$log" 2>&1 </dev/null &
  STEP_PID=$!
  set +m
  show_elapsed "$head" "$start" "$STEP_PID"
  wait "$STEP_PID" || status=$?
  STEP_PID=
  if ((status != 0)); then
    say "$head … failed after $(duration $((SECONDS - start)))"
    tail -n 30 "$log" | sed 's/^/    /' >&2
    die "the step '$label' failed; its whole output is in $log"
  fi
  say "$head … $(duration $((SECONDS - start)))"
}

# show_elapsed HEAD START PID: a ticking line on a terminal, otherwise a line every 20 seconds.
show_elapsed() {
  local head=$1 start=$2 pid=$3 shown=0 elapsed=0
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.1
    ((SECONDS - start > elapsed)) || continue
    elapsed=$((SECONDS - start))
    if [ -t 2 ]; then
      printf '\r\033[K%s … %s' "$head" "$(duration "$elapsed")" >&2
    elif ((elapsed - shown >= 20)); then
      shown=$elapsed
      say "$head … $(duration "$elapsed")"
    fi
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
}

# end_step: ends the running step, if any; for the traps of the entry point.
end_step() {
  [ -n "$STEP_PID" ] || return 0
  kill -TERM -- "-$STEP_PID" 2>/dev/null || true
  wait "$STEP_PID" 2>/dev/null || true
  STEP_PID=
}
