# shellcheck shell=bash
# The network of the cluster stage: a namespace with nothing but a bridge, and one namespace per node with
# one cable to that bridge. None of them has a link to the machine's own network, so the addresses below
# can neither reach nor hide anything outside, and every run can use the same ones.

NODES=(node1 node2 node3)
POD_RANGE=10.244.0.0/16
SERVICE_RANGE=10.96.0.0/16
SERVICE_API=10.96.0.1
SERVICE_DNS=10.96.0.10

node_number() { printf '%s' "${1#node}"; }
node_address() { printf '10.90.0.%s' "${1#node}"; }
node_pod_range() { printf '10.244.%s.0/24' "$((${1#node} - 1))"; }

# network_name PART: the network namespace of a node, or of the bridge.
network_name() { printf 'so-%s-%s' "$SUFFIX" "$1"; }

# check_node NODE: refuses what is not a node of this cluster.
check_node() {
  local node
  for node in "${NODES[@]}"; do
    [ "$1" != "$node" ] || return 0
  done
  die "there is no node '$1'; expected one of: ${NODES[*]}"
}

# in_network NODE COMMAND…: runs COMMAND in the node's network. Not `ip netns exec`: that mounts a new
# /sys, in which containerd and kubelet do not find their cgroups.
in_network() {
  local node=$1
  shift
  nsenter "--net=/run/netns/$(network_name "$node")" "$@"
}

make_network() {
  local bridge node other name
  bridge=$(network_name bridge)
  ip netns add "$bridge"
  ip -n "$bridge" link add br0 type bridge
  ip -n "$bridge" link set br0 up
  for node in "${NODES[@]}"; do
    name=$(network_name "$node")
    ip netns add "$name"
    ip -n "$name" link set lo up
    ip link add e0 netns "$name" type veth peer name "$node" netns "$bridge"
    ip -n "$bridge" link set "$node" master br0 up
    in_network "$node" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    connect_node "$node"
    add_fault_table "$node"
  done
}

# connect_node NODE: address and routes. The kernel forgets the routes when the cable is pulled on the
# node's side, so they are set here only, and faults pull it on the bridge's side.
connect_node() {
  local node=$1 other name
  name=$(network_name "$node")
  ip -n "$name" addr add "$(node_address "$node")/24" dev e0
  ip -n "$name" link set e0 up
  # kube-proxy and the pods' traffic to services want a default route; beyond the bridge there is nobody.
  ip -n "$name" route add default dev e0
  for other in "${NODES[@]}"; do
    [ "$other" = "$node" ] ||
      ip -n "$name" route add "$(node_pod_range "$other")" via "$(node_address "$other")"
  done
}

# remove_network: also what a killed run left.
remove_network() {
  local part name
  for part in bridge "${NODES[@]}"; do
    name=$(network_name "$part")
    [ ! -e "/run/netns/$name" ] || ip netns delete "$name"
  done
}
