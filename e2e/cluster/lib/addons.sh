# shellcheck shell=bash
# What is installed on demand: ingress controllers, and what enforces NetworkPolicies. An ingress controller counts as
# installed when a real route through it answers: its own probes are green long before that.

ADDON_NAMES="traefik traefik-nginx contour netpol"

queue_addon() {
  local image
  case " $ADDON_NAMES " in
  *" $1 "*) ;;
  *) die "there is no addon named '$1'; expected one of: $ADDON_NAMES" ;;
  esac
  if [ "$1" = netpol ]; then
    [ -x "$(tool_file netpol)" ] || queue_step "netpol" get_tool netpol
    queue_step "addon netpol: rules loaded" start_netpol
    return
  fi
  if [ "$1" = contour ]; then
    queue_image base
    for image in contour envoy; do
      queue_image_of_tool "$image"
      queue_step "addon contour: image of $image" load_image "$(image_reference "$image")" "${NODES[0]}"
    done
  else
    queue_image_of_tool traefik
    queue_step "addon $1: image" load_image "$TRAEFIK_IMAGE" "${NODES[@]}"
  fi
  queue_step "addon $1: installed" install_addon "$1"
  queue_step "addon $1: routes answer" check_addon "$1"
}

queue_image_of_tool() {
  [ -x "$(tool_file "$1")" ] || queue_step "$1 $(tool_version "$1")" get_tool "$1"
  queue_image "$1"
}

# start_netpol: a process for each node, in its network; without one NetworkPolicies are written and nothing heeds them.
start_netpol() {
  local node
  load_ports
  for node in "${NODES[@]}"; do
    process_gone "$node-netpol" || continue
    spawn "$node-netpol" nsenter "--net=/run/netns/$(network_name "$node")" "$(tool_file netpol)" \
      "$(api_server_url)" "$PKI" "$(node_pod_range "$node")"
  done
  for node in "${NODES[@]}"; do
    wait_until "$START_LIMIT" "the rules of $node" netpol_answers "$node"
  done
}

netpol_answers() {
  need_process "$1-netpol" || return
  in_network "$1" nft list table ip netpol
}

install_addon() {
  local deployment
  case $1 in
  traefik) install_kinds "$CLUSTER_HOME/manifests/traefik-crds.yaml" ;;
  contour) install_kinds "$(contour_kinds)" ;;
  esac
  sed "s/@TRAEFIK_VERSION@/$(tool_version traefik)/; s/@CONTOUR_VERSION@/$(tool_version contour)/; \
    s/@ENVOY_VERSION@/$(tool_version envoy)/" "$CLUSTER_HOME/manifests/$1.yaml" | kube apply --filename -
  for deployment in $(kube --namespace "$1" get deployments --output name); do
    kube --namespace "$1" rollout status "$deployment" --timeout="${START_LIMIT}s"
  done
}

# install_kinds FILE: definitions of kinds, and waits until they are served. On the server's side: some are too large for the
# annotation that kubectl leaves otherwise.
install_kinds() {
  kube apply --server-side --filename - <"$1"
  # Asked again and again: `kubectl wait` fails on a definition that has no condition at all yet.
  wait_until "$START_LIMIT" "the kinds of $1" kube wait --for=condition=Established --timeout=15s --filename "$1"
}

# contour_kinds: the definitions that come with the module that Contour is built from.
contour_kinds() {
  need_go
  (cd "$CLUSTER_HOME/go/contour" && go mod download github.com/projectcontour/contour >&2 &&
    printf '%s/examples/contour/01-crds.yaml' "$(go list -m -f '{{.Dir}}' github.com/projectcontour/contour)")
}

# check_addon NAME: makes a route to the controller's own ping, asks until it answers, removes the route.
check_addon() {
  addon_check_routes "$1" | kube apply --filename -
  case $1 in
  traefik)
    wait_until "$START_LIMIT" "an Ingress through traefik" route_answers 30080 ingress.addon-check.test
    wait_until "$START_LIMIT" "an IngressRoute through traefik" route_answers 30080 route.addon-check.test
    ;;
  contour)
    wait_until "$START_LIMIT" "an HTTPProxy through contour" route_answers 30084 route.addon-check.test
    ;;
  traefik-nginx)
    wait_until "$START_LIMIT" "an Ingress through traefik-nginx" route_answers 30082 ingress.addon-check.test
    ;;
  esac
  addon_check_routes "$1" | kube delete --filename -
}

# route_answers NODEPORT HOST: asked from one node at the port of another.
route_answers() {
  local path=/ping
  # Envoy's own answer to who asks whether it is ready.
  [ "$1" != 30084 ] || path=/ready
  in_network "${NODES[1]}" curl --silent --show-error --fail --max-time 2 --noproxy '*' \
    --header "Host: $2" "http://$(node_address "${NODES[0]}"):$1$path"
}

addon_check_routes() {
  local class=traefik
  if [ "$1" = contour ]; then
    cat <<EOF
apiVersion: projectcontour.io/v1
kind: HTTPProxy
metadata: {name: addon-check, namespace: contour}
spec:
  virtualhost: {fqdn: route.addon-check.test}
  routes: [{services: [{name: envoy, port: 8002}]}]
EOF
    return
  fi
  [ "$1" = traefik ] || class=nginx
  cat <<EOF
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: addon-check, namespace: $1}
spec:
  ingressClassName: $class
  rules:
  - host: ingress.addon-check.test
    http: {paths: [{path: /ping, pathType: Prefix, backend: {service: {name: traefik, port: {name: ping}}}}]}
EOF
  [ "$1" != traefik ] || cat <<EOF
---
apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: addon-check, namespace: $1}
spec:
  entryPoints: [web]
  routes:
  - {kind: Rule, match: Host(\`route.addon-check.test\`), services: [{name: traefik, port: ping}]}
EOF
}
