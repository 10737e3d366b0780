# What `cluster` and `run` share: names, and how to enter the cluster's machines. For bash to source.
# shellcheck shell=bash disable=SC2034 # used by those who source it

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$repo/target}
ratchet=$(realpath -m "${RATCHET:-$target/release/ratchet}")
# Each cluster makes it again. (Kubernetes' programs are kept elsewhere: build/programs.)
image=$target/kubernetes/image.tar
# Everything else that a running cluster has outside of its namespaces. Its cgroups have the same name.
name=${CLUSTER:-ratchet-kubernetes}
state=/run/$name
# A link to the folder of Kubernetes' programs.
programs=$state/programs

# The machines: the control plane and the article's two minions, with the article's addresses.
nodes="left right"
declare -A hostname=([control]=kube-master [left]=kube-minion-1 [right]=kube-minion-2)
declare -A address=([control]=192.168.1.10 [left]=192.168.1.73 [right]=192.168.1.33)
declare -A pod_subnet=([left]=10.22.1.0/24 [right]=10.22.2.0/24)
service_subnet=10.96.0.0/16
service_address=10.96.0.1

fail() {
    echo "$*" >&2
    exit 1
}

# until_true SECONDS WHAT COMMAND...: polls; at the deadline it says what is missing, and fails.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "$what: expected within the deadline: $*" >&2
            return 1
        fi
        sleep 0.1
    done
}

# A process is identified by its id and its start time, so that an id which another process has by now is never used.
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# holder MACHINE: the first process of the machine's namespaces, if the machine is up.
holder() {
    local pid start
    read -r pid start 2>/dev/null <"$state/$1.holder" || return 1
    [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}

# The machines' cgroups: a folder in each hierarchy. In version 2 processes may only be in leaves.
hierarchies() { sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \([^ ]*\) .* - cgroup2\{0,1\} .*/\1/p' /proc/self/mountinfo; }
# Puts this process into a machine's cgroups.
join() {
    local hierarchy dir
    for hierarchy in $(hierarchies); do
        dir=$hierarchy/$name/$1
        [ -d "$dir/init" ] && dir=$dir/init
        echo 0 >"$dir/cgroup.procs"
    done
}

# on MACHINE COMMAND...: runs it there.
on() {
    local pid
    pid=$(holder "$1") || fail "there is no machine $1: is the cluster up?"
    shift
    nsenter -t "$pid" -m -u -n -p -C --wd=/ -- "$@"
}

# daemon MACHINE NAME COMMAND...: runs it there in the background, with a log file. Another one of that name must have ended.
daemon() {
    local machine=$1 program=$2 pid
    shift 2
    pid=$(holder "$machine")
    # shellcheck disable=SC2016 # for the inner shell
    (
        join "$machine"
        exec nsenter -t "$pid" -m -u -n -p -C --wd=/ -- setsid -f sh -c 'echo $$ >"/run/$0.pid" && exec "$@"' "$program" "$@" \
            </dev/null >>"$state/log/$machine-$program.log" 2>&1
    )
}

# kill_daemon MACHINE NAME SIGNAL: sends the signal and waits until the daemon has ended.
kill_daemon() {
    # shellcheck disable=SC2016 # for the inner shell
    on "$1" sh -c 'pid=$(cat "/run/$1.pid") && kill "-$2" "$pid" && rm "/run/$1.pid" && while [ -e "/proc/$pid/exe" ]; do sleep 0.05; done' - "$2" "$3"
}

kubectl() {
    local pid
    pid=$(holder control) || fail "the cluster is not up"
    KUBECACHEDIR=$state/kubectl-cache KUBECONFIG=$state/admin.kubeconfig nsenter -t "$pid" -n -- "$programs/kubectl" "$@"
}
etcdctl() { on control env ETCDCTL_API=3 etcdctl "$@"; }
