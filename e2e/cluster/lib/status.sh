# shellcheck shell=bash
# What a person or another program wants to know about a run.

show_status() {
  local name pid problem
  if [ ! -d "$STATE" ]; then
    say "cluster: not up (suffix $SUFFIX, stage $STAGE)"
    return 1
  fi
  printf 'suffix      %s\nstage       %s\nKubernetes  %s\nstate       %s\nlogs        %s\n' \
    "$SUFFIX" "$STAGE" "$KUBERNETES" "$STATE" "$LOGS"
  [ ! -s "$PKI/host.kubeconfig" ] || printf 'KUBECONFIG  %s\n' "$PKI/host.kubeconfig"
  printf '\n%-26s %-8s %-8s %s\n' PROCESS PID MEMORY STATE
  while read -r name; do
    if pid=$(process_pid "$name"); then
      printf '%-26s %-8s %-8s %s\n' "$name" "$pid" "$(memory_of "$pid")" running
    else
      printf '%-26s %-8s %-8s %s\n' "$name" - - 'not running'
    fi
  done < <({ expected_processes; recorded_processes; } | awk '!seen[$0]++')
  show_ports
  if [ "$STAGE" = cluster ] && api_server_ready >/dev/null 2>&1; then
    printf '\n'
    show_nodes
  fi
  if problem=$(healthy 2>/dev/null); then
    printf '\nhealthy\n'
  else
    printf '\nnot healthy: %s\n' "$problem"
    return 1
  fi
}

memory_of() { awk '/^VmRSS:/ {printf "%d MB", $2 / 1024}' "/proc/$1/status"; }

show_ports() {
  local file port target
  [ -s "$STATE/ports" ] || return 0
  load_ports
  printf '\n%-26s %s\n' PORT 'LEADS TO'
  if [ "$STAGE" = api ]; then
    printf '%-26s %s\n' "127.0.0.1:$API_PORT" kube-apiserver "127.0.0.1:$ETCD_PORT" etcd
    return
  fi
  for file in "$STATE"/relay-*; do
    [ -e "$file" ] || continue
    read -r port target <"$file"
    printf '%-26s %s\n' "127.0.0.1:$port" "$target (relay-${file##*/relay-})"
  done
}

show_nodes() {
  local node cable
  printf '%-8s %-12s %-16s %-22s %-7s %s\n' NODE ADDRESS PODS NETWORK CABLE READY
  for node in "${NODES[@]}"; do
    cable=in
    ip -n "$(network_name bridge)" link show "$node" | grep -q 'state UP' || cable=pulled
    printf '%-8s %-12s %-16s %-22s %-7s %s\n' "$node" "$(node_address "$node")" "$(node_pod_range "$node")" \
      "$(network_name "$node")" "$cable" "$(node_ready "$node" >/dev/null 2>&1 && echo yes || echo no)"
  done
}

# show_environment: for `eval "$(cluster env)"`.
show_environment() {
  local node
  print_export KUBECONFIG "$PKI/host.kubeconfig"
  # shellcheck disable=SC2016
  printf 'export PATH=%q:%q:"$PATH"\n' "$(dirname "$(tool_file kubectl)")" "$(dirname "$(tool_file helm)")"
  print_export CLUSTER_SUFFIX "$SUFFIX"
  print_export CLUSTER_STAGE "$STAGE"
  print_export CLUSTER_KUBERNETES "$KUBERNETES"
  print_export CLUSTER_STATE "$STATE"
  print_export CLUSTER_LOGS "$LOGS"
  print_export CLUSTER_AUDIT_LOG "$LOGS/audit.log"
  [ "$STAGE" = cluster ] || return 0
  print_export CLUSTER_NODES "${NODES[*]}"
  for node in "${NODES[@]}"; do
    print_export "CLUSTER_${node^^}_ADDRESS" "$(node_address "$node")"
    print_export "CLUSTER_${node^^}_NETWORK" "$(network_name "$node")"
  done
}

print_export() { printf 'export %s=%q\n' "$1" "$2"; }
