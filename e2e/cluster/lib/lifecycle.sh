# shellcheck shell=bash
# up and down of a whole run, and whether it is healthy.

# expected_processes: the records of a run that is complete.
expected_processes() {
  local node
  printf '%s\n' etcd kube-apiserver
  [ "$STAGE" = cluster ] || return 0
  printf '%s\n' kube-controller-manager kube-scheduler relay-api
  for node in "${NODES[@]}"; do
    printf '%s\n' "$node-containerd" "$node-kube-proxy" "$node-kubelet"
  done
}

# A busy machine may make a sound cluster look ill for a moment; `up` must not throw that away.
HEALTHY_LIMIT=60

# all_run: says which process is missing and fails, if one is.
all_run() {
  local name
  [ -s "$STATE/ports" ] || { echo "it is not complete" && return 1; }
  while read -r name; do
    process_pid "$name" >/dev/null || { echo "$name does not run" && return 1; }
  done < <(expected_processes)
}

# healthy: says what is wrong and fails, if something is.
healthy() {
  local node
  all_run || return 1
  load_ports
  api_server_ready >/dev/null || { echo "the API server is not ready" && return 1; }
  [ "$STAGE" = cluster ] || return 0
  for node in "${NODES[@]}"; do
    node_ready "$node" >/dev/null || { echo "$node is not Ready" && return 1; }
  done
  kube --namespace kube-system wait deployment/coredns --for=condition=Available --timeout=1s >/dev/null ||
    { echo "CoreDNS is not available" && return 1; }
}

up() {
  local problem
  need_root_for_cluster
  if leftovers; then
    if problem=$(all_run) && problem=$(wait_until "$HEALTHY_LIMIT" "a healthy cluster" healthy 2>&1); then
      say "cluster: already up (suffix $SUFFIX)"
      return 0
    fi
    say "cluster: ${problem#cluster: }; starting it anew"
    down
  fi
  queue_tools "$STAGE"
  if [ "$STAGE" = cluster ]; then
    queue_images cluster
    queue_step "certificates" prepare
    queue_step "network and nodes" make_machines
    queue_step "etcd and API server" start_control_plane
    queue_step "container runtimes, controllers" start_runtimes
    queue_step "nodes Ready" start_nodes
    queue_step "DNS and storage" start_services
  else
    queue_step "certificates" prepare
    queue_step "etcd and API server" start_control_plane
  fi
  mkdir -p "$LOGS"
  run_steps "$LOGS/steps"
}

need_root_for_cluster() {
  [ "$STAGE" != cluster ] || ((EUID == 0)) ||
    die "the cluster stage makes network namespaces and mounts, which only root may: run it as root, or use --stage api"
}

# --- the steps; each runs in a subshell ------------------------------------------------------------------

prepare() {
  choose_ports
  load_ports
  make_pki
}

make_machines() {
  load_ports
  make_network
  make_nodes
}

start_control_plane() {
  load_ports
  start_etcd
  start_api_server
  if [ "$STAGE" = cluster ]; then
    publish_api
  else
    write_kubeconfig host admin
  fi
}

# publish_api: one loopback port of this machine leads to the API server, for kubectl, helm and tests.
publish_api() {
  local port
  port=$(free_ports 1)
  start_relay api "$port" "$(node_address "${NODES[0]}"):$API_PORT"
  write_kubeconfig host admin "https://127.0.0.1:$port"
}

# start_relay NAME PORT TARGET: 127.0.0.1:PORT here leads to TARGET as seen from node1.
start_relay() {
  spawn "relay-$1" "$(tool_file relay)" "127.0.0.1:$2" "/run/netns/$(network_name "${NODES[0]}")" "$3"
  printf '%s %s\n' "$2" "$3" >"$STATE/relay-$1"
}

start_runtimes() {
  load_ports
  start_controllers
  on_all_nodes start_containerd
  load_image "$PAUSE_IMAGE" "${NODES[@]}"
  load_image "$COREDNS_IMAGE" "${NODES[@]}"
}

start_nodes() {
  load_ports
  on_all_nodes start_kubelet
}

start_services() {
  load_ports
  kube apply --filename - <"$CLUSTER_HOME/manifests/storage.yaml"
  kube apply --filename - <"$CLUSTER_HOME/manifests/coredns.yaml"
  kube --namespace kube-system rollout status deployment/coredns --timeout="${START_LIMIT}s"
}

# make_volume NAME SIZE [ROOM]: kubelets give its folder to the group of a pod, which they do not do with the folders that the
# controller-manager makes. With ROOM there is no more than that on it, whatever it is said to have.
make_volume() {
  mkdir -p "$STATE/volumes/$1"
  [ -z "${3:-}" ] || mount -t tmpfs -o "mode=0777,size=$3" session-operator "$STATE/volumes/$1"
  sed "s/@NAME@/$1/; s/@SIZE@/$2/" "$CLUSTER_HOME/manifests/local-volume.yaml" | kube apply --filename -
}

# --- down ------------------------------------------------------------------------------------------------

# leftovers: whether anything of this run exists.
leftovers() {
  local node part
  [ ! -d "$STATE" ] || return 0
  [ "$STAGE" = cluster ] || return 1
  for part in bridge "${NODES[@]}"; do
    [ ! -e "/run/netns/$(network_name "$part")" ] || return 0
  done
  for node in "${NODES[@]}"; do
    [ -z "$(find /sys/fs/cgroup -maxdepth 2 -name "$(node_cgroup "$node")" -print -quit)" ] || return 0
  done
  return 1
}

# down: removes everything that carries this run's names, whether a record of it exists or not. Nothing in
# a test cluster is worth a graceful end, so processes get SIGKILL.
down() {
  local name node
  need_root_for_cluster
  if [ "$STAGE" = cluster ]; then
    # kubelets first: they would start again what is killed after them.
    for node in "${NODES[@]}"; do
      stop_process "$node-kubelet" KILL 10
    done
  fi
  while read -r name; do
    stop_process "$name" KILL 10
  done < <(recorded_processes)
  if [ "$STAGE" = cluster ]; then
    end_residents
    release_mounts
    remove_network
    for node in "${NODES[@]}"; do
      wait_until 20 "the control groups of $node to be removed" remove_cgroup "$node"
    done
    remove_volume_mount_point
  fi
  remove_state
}

# end_residents: kills whatever lives in the run's namespaces or control groups, until nothing does.
end_residents() {
  local deadline=$((SECONDS + 30)) pids
  while pids=$(residents) && [ -n "$pids" ]; do
    ((SECONDS < deadline)) || die "these processes of the cluster do not end: ${pids//$'\n'/ }"
    # One that ended by itself meanwhile is no failure.
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
    sleep 0.1
  done
}

# residents: the processes in the run's network or mount namespaces and in its control groups, but never
# this script or its callers.
residents() {
  local node part file tests=()
  for part in bridge "${NODES[@]}"; do
    file=/run/netns/$(network_name "$part")
    [ ! -e "$file" ] || tests+=(-o -lname "net:\\[$(stat -L -c %i "$file")\\]")
    file=$STATE/namespaces/$part.mount
    [ "$(stat -f -c %T "$file" 2>/dev/null)" != nsfs ] || tests+=(-o -lname "mnt:\\[$(stat -L -c %i "$file")\\]")
  done
  {
    # A process may end while find looks at it.
    [ ${#tests[@]} = 0 ] ||
      find /proc/[0-9]*/ns/net /proc/[0-9]*/ns/mnt -maxdepth 0 \( "${tests[@]:1}" \) 2>/dev/null | cut -d/ -f3 || true
    for node in "${NODES[@]}"; do
      cgroup_pids "$node"
    done
  } | sort -un | grep -vxF -f <(own_ancestry) || true
}

# release_mounts: the pins of the namespaces, and the folder that holds them.
release_mounts() {
  local point
  awk -v state="$STATE/" 'index($5, state) == 1 {print $5}' /proc/self/mountinfo | sort -r |
    while read -r point; do
      umount "$point"
    done
}

# remove_volume_mount_point: unless another run has its volumes mounted there.
remove_volume_mount_point() {
  local names=(/run/netns/so-*)
  if [ ! -e "${names[0]}" ] && [ -d /tmp/hostpath_pv ]; then
    rmdir --ignore-fail-on-non-empty /tmp/hostpath_pv
  fi
}

remove_state() {
  rm -rf --one-file-system "$STATE"
  rmdir --ignore-fail-on-non-empty "${STATE%/*}" 2>/dev/null || true
}

# restart_api_server: after kill-apiserver; does nothing if it runs.
restart_api_server() {
  process_gone kube-apiserver || return 0
  start_api_server
}

# expose PORT: prints the loopback address that leads to node1's PORT, for instance a NodePort.
expose() {
  local port
  [[ $1 =~ ^[0-9]+$ ]] || die "expose: '$1' is not a port"
  if process_gone "relay-$1"; then
    port=$(free_ports 1)
    start_relay "$1" "$port" "$(node_address "${NODES[0]}"):$1"
  fi
  read -r port _ <"$STATE/relay-$1"
  printf '127.0.0.1:%s\n' "$port"
}

# collect_all_logs FOLDER: logs of the processes and, if the API server answers, events, objects and pod logs.
collect_all_logs() {
  local namespace pod
  collect_logs "$1"
  api_server_ready >/dev/null 2>&1 || return 0
  kube get events --all-namespaces --sort-by=.lastTimestamp >"$1/events.txt"
  kube get pods --all-namespaces --output yaml >"$1/pods.yaml"
  [ "$STAGE" = cluster ] || return 0
  while read -r namespace pod; do
    kube --namespace "$namespace" logs "$pod" --all-containers --prefix --tail=2000 >"$1/pod-$namespace-$pod.log" 2>&1 ||
      say "cluster: no logs of $namespace/$pod"
  done < <(kube get pods --all-namespaces --no-headers --output custom-columns=:.metadata.namespace,:.metadata.name)
}
