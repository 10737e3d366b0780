# Tests of Topologies that know pods by what selects them, on a cluster whose store is the Kubernetes API. For `run` to source.
# shellcheck shell=bash

# The slot's pods that are not being deleted, the oldest one first.
core_pods() {
    k get pods -l app=core --sort-by=.metadata.creationTimestamp -o json |
        jq -r '.items[] | select(.metadata.deletionTimestamp == null) | .metadata.name'
}
# core_is_new OLD: there is one pod, another one, and its container runs.
core_is_new() { [ "$(core_pods | wc -l)" = 1 ] && [ "$(core_pods)" != "$1" ] && in_pod "$(core_pods)" true; }
# core_waits OLD: beside the old one there is a new one, and its container runs.
core_waits() { [ "$(core_pods | head -n 1)" = "$1" ] && [ "$(core_pods | wc -l)" = 2 ] && in_pod "$(core_pods | tail -n 1)" true; }
# What there is of the link: object, VNI; and the index and MAC of the interface that must stay.
slots_link() { k get links -o json | jq -c '[.items[] | [.metadata.name, .metadata.uid, .spec.vni]]'; }
survivors_end() { in_pod edge-0 cat /sys/class/net/eth1/ifindex /sys/class/net/eth1/address | xargs; }
link_stays() {
    check "$1: the survivor's pings are answered" ping_from edge-0 10.3.0.1
    verify "$1: its interface has its index and MAC" same "$end" "$(survivors_end)"
    verify "$1: the Link is the same, with the same VNI" same "$link" "$(slots_link)"
}
core_gone() { same "" "$(k get pods -l app=core -o name | grep -Fx "pod/$1")"; }

# A Deployment of one is rolled out again and again; the other end of its link is the pod of a StatefulSet.
test_slots() {
    local link end old new
    make "$here/manifests/slots.yaml"
    check "the Topology is ready" topology_ready slots || return
    check "the Deployment's pod answers" ping_from edge-0 10.3.0.1
    link=$(slots_link) end=$(survivors_end)

    old=$(core_pods)
    k rollout restart deployment/core >/dev/null
    check "Recreate: there is a new pod" core_is_new "$old"
    link_stays Recreate

    old=$(core_pods)
    in_pod "$old" touch /ready
    k patch deployment core -p '{"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}}' >/dev/null
    check "the Deployment is available" k wait --for=condition=Available --timeout=0 deployment/core
    k rollout restart deployment/core >/dev/null
    check "RollingUpdate: the new pod runs beside the old one" core_waits "$old"
    new=$(core_pods | tail -n 1)
    check "RollingUpdate: one event tells it who has its place" has_one_event "$new" "pod $old is core of Topology $namespace/slots"
    verify "RollingUpdate: it has no link" interfaces_are "$new" "eth0 lo"
    verify "RollingUpdate: the old one has it" interfaces_are "$old" "eth0 eth1 lo"
    link_stays "RollingUpdate, both run"
    in_pod "$new" touch /ready
    check "RollingUpdate: the old pod goes" core_gone "$old"
    check "RollingUpdate: the new one has the link" interfaces_are "$new" "eth0 eth1 lo"
    link_stays RollingUpdate

    # To the survivor's node: the tunnel becomes a veth, and stays one.
    k patch deployment core -p '{"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}, "template": {"spec": {"nodeSelector": {"ratchetside": "right"}}}}}' >/dev/null
    check "other node: there is a new pod" core_is_new "$new"
    link_stays "other node"
    verify "other node: it is a veth" shows '^ +veth ' in_pod edge-0 ip -d link show eth1
    old=$(core_pods)
    k rollout restart deployment/core >/dev/null
    check "same node: there is a new pod" core_is_new "$old"
    link_stays "same node"

    k delete topology.ratchet.dev/slots >/dev/null
    check "without the Topology there is no Link" no_links
    k delete deployment/core statefulset/edge --cascade=foreground >/dev/null
    clear_up
    nothing_left
}

# The cloud router by a Topology, all pods as Deployments of one, and a router that is replaced.
test_cloud_router_topology() {
    kubectl create --dry-run=client -o json -f "$repo/examples/cloud-router.yaml" |
        jq -s '{apiVersion: "v1", kind: "List", items: map(if .kind == "List" then .items[] else . end | del(.metadata.namespace) |
            if .kind == "Pod" then {apiVersion: "apps/v1", kind: "Deployment", metadata: {name: .metadata.name}, spec: {
                replicas: 1, selector: {matchLabels: {app: .metadata.name}},
                template: {metadata: {labels: {app: .metadata.name}}, spec: .spec}}} else . end)}' | k create -f - >/dev/null
    k create -f "$here/manifests/cloud-router-topology.yaml" >/dev/null
    check "the Topology is ready" topology_ready cloud-router || return
    check "centosb answers through both routers, ttl=62" shows ' ttl=62 ' in_pod deployment/centosa ping -c1 -W1 192.168.4.101
    verify "the routers are OSPF neighbours" shows '^192\.168\.3\.101 .*Full' in_pod deployment/quagga-a vtysh -c 'show ip ospf neighbor'
    verify "between the nodes it is VXLAN" shows "vxlan id [0-9]+ remote ${address[right]} " in_pod deployment/quagga-a ip -d link show mid1
    verify "there are three Links, all up" same 3 "$(k get links -o json | jq '[.items[] | select(.status.a.state == "Up" and .status.b.state == "Up")] | length')"
    k rollout restart deployment/quagga-b >/dev/null
    check "another router takes the place of quagga-b" k rollout status deployment/quagga-b --timeout=1s
    check "centosb answers through it" shows ' ttl=62 ' in_pod deployment/centosa ping -c1 -W1 192.168.4.101
    k delete topology.ratchet.dev/cloud-router deployments/centosa deployments/quagga-a deployments/quagga-b deployments/centosb \
        configmaps/quagga-a configmaps/quagga-b --cascade=foreground >/dev/null
    clear_up
    nothing_left
}

# What a pod's author must correct is an event on the pod.
test_mistakes() {
    local wrong='.metadata |= {name: "wrong", annotations: {"ratchet.dev/links": "[{interface: eth1, pear: r2/eth1}]"}}'
    make "$here/manifests/ring.yaml" r1 "$wrong"
    check "the pod runs" running wrong || return
    check "one event tells what to correct" has_one_event wrong 'did you mean peer?'
    verify "its reason is the code" same KeyMisspelled "$(ratchet_events wrong 'ratchet.dev/links' | jq -r '.[].reason')"
    verify "nothing is made of it" no_links
    k annotate pod wrong other=change >/dev/null
    k annotate pod wrong --overwrite 'ratchet.dev/links=[{interface: eth1, peer: absent/eth1}]' >/dev/null
    check "corrected, it makes a Link" links_are '["absent eth1 wrong eth1"]'
    verify "there was no other event of it" has_one_event wrong 'did you mean peer?'
    clear_up
    nothing_left
}
