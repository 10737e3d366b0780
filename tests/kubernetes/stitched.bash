# Tests of stitched links on a cluster whose store is the Kubernetes API. For `run` to source.
# shellcheck shell=bash

# wheel PODS PARALLEL: a Topology of a ring of so many pods with so many links between neighbours, all of them stitched, and
# then the pods. What interfaces there are is the first thing that each of them writes down.
wheel() {
    jq -n --argjson pods "$1" --argjson parallel "$2" '
        def next: (. + 1) % $pods;
        {apiVersion: "v1", kind: "List", items: ([{
        apiVersion: "ratchet.dev/v1alpha1", kind: "Topology", metadata: {name: "wheel"}, spec: {links: [range($pods) as $pod | range($parallel) | {
            wiring: "stitched", endpoints: ["w\($pod):next\(.)", "w\($pod | next):prev\(.)"],
            addresses: [["10.\(20 + .).\($pod).1/24"], ["10.\(20 + .).\($pod).2/24"]]}]}}] + [range($pods) | {
        apiVersion: "v1", kind: "Pod", metadata: {name: "w\(.)"}, spec: {
            terminationGracePeriodSeconds: 1, nodeSelector: {ratchetside: (if . % 3 == 0 then "left" else "right" end)},
            containers: [{name: "main", image: "busybox:1.36", imagePullPolicy: "IfNotPresent",
                command: ["sh", "-c", "ls /sys/class/net >/first; exec sleep infinity"]}]}}])}' | k create -f - >/dev/null
}
# How many interfaces of links a pod's first process saw.
seen_at_first() { in_pod "$1" cat /first | grep -cE '^(next|prev)'; }
# missing PODS PARALLEL: how many interfaces were missing when the first processes of all pods started.
missing() {
    local pod seen all=0
    for ((pod = 0; pod < $1; pod++)); do
        seen=$(seen_at_first "w$pod")
        all=$((all + 2 * $2 - seen))
    done
    echo "$all"
}
# What must not change of an interface: index, MAC and what it has counted, without the counters' values.
kept() { in_pod "$1" ip -o link show "$2" | awk '{print $1, $2}'; ifindex "$1" "$2"; }

# PODS (8) pods with PARALLEL (3) links between neighbours: their interfaces stay when one of the pods is replaced. How many of
# them were missing when the first processes started is printed and not judged: an ADD does not wait for the controller.
test_stitched() {
    local pods=${PODS:-8} parallel=${PARALLEL:-3} before
    wheel "$pods" "$parallel"
    check "all pods run" pods_ready "$pods" || return
    echo "      of $((2 * pods * parallel)) interfaces $(missing "$pods" "$parallel") were missing at first"
    check "all links are up" topology_ready wheel || return
    verify "a link between nodes carries" ping_from w0 10.20.0.2
    verify "a link within a node carries" ping_from w1 10.20.1.2
    verify "a pod has veths only" same "" "$(in_pod w0 ip -d link show | grep vxlan)"
    before=$(kept w0 next0)
    k delete pod w1 --grace-period=1 >/dev/null
    wheel "$pods" "$parallel" 2>/dev/null || true
    check "the pod that was replaced answers" ping_from w0 10.20.0.2
    verify "its peer's interface is the same" same "$before" "$(kept w0 next0)"
    k delete topology.ratchet.dev wheel >/dev/null
    check "without the Topology there is no Link" no_links
    clear_up
    nothing_left
}
