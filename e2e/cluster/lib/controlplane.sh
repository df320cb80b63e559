# shellcheck shell=bash
# etcd, kube-apiserver and, in the cluster stage, controller-manager and scheduler.

# In the cluster stage the control plane runs in node1's network; the api stage runs on the machine's loopback.
in_control_plane() {
  if [ "$STAGE" = cluster ]; then in_network "${NODES[0]}" "$@"; else "$@"; fi
}

# control_plane_command: the words to put before a daemon's command line.
control_plane_command() {
  [ "$STAGE" != cluster ] || printf 'nsenter\n--net=/run/netns/%s\n' "$(network_name "${NODES[0]}")"
}

# choose_ports: the cluster has its own network and uses the usual ports; on loopback three free ones are taken.
choose_ports() {
  if [ "$STAGE" = cluster ]; then
    printf 'ETCD_PORT=2379 ETCD_PEER_PORT=2380 API_PORT=6443\n' >"$STATE/ports"
  else
    local ports
    mapfile -t ports < <(free_ports 3)
    printf 'ETCD_PORT=%s ETCD_PEER_PORT=%s API_PORT=%s\n' "${ports[@]}" >"$STATE/ports"
  fi
}

# free_ports COUNT: loopback ports on which nobody listens now, below the range that the kernel hands out
# to outgoing connections.
free_ports() {
  local port found=0 used
  used=$(awk 'FNR > 1 {split($2, at, ":"); print at[2]}' /proc/net/tcp /proc/net/tcp6)
  while ((found < $1)); do
    port=$((20000 + RANDOM % 12000))
    ! grep -q "^$(printf %04X "$port")$" <<<"$used" || continue
    used+=$'\n'$(printf %04X "$port")
    printf '%s\n' "$port"
    found=$((found + 1))
  done
}

load_ports() {
  local pair
  for pair in $(<"$STATE/ports"); do
    printf -v "${pair%%=*}" '%s' "${pair#*=}"
  done
}

api_server_url() {
  if [ "$STAGE" = cluster ]; then
    printf 'https://%s:%s' "$(node_address "${NODES[0]}")" "$API_PORT"
  else
    printf 'https://127.0.0.1:%s' "$API_PORT"
  fi
}

kube() { in_control_plane "$(tool_file kubectl)" --kubeconfig="$PKI/admin.kubeconfig" "$@"; }

start_etcd() {
  local prefix
  mapfile -t prefix < <(control_plane_command)
  # The data need not survive a power cut: no fsync makes every write cheap.
  spawn etcd "${prefix[@]}" "$(tool_file etcd)" --data-dir "$STATE/etcd" --unsafe-no-fsync \
    --quota-backend-bytes 4294967296 \
    --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
    --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-cluster "default=http://127.0.0.1:$ETCD_PEER_PORT"
}

# start_api_server: starts it and waits until it answers; also used to start it again after a fault.
start_api_server() {
  local prefix flags
  mapfile -t prefix < <(control_plane_command)
  mapfile -t flags < <(api_server_flags)
  write_audit_policy
  spawn kube-apiserver "${prefix[@]}" "$(tool_file kube-apiserver)" "${flags[@]}"
  wait_until "$START_LIMIT" "the API server to be ready (log: $LOGS/kube-apiserver.log)" api_server_ready
}

api_server_ready() {
  need_process etcd || return
  need_process kube-apiserver || return
  kube get --raw /readyz --request-timeout=5s
}

api_server_flags() {
  cat <<EOF
--etcd-servers=http://127.0.0.1:$ETCD_PORT
--secure-port=$API_PORT
--client-ca-file=$PKI/ca.crt
--tls-cert-file=$PKI/apiserver.crt
--tls-private-key-file=$PKI/apiserver.key
--service-account-issuer=https://kubernetes.default.svc.cluster.local
--service-account-key-file=$PKI/service-account.pub
--service-account-signing-key-file=$PKI/service-account.key
--service-cluster-ip-range=$SERVICE_RANGE
--allow-privileged=true
--event-ttl=15m
--audit-policy-file=$STATE/audit-policy.yaml
--audit-log-path=$LOGS/audit.log
EOF
  if [ "$STAGE" = cluster ]; then
    cat <<EOF
--advertise-address=$(node_address "${NODES[0]}")
--authorization-mode=Node,RBAC
--enable-admission-plugins=NodeRestriction
--kubelet-client-certificate=$PKI/apiserver-kubelet-client.crt
--kubelet-client-key=$PKI/apiserver-kubelet-client.key
--kubelet-preferred-address-types=InternalIP
--requestheader-client-ca-file=$PKI/front-proxy-ca.crt
--requestheader-allowed-names=front-proxy-client
--requestheader-username-headers=X-Remote-User
--requestheader-group-headers=X-Remote-Group
--requestheader-extra-headers-prefix=X-Remote-Extra-
--proxy-client-cert-file=$PKI/front-proxy-client.crt
--proxy-client-key-file=$PKI/front-proxy-client.key
--feature-gates=HPAScaleToZero=true
--enable-aggregator-routing=true
--default-not-ready-toleration-seconds=15
--default-unreachable-toleration-seconds=15
EOF
  else
    # No controller makes service accounts here, so nothing may wait for them.
    cat <<EOF
--bind-address=127.0.0.1
--advertise-address=127.0.0.1
--authorization-mode=RBAC
--disable-admission-plugins=ServiceAccount
EOF
  fi
}

# write_audit_policy: one line per finished request, without bodies, so that tests can count the requests
# of a user agent.
write_audit_policy() {
  cat >"$STATE/audit-policy.yaml" <<'EOF'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
EOF
}

start_controllers() {
  local first=${NODES[0]} prefix
  mapfile -t prefix < <(node_command "$first")
  # In node1's mounts, because its provisioner makes the volumes' folders there (see make_node_mounts).
  spawn kube-controller-manager "${prefix[@]}" "$(tool_file kube-controller-manager)" \
    --kubeconfig="$PKI/controller-manager.kubeconfig" \
    --authentication-kubeconfig="$PKI/controller-manager.kubeconfig" \
    --authorization-kubeconfig="$PKI/controller-manager.kubeconfig" \
    --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/service-account.key" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --use-service-account-credentials --cluster-cidr="$POD_RANGE" --allocate-node-cidrs=false \
    --service-cluster-ip-range="$SERVICE_RANGE" --node-monitor-period=2s --node-monitor-grace-period=16s \
    --enable-hostpath-provisioner=true --leader-elect=false
  spawn kube-scheduler "${prefix[@]}" "$(tool_file kube-scheduler)" \
    --kubeconfig="$PKI/scheduler.kubeconfig" --authentication-kubeconfig="$PKI/scheduler.kubeconfig" \
    --authorization-kubeconfig="$PKI/scheduler.kubeconfig" --leader-elect=false
}
