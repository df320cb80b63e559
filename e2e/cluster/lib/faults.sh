# shellcheck shell=bash
# Faults on purpose: volumes filled, cables pulled, processes killed, a pod cut off from the API server.

# cut_node NODE: pulls the node's cable. Its pods go on running and reach each other on the node.
cut_node() { ip -n "$(network_name bridge)" link set "$1" down; }

heal_node() { ip -n "$(network_name bridge)" link set "$1" up; }

# fill_volume NAME: with zeros, until nothing more can be written. Never the disk of this machine.
fill_volume() {
  local folder="$STATE/volumes/$1"
  mountpoint --quiet "$folder" || die "fill: the volume $1 was not made with ROOM"
  dd if=/dev/zero of="$folder/filler" bs=64K status=none 2>/dev/null || true
  [ "$(stat --file-system --format %f "$folder")" = 0 ] || die "fill: the volume $1 is not full"
}

clear_volume() { rm -f "$STATE/volumes/$1/filler"; }

# kill_container NAMESPACE POD [CONTAINER]: SIGKILL to the container's main process, by default the first container's.
kill_container() {
  local namespace=$1 pod=$2 container=${3:-} node id pid
  {
    read -r node
    read -r container id
  } < <(container_of "$namespace" "$pod" "$container")
  [ -n "${id:-}" ] || die "kill: the pod $namespace/$pod has no running container ${container:-at all}"
  pid=$(on_node "$node" ctr --namespace k8s.io tasks list | awk -v id="$id" '$1 == id {print $2}')
  [ -n "$pid" ] || die "kill: the container $container of $namespace/$pod does not run on $node any more"
  kill -KILL "$pid"
  say "killed process $pid, container $container of $namespace/$pod on $node"
}

# container_of NAMESPACE POD [CONTAINER]: the node's name, then the container's name and id.
container_of() {
  local statuses='{.name}{" "}{.containerID}{"\n"}{end}' answer
  answer=$(kube --namespace "$1" get pod "$2" --output "jsonpath={.spec.nodeName}{\"\n\"}\
{range .status.containerStatuses[*]}$statuses{range .status.initContainerStatuses[*]}$statuses")
  head -n1 <<<"$answer"
  tail -n +2 <<<"$answer" |
    awk -v name="$3" 'name == "" || $1 == name {sub("^containerd://", "", $2); print; exit}'
}

# cut_port NODE PORT: pods of the node and those of other nodes do not reach each other's TCP port any more.
cut_port() { in_network "$1" nft add element ip faults cut_ports "{ $2 }"; }

heal_port() { in_network "$1" nft delete element ip faults cut_ports "{ $2 }"; }

# --- a pod without the API server ------------------------------------------------------------------------
# Every node has a set of pod addresses whose packets to and from the API server are dropped. The chain runs
# behind kube-proxy's translation of the service address (priority -100), so it sees the server's own one.

add_fault_table() {
  local server
  server=$(node_address "${NODES[0]}")
  in_network "$1" nft -f - <<EOF
table ip faults {
  set cut_off { type ipv4_addr; }
  set cut_ports { type inet_service; }
  chain between_nodes {
    type filter hook forward priority 0;
    iifname e0 tcp dport @cut_ports counter drop
    iifname e0 tcp sport @cut_ports counter drop
    oifname e0 tcp dport @cut_ports counter drop
    oifname e0 tcp sport @cut_ports counter drop
  }
  chain incoming {
    type filter hook prerouting priority -90;
    ip saddr @cut_off ip daddr $server tcp dport $API_PORT counter drop
    ip saddr $server tcp sport $API_PORT ip daddr @cut_off counter drop
  }
  chain outgoing {
    type filter hook output priority 0;
    ip saddr $server tcp sport $API_PORT ip daddr @cut_off counter drop
  }
}
EOF
}

# cut_pod NAMESPACE/POD: remembers node and address, because heal_pod may come after the pod's end.
cut_pod() {
  local node address record
  record=$(pod_fault_record "$1")
  read -r node address < <(kube --namespace "${1%%/*}" get pod "${1#*/}" \
    --output 'jsonpath={.spec.nodeName}{" "}{.status.podIP}{"\n"}')
  [ -n "${address:-}" ] || die "cut-pod: the pod $1 has no address yet"
  mkdir -p "${record%/*}"
  printf '%s %s\n' "$node" "$address" >"$record"
  in_network "$node" nft add element ip faults cut_off "{ $address }"
}

heal_pod() {
  local node address record
  record=$(pod_fault_record "$1")
  [ -s "$record" ] || die "heal-pod: $1 is not cut off"
  read -r node address <"$record"
  in_network "$node" nft delete element ip faults cut_off "{ $address }"
  rm -f "$record"
}

pod_fault_record() {
  [[ $1 == ?*/?* ]] || die "expected NAMESPACE/POD, not '$1'"
  printf '%s/faults/%s' "$STATE" "${1/\//_}"
}
