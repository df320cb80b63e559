# shellcheck shell=bash
# Ingress controllers that are installed on demand. An addon counts as installed when a real route through
# it answers: the controllers' own probes are green long before that.

ADDON_NAMES="traefik traefik-nginx"

queue_addon() {
  case " $ADDON_NAMES " in
  *" $1 "*) ;;
  *) die "there is no addon named '$1'; expected one of: $ADDON_NAMES" ;;
  esac
  [ -x "$(tool_file traefik)" ] || queue_step "traefik $(tool_version traefik)" get_tool traefik
  queue_image traefik
  queue_step "addon $1: image" load_image "$TRAEFIK_IMAGE" "${NODES[@]}"
  queue_step "addon $1: installed" install_addon "$1"
  queue_step "addon $1: routes answer" check_addon "$1"
}

install_addon() {
  if [ "$1" = traefik ]; then
    kube apply --filename - <"$CLUSTER_HOME/manifests/traefik-crds.yaml"
    # Asked again and again: `kubectl wait` fails on a definition that has no condition at all yet.
    wait_until "$START_LIMIT" "Traefik's kinds" \
      kube wait --for=condition=Established --timeout=15s --filename "$CLUSTER_HOME/manifests/traefik-crds.yaml"
  fi
  sed "s/@TRAEFIK_VERSION@/$(tool_version traefik)/" "$CLUSTER_HOME/manifests/$1.yaml" | kube apply --filename -
  kube --namespace "$1" rollout status deployment/traefik --timeout="${START_LIMIT}s"
}

# check_addon NAME: makes a route to the controller's own ping, asks until it answers, removes the route.
check_addon() {
  addon_check_routes "$1" | kube apply --filename -
  case $1 in
  traefik)
    wait_until "$START_LIMIT" "an Ingress through traefik" route_answers 30080 ingress.addon-check.test
    wait_until "$START_LIMIT" "an IngressRoute through traefik" route_answers 30080 route.addon-check.test
    ;;
  traefik-nginx)
    wait_until "$START_LIMIT" "an Ingress through traefik-nginx" route_answers 30082 ingress.addon-check.test
    ;;
  esac
  addon_check_routes "$1" | kube delete --filename -
}

# route_answers NODEPORT HOST: asked from one node at the port of another.
route_answers() {
  in_network "${NODES[1]}" curl --silent --show-error --fail --max-time 2 --noproxy '*' \
    --header "Host: $2" "http://$(node_address "${NODES[0]}"):$1/ping"
}

addon_check_routes() {
  local class=traefik
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
