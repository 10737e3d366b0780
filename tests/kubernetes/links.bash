# Tests on a cluster whose store is the Kubernetes API. For `run` to source.
# shellcheck shell=bash

# ring FILTER: the Topology of three routers in a ring, changed by a jq filter.
ring() {
    kubectl create --dry-run=client -o json -f "$here/manifests/ring.yaml" | jq -s "[.[] | if .kind == \"List\" then .items[] else . end][] |
        select(.kind == \"Topology\") | del(.metadata.namespace) | $1" | k apply -f - >/dev/null
}
topology_ready() { k wait --for=condition=Ready --timeout=0 topology.ratchet.dev/"$1"; }
links_shown() { k get links -o json | jq -c '[.items[] | [.spec.a.pod, .spec.a.interface, .spec.b.pod, .spec.b.interface] | join(" ")] | sort'; }
links_are() { same "$1" "$(links_shown)"; }
no_links() { links_are "[]"; }
interfaces_are() { same "$2" "$(in_pod "$1" ls /sys/class/net | xargs)"; }
pods_are() { same "$1" "$(k get pods -o name | cut -d/ -f2 | xargs)"; }

# Three routers in a ring, and changes of it while they run.
test_topology() {
    local before
    make "$here/manifests/ring.yaml"
    check "the pods run" running || return
    check "the Topology is ready" topology_ready ring || return
    verify "r2 answers over VXLAN" ping_from r1 10.0.1.2
    verify "r3 answers on the same node" ping_from r2 10.0.2.2
    verify "r1 answers over VXLAN" ping_from r3 10.0.3.2
    verify "it has three Links" same '["r1 eth1 r2 eth1","r1 eth2 r3 eth2","r2 eth2 r3 eth1"]' "$(links_shown)"
    verify "kubectl shows ends, states and VNI" shows '^ring-[0-9a-f]{10} +r1 +eth1 +Up +r2 +eth1 +Up +[0-9]+ ' k get links
    verify "one is veth" shows '^ +veth ' in_pod r2 ip -d link show eth2
    verify "r1 has the cluster's network, too" shows 'inet 10\.22\.1\.' in_pod r1 ip addr show eth0
    before=$(ifindex r1 eth1)

    ring '.spec.links |= map(select(.endpoints[0] != "r3:eth2"))'
    check "a link that is declared no longer goes" interfaces_are r1 "eth0 eth1 lo"
    check "its Link, too" links_are '["r1 eth1 r2 eth1","r2 eth2 r3 eth1"]'
    ring '.spec.links[1].addresses = [["10.0.2.11/24"], ["10.0.2.12/24"]]'
    check "a new address is there" ping_from r2 10.0.2.12
    check "a link that is declared again is there" ping_from r3 10.0.3.2
    verify "the link that was not changed was not touched" same "$before" "$(ifindex r1 eth1)"

    k delete topology.ratchet.dev ring >/dev/null
    check "without the Topology there is no Link" no_links
    check "and no interface" interfaces_are r1 "eth0 lo"
    clear_up
    nothing_left
}

is_open() { ! kubectl get node "${hostname[$1]}" -o jsonpath='{.spec.taints[*].key}' | grep -q ratchet.dev/agent-not-ready; }

# A node with the taint of those that join is opened, since its agent is ready.
test_taint() {
    verify "the agent's directory is private" same 700 "$(on left stat -c %a /run/ratchet)"
    kubectl taint node "${hostname[left]}" ratchet.dev/agent-not-ready=:NoSchedule >/dev/null
    check "the controller removes the taint" is_open left
}

# What pods declare by themselves becomes Links, too.
test_labels() {
    make "$here/manifests/example.yaml"
    check "both pods run" running || return
    check "the pair answers" ping_from primary-pod 192.168.2.101
    verify "in1 is a tunnel" shows 'vxlan id [0-9]+ remote ' in_pod primary-pod ip -d link show in1
    verify "there is one Link, by labels" same '["pair-pod in2 primary-pod in1 Label"]' \
        "$(k get links -o json | jq -c '[.items[].spec | "\(.a.pod) \(.a.interface) \(.b.pod) \(.b.interface) \(.declaredBy)"]')"
    clear_up
    check "the Link goes with the pods" no_links
    nothing_left
}

# A StatefulSet in a ring, scaled while two of its pods talk.
test_statefulset() {
    make "$here/manifests/stateful-ring.yaml"
    check "three pods run" running s-0 s-1 s-2 || return
    check "s-1 answers" ping_from s-0 10.1.0.2
    pinger "$(entry s-0)" 10.1.0.2
    k scale statefulset s --replicas=8 >/dev/null
    check "eight pods run" running s-0 s-1 s-2 s-3 s-4 s-5 s-6 s-7
    check "all links are up" topology_ready stateful
    verify "the last link is there" ping_from s-7 10.1.7.2
    k scale statefulset s --replicas=3 >/dev/null
    check "three are left" pods_are "s-0 s-1 s-2"
    check "ten more pings" more_pings
    verify "s-0 and s-1 lost nothing" no_loss
    k delete topology.ratchet.dev/stateful statefulset/s --cascade=foreground >/dev/null
    clear_up
    nothing_left
}

# signal_all SIGNAL agent|controller: the process of each pod, without the pod's own namespaces.
signal_all() {
    local machine
    for machine in $nodes; do on "$machine" pkill "-$1" -f "^/ratchet $2" || true; done
}
# The link of r1 and r2 is up, and its status says so.
ends_are_up() { k get links -o json | jq -e '.items[] | select(.spec.b.pod == "r2") | [.status.a.state, .status.b.state] == ["Up", "Up"]'; }
has_agents() { on left pgrep -f '^/ratchet agent' && on right pgrep -f '^/ratchet agent'; }

# No controller works for a while, one is killed, and another one takes over; links that are up do not notice. Nor do they
# when agents are killed, one of which has lost its state directory: what was said of its ends tells it whose pods it had.
test_leaders() {
    make "$here/manifests/ring.yaml" r1
    make "$here/manifests/ring.yaml" r2
    check "two pods run" running r1 r2 || return
    signal_all STOP controller
    ring .
    check "r1 and r2 still run" running r1 r2
    verify "without a controller there is no Link" no_links
    signal_all CONT controller
    check "with one there is" ping_from r1 10.0.1.2
    pinger "$(entry r1)" 10.0.1.2
    check "both ends are told of" ends_are_up
    signal_all KILL controller
    signal_all STOP agent
    verify "the agent of left loses its files" on left rm -r /var/lib/ratchet/sandboxes /var/lib/ratchet/complete
    signal_all KILL agent
    make "$here/manifests/ring.yaml" r3
    check "agents run again" has_agents
    check "r3 runs" running r3
    check "r3 answers" ping_from r2 10.0.2.2
    check "ten more pings" more_pings
    verify "r1 and r2 lost nothing" no_loss
    k delete topology.ratchet.dev ring >/dev/null
    check "without the Topology r1 has no interface of it" interfaces_are r1 "eth0 lo"
    clear_up
    nothing_left
}

# chain COUNT: that many pods, each with a link to the next one.
chain() {
    jq -n --argjson count "$1" '{apiVersion: "v1", kind: "List", items: ([range($count) | {
        apiVersion: "v1", kind: "Pod", metadata: {name: "c\(.)"}, spec: {
            terminationGracePeriodSeconds: 1, nodeSelector: {ratchetside: (if . % 3 == 0 then "left" else "right" end)},
            containers: [{name: "main", image: "busybox:1.36", imagePullPolicy: "IfNotPresent", command: ["sleep", "infinity"]}]}}] + [{
        apiVersion: "ratchet.dev/v1alpha1", kind: "Topology", metadata: {name: "chain"}, spec: {links: [range($count - 1) | {
            endpoints: ["c\(.):next", "c\(. + 1):prev"], addresses: [["10.2.\(.).1/24"], ["10.2.\(.).2/24"]]}]}}])}' | k create -f - >/dev/null
}
pods_ready() { [ "$(k get pods -o json | jq '[.items[].status.conditions[]? | select(.type == "Ready" and .status == "True")] | length')" -ge "$1" ]; }
vnis_differ() { same "" "$(k get links -o json | jq -r '.items[].spec.vni // empty' | sort | uniq -d)"; }

# Controller, agents and API server are killed while the pods of a chain start. CHAIN is its length (40).
test_killed() {
    local count=${CHAIN:-40} deadline=$((deadline * 3))
    chain "$count"
    check "the first pods run" pods_ready 3
    signal_all KILL controller
    signal_all KILL agent
    check "some more run" pods_ready $((count / 3))
    "$here/cluster" stop control apiserver
    on left sleep "$((${API_SECONDS:-60} / 4))"
    "$here/cluster" start control apiserver
    check "the API server is back" kubectl get --raw /readyz
    check "all pods run" pods_ready "$count" || return
    check "all links are up" topology_ready chain || return
    verify "no two Links have one VNI" vnis_differ
    verify "the first link carries" ping_from c0 10.2.0.2
    verify "so does the last one" ping_from "c$((count - 2))" "10.2.$((count - 2)).2"
    k delete topology.ratchet.dev chain >/dev/null
    clear_up
    nothing_left
}
