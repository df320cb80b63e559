# shellcheck shell=bash
# Certificates and kubeconfigs of one run. They live in its state folder and die with it.

PKI_DAYS=365

# make_pki: everything that the stage needs.
make_pki() {
  mkdir -p "$PKI"
  chmod 0700 "$PKI"
  make_authority ca kubernetes
  make_authority front-proxy-ca front-proxy
  issue ca apiserver /CN=kube-apiserver "$(api_server_names)"
  issue ca apiserver-kubelet-client /O=system:masters/CN=apiserver-kubelet-client
  issue front-proxy-ca front-proxy-client /CN=front-proxy-client
  issue ca admin /O=system:masters/CN=admin
  openssl ecparam -genkey -name prime256v1 -noout -out "$PKI/service-account.key"
  openssl ec -in "$PKI/service-account.key" -pubout -out "$PKI/service-account.pub" 2>/dev/null
  write_kubeconfig admin admin
  [ "$STAGE" = cluster ] || return 0

  local node
  issue ca controller-manager /CN=system:kube-controller-manager
  issue ca scheduler /CN=system:kube-scheduler
  issue ca proxy /CN=system:kube-proxy
  for node in "${NODES[@]}"; do
    issue ca "$node" "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$(node_address "$node")"
    write_kubeconfig "$node" "$node"
  done
  write_kubeconfig controller-manager controller-manager
  write_kubeconfig scheduler scheduler
  write_kubeconfig proxy proxy
}

api_server_names() {
  local names=IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default
  names+=,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:$SERVICE_API
  [ "$STAGE" != cluster ] || names+=,IP:$(node_address "${NODES[0]}")
  printf '%s' "$names"
}

make_authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days "$PKI_DAYS" \
    -subj "/CN=$2" -keyout "$PKI/$1.key" -out "$PKI/$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
}

# issue AUTHORITY NAME SUBJECT [ALTERNATIVE-NAMES]: a key and a certificate for both ends of TLS.
issue() {
  local extensions=$'keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n'
  [ -z "${4:-}" ] || extensions+="subjectAltName=$4"$'\n'
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj "$3" -keyout "$PKI/$2.key" 2>/dev/null |
    openssl x509 -req -days "$PKI_DAYS" -CA "$PKI/$1.crt" -CAkey "$PKI/$1.key" \
      -extfile <(printf '%s' "$extensions") -out "$PKI/$2.crt" 2>/dev/null
}

# write_kubeconfig NAME CERTIFICATE [SERVER]: NAME.kubeconfig, self-contained.
write_kubeconfig() {
  local server=${3:-$(api_server_url)}
  cat >"$PKI/$1.kubeconfig" <<EOF
apiVersion: v1
kind: Config
clusters:
- name: $SUFFIX
  cluster:
    server: $server
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
- name: $2
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$2.crt")
    client-key-data: $(base64 -w0 "$PKI/$2.key")
contexts:
- name: $SUFFIX
  context: {cluster: $SUFFIX, user: $2}
current-context: $SUFFIX
EOF
  chmod 0600 "$PKI/$1.kubeconfig"
}
