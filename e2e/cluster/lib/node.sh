# shellcheck shell=bash
# One node: its namespaces, containerd, kube-proxy and kubelet.

node_folder() { printf '%s/%s' "$STATE" "$1"; }

# node_command NODE: the words that put a command into the node's network, mounts and host name.
node_command() {
  printf 'nsenter\n--net=/run/netns/%s\n--mount=%s\n--uts=%s\n' \
    "$(network_name "$1")" "$STATE/namespaces/$1.mount" "$STATE/namespaces/$1.uts"
}

# on_node NODE COMMAND…
on_node() {
  local prefix
  mapfile -t prefix < <(node_command "$1")
  shift
  "${prefix[@]}" "$@"
}

# make_nodes: namespaces and control groups of all nodes. The namespaces are pinned to files, so that they
# do not depend on any process. A mount namespace can only be pinned on a mount that is private.
make_nodes() {
  local node
  mkdir -p "$STATE/namespaces" "$STATE/volumes"
  # What is mounted there later is seen by all nodes.
  mount --bind "$STATE/volumes" "$STATE/volumes"
  mount --make-shared "$STATE/volumes"
  mount -t tmpfs -o mode=0700,size=1m session-operator "$STATE/namespaces"
  mount --make-private "$STATE/namespaces"
  for node in "${NODES[@]}"; do
    mkdir -p "$(node_folder "$node")"
    touch "$STATE/namespaces/$node.mount" "$STATE/namespaces/$node.uts"
    unshare "--mount=$STATE/namespaces/$node.mount" "--uts=$STATE/namespaces/$node.uts" --propagation slave \
      "$CLUSTER_HOME/lib/node-mounts" "$node" "$(node_folder "$node")" "$STATE/volumes"
    make_cgroup "$node"
  done
}

# on_all_nodes FUNCTION ARGUMENT…: calls FUNCTION NODE ARGUMENT… for all nodes at the same time.
on_all_nodes() {
  local function=$1 node pids=() pid
  shift
  for node in "${NODES[@]}"; do
    "$function" "$node" "$@" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid"
  done
}

start_containerd() {
  local node=$1 folder prefix
  folder=$(node_folder "$node")
  write_pod_network >"$folder/pod-network.json"
  write_containerd_settings "$folder" >"$folder/containerd.toml"
  mapfile -t prefix < <(node_command "$node")
  spawn "$node-containerd" "${prefix[@]}" containerd --config "$folder/containerd.toml"
  wait_until "$START_LIMIT" "containerd of $node to answer" containerd_answers "$node"
}

start_kubelet() {
  local node=$1 folder prefix
  folder=$(node_folder "$node")
  write_proxy_settings "$node" >"$folder/kube-proxy.yaml"
  write_kubelet_settings "$node" >"$folder/kubelet.yaml"
  mapfile -t prefix < <(node_command "$node")
  spawn "$node-kube-proxy" "${prefix[@]}" "$(tool_file kube-proxy)" --config="$folder/kube-proxy.yaml"
  spawn "$node-kubelet" "${prefix[@]}" "$(tool_file kubelet)" --config="$folder/kubelet.yaml" \
    --kubeconfig="$PKI/$node.kubeconfig" --hostname-override="$node" --node-ip="$(node_address "$node")"
  wait_until "$START_LIMIT" "$node to register (log: $LOGS/$node-kubelet.log)" node_registered "$node"
  # The controller-manager does not hand out pod ranges here: they must match the routes of make_network.
  kube patch node "$node" --patch \
    "{\"spec\": {\"podCIDR\": \"$(node_pod_range "$node")\", \"podCIDRs\": [\"$(node_pod_range "$node")\"]}}"
  wait_until "$START_LIMIT" "$node to be Ready" node_ready "$node"
}

containerd_answers() {
  need_process "$1-containerd" || return
  on_node "$1" ctr version
}

node_registered() {
  need_process "$1-kubelet" || return
  kube get node "$1"
}

node_ready() {
  local ready
  need_process "$1-kubelet" || return
  ready=$(kube get node "$1" --output 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')
  [ "$ready" = True ] || { echo "Ready is ${ready:-not known}" && return 1; }
}

write_pod_network() {
  cat <<'EOF'
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "{{.PodCIDR}}"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
EOF
}

write_containerd_settings() {
  cat <<EOF
version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  # Inside a container or a small virtual machine nobody may lower a score below its parent's.
  restrict_oom_score_adj = true
  disable_apparmor = true
  # Pods' network namespaces vanish with the node's mounts instead of staying in /run/netns.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
    conf_template = "$1/pod-network.json"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
EOF
}

write_kubelet_settings() {
  cat <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$(node_cgroup "$1")
enforceNodeAllocatable: [none]
oomScoreAdj: 0
failSwapOn: false
resolvConf: ""
clusterDNS: [$SERVICE_DNS]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard: {memory.available: 100Mi, nodefs.available: 500Mi, imagefs.available: 500Mi, nodefs.inodesFree: 1%}
# Images come by import only; one that was collected as garbage could not be pulled again.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 10
featureGates: {PodAndContainerStatsFromCRI: false}
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $PKI/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$1.crt
tlsPrivateKeyFile: $PKI/$1.key
EOF
}

write_proxy_settings() {
  cat <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $POD_RANGE
hostnameOverride: $1
oomScoreAdj: 0
# Connection tracking has limits for the whole machine; leave them alone.
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
clientConnection: {kubeconfig: $PKI/proxy.kubeconfig}
nodePortAddresses: [primary]
EOF
}
