# shellcheck shell=bash
# The control groups of the nodes: each kubelet keeps its pods below one group of its own. Version 1 has one
# tree per controller, version 2 a single tree.

node_cgroup() { printf 'so-%s-%s' "$SUFFIX" "$1"; }

cgroup_version() {
  if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then printf 2; else printf 1; fi
}

# cgroup_trees: the folders below which a node's group exists.
cgroup_trees() {
  if [ "$(cgroup_version)" = 2 ]; then
    printf '/sys/fs/cgroup\n'
  else
    awk '($3 == "cgroup" || $3 == "cgroup2") && $2 ~ "^/sys/fs/cgroup/" {print $2}' /proc/mounts
  fi
}

make_cgroup() {
  local group tree
  group=$(node_cgroup "$1")
  while read -r tree; do
    mkdir -p "$tree/$group"
    # In version 1 a new cpuset is empty, and no process can enter it before it has processors and memory.
    if [ -e "$tree/$group/cpuset.cpus" ] && [ "$(cgroup_version)" = 1 ]; then
      cat "$tree/cpuset.cpus" >"$tree/$group/cpuset.cpus"
      cat "$tree/cpuset.mems" >"$tree/$group/cpuset.mems"
    fi
  done < <(cgroup_trees)
  [ "$(cgroup_version)" = 1 ] || delegate_controllers "$group"
}

# delegate_controllers GROUP: in version 2 a group has only the controllers that its parent passes down.
delegate_controllers() {
  local controller
  for controller in cpuset cpu io memory pids; do
    grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers || continue
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    echo "+$controller" >"/sys/fs/cgroup/$1/cgroup.subtree_control"
  done
}

# cgroup_pids NODE: the processes of the node's containers.
cgroup_pids() {
  local group tree
  group=$(node_cgroup "$1")
  while read -r tree; do
    [ ! -d "$tree/$group" ] || find "$tree/$group" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done < <(cgroup_trees) | sort -un
}

# remove_cgroup NODE: fails while a group below it still holds a process.
remove_cgroup() {
  local group tree
  group=$(node_cgroup "$1")
  while read -r tree; do
    [ ! -d "$tree/$group" ] || find "$tree/$group" -depth -type d -exec rmdir {} + || return 1
  done < <(cgroup_trees)
}
