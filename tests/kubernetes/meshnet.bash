# Tests of meshnet's objects on a cluster whose store is the Kubernetes API. For `run` to source.
# shellcheck shell=bash

# Objects as the `kne` command writes them: a Topology for each pod, with all fields of Go's types. Reads cables, one a line:
# UID POD:INTERFACE POD:INTERFACE. Each has its addresses by its number, 10.HIGH.LOW.1 and .2.
# shellcheck disable=SC2016 # for jq
objects='
def place: split(":") | {pod: .[0], interface: .[1]};
def seen($uid; $own; $peer; $one; $other): {uid: ($uid | tonumber), peer_pod: $peer.pod, local_intf: $own.interface,
    peer_intf: $peer.interface, local_ip: "\($one)/24", peer_ip: "\($other)/24", pod: $own.pod};
[inputs | split(" ") | . as [$uid, $one, $other] | ($one | place) as $a | ($other | place) as $z |
    ($uid | tonumber | "10.\(1 + (. / 256 | floor)).\(. % 256)") as $net |
    seen($uid; $a; $z; "\($net).1"; "\($net).2"), seen($uid; $z; $a; "\($net).2"; "\($net).1")] |
{apiVersion: "v1", kind: "List", items: (group_by(.pod) | map({
    apiVersion: "networkop.co.uk/v1beta1", kind: "Topology", metadata: {name: .[0].pod, creationTimestamp: null},
    spec: {links: map(del(.pod))}, status: {skipped: null, src_ip: "", net_ns: "", container_id: ""}}))}'
kne_objects() { jq -nR "$objects"; }

# lab_pods POD=SIDE=LINKS...: pods as `kne` makes them. An init container waits for their interfaces: eth0 and the links.
lab_pods() {
    jq -n '{apiVersion: "v1", kind: "List", items: [$ARGS.positional[] | split("=") | . as [$pod, $side, $links] | {
        apiVersion: "v1", kind: "Pod", metadata: {name: $pod, labels: {app: $pod, topo: "lab"}}, spec: {
            terminationGracePeriodSeconds: 0, nodeSelector: {ratchetside: $side},
            initContainers: [{name: "init-\($pod)", image: "busybox:1.36", imagePullPolicy: "IfNotPresent",
                command: ["sh", "-c", "until [ $(ls -d /sys/class/net/eth* | wc -l) -ge \(($links | tonumber) + 1) ]; do sleep 0.1; done"]}],
            containers: [{name: $pod, image: "busybox:1.36", imagePullPolicy: "IfNotPresent", command: ["sleep", "infinity"]}]}}]}' \
        --args "$@" | k create -f - >/dev/null
}

meshnet() { k "$1" topologies.networkop.co.uk "${@:2}"; }
# A pod counts as alive in its Topology.
alive() { meshnet get "$@" -o json | jq -e '[.items // [.] | .[].status | (.src_ip // "") != "" and (.net_ns // "") != "" and (.container_id // "") != ""] | length > 0 and all'; }
not_alive() { ! alive "$@"; }
plumbing_error() { meshnet get "$1" -o jsonpath='{.status.plumbing_error}'; }
no_plumbing_error() { same "" "$(plumbing_error "$1")"; }
links_up() { same "$1" "$(k get links -o json | jq '[.items[].status | select(.a.state == "Up" and .b.state == "Up")] | length')"; }

# What KNE asks for before it uses a cluster.
meshnet_healthy() {
    kubectl --namespace meshnet get daemonset meshnet -o json |
        jq -e '.status | .desiredNumberScheduled == 2 and .numberReady == 2 and (.numberUnavailable // 0) == 0 or error("\(.)")'
}
controller_runs() { kubectl --namespace ratchet rollout status --timeout=1s deployment/ratchet-controller; }
controller_logs() { kubectl --namespace ratchet logs -l app=ratchet-controller --tail=-1; }
# Ratchet in the place of meshnet, and back.
meshnet_begins() {
    kubectl apply --server-side -k "$repo/deploy/meshnet" >/dev/null
    check "KNE's health check is content" meshnet_healthy || return
    check "the controller runs with --meshnet" controller_runs || return
    # The controller's new pods have network namespaces, too.
    traces >"$work/before"
}
meshnet_ends() {
    local file
    k delete pods --all --grace-period=0 --force >/dev/null 2>&1
    meshnet delete --all >/dev/null
    check "without Topologies there is no Link" no_links
    nothing_left
    kubectl apply --server-side -f "$repo/deploy/ratchet.yaml" >/dev/null
    for file in health rights crd; do kubectl delete -f "$repo/deploy/meshnet/$file.yaml" >/dev/null; done
    check "the controller runs without --meshnet" controller_runs
    traces >"$work/before"
}

# KNE's three nodes with several links between any two: created, rewired while they run, deleted.
lab="0 r1:eth1 r2:eth1
1 r1:eth2 r2:eth2
2 r1:eth3 r2:eth3
3 r1:eth4 r2:eth4
4 r1:eth5 r3:eth1
5 r1:eth6 r3:eth2
6 r1:eth7 r3:eth3
7 r1:eth8 r3:eth4
8 r2:eth5 r3:eth5
9 r2:eth6 r3:eth6
10 r2:eth7 r3:eth7
11 r2:eth8 r3:eth8"
all_answer() {
    local uid one
    while read -r uid one _; do ping_from "${one%:*}" "10.1.$uid.2" || return; done
}
test_meshnet() {
    local before rewired
    meshnet_begins || { meshnet_ends; return; }
    kne_objects <<<"$lab" | k create -f - >/dev/null
    lab_pods r1=left=8 r2=right=8 r3=right=8
    check "three pods run, which waited for their interfaces" running r1 r2 r3 || { meshnet_ends; return; }
    check "their Topologies say so" alive r1 r2 r3
    check "12 links are up" links_up 12
    check "every link answers" all_answer <<<"$lab"
    verify "src_ip is the node's" same "${address[right]}" "$(meshnet get r2 -o jsonpath='{.status.src_ip}')"
    verify "container_id is the sandbox" shows "$(meshnet get r2 -o jsonpath='{.status.container_id}')" on right ctr -n k8s.io task ls
    verify "no link has an error" no_plumbing_error r1
    verify "meshnet declares all Links" same '["Meshnet"]' "$(k get links -o json | jq -c '[.items[].spec.declaredBy] | unique')"
    verify "no two of them have one VNI" vnis_differ

    # What a router makes in its pod by itself stays in any case.
    enter "$(entry r2)" ip link add kept type bridge
    enter "$(entry r2)" ip link add own0 type veth peer name own1
    # The first link goes to r3, and the second to nowhere: KNE counts again.
    rewired=$(sed -e 1,2d <<<"$lab" | awk '{ print NR - 1, $2, $3 }'; echo "10 r1:eth1 r3:eth9")
    verify "the last link is another one" same "10 r1:eth1 r3:eth9" "$(tail -n1 <<<"$rewired")"
    before=$(ifindex r1 eth3)
    kne_objects <<<"$rewired" | k apply -f - >/dev/null 2>&1
    check "the new link is there" shows 'eth9' in_pod r3 ls /sys/class/net
    check "the old ones have gone" interfaces_are r2 "eth0 eth3 eth4 eth5 eth6 eth7 eth8 kept lo own0 own1"
    check "11 links are up" links_up 11
    check "every link answers with its new address" all_answer <<<"$rewired"
    verify "links that stayed were not made again" same "$before" "$(ifindex r1 eth3)"

    # A link that Ratchet does not make.
    meshnet patch r3 --type=json -p '[{"op": "add", "path": "/spec/links/-", "value":
        {"uid": 99, "peer_pod": "localhost", "local_intf": "mac0", "peer_intf": "eth0"}}]' >/dev/null
    check "a macvlan is refused" shows 'uid 99 .mac0 to localhost:eth0.: Unsupported' plumbing_error r3
    verify "the log says so" shows 'uid 99 .mac0 to localhost:eth0.: Unsupported' controller_logs
    kne_objects <<<"$rewired" | k apply -f - >/dev/null 2>&1
    check "and forgotten" no_plumbing_error r3

    k delete pod r3 --grace-period=0 --force >/dev/null 2>&1
    check "a pod that is gone is not alive" not_alive r3
    lab_pods r3=left=9
    check "it runs again, on another node" running r3 || { meshnet_ends; return; }
    check "it is alive" alive r3
    check "every link answers" all_answer <<<"$rewired"

    meshnet delete --all >/dev/null
    check "without Topologies there is no link" interfaces_are r2 "eth0 kept lo own0 own1"
    meshnet_ends
}

# Many links between two pods on two nodes. MESHNET_LINKS is their number (300).
test_meshnet_many() {
    local count=${MESHNET_LINKS:-300} began
    meshnet_begins || { meshnet_ends; return; }
    seq 0 $((count - 1)) | sed 's/.*/& a:eth1& b:eth1&/' >"$work/cables"
    kne_objects <"$work/cables" | k create -f - >/dev/null
    began=$SECONDS
    lab_pods "a=left=$count" "b=right=$count"
    check "both pods run" running a b || { meshnet_ends; return; }
    check "all links are up" links_up "$count" || { meshnet_ends; return; }
    echo "      $count links: $((SECONDS - began)) s"
    verify "the first one answers" ping_from a 10.1.0.2
    verify "so does the last one" ping_from a "10.$((1 + (count - 1) / 256)).$(((count - 1) % 256)).2"
    verify "no two have one VNI" vnis_differ
    meshnet_ends
}

# KNE's five nodes, each with two links to each other one: on one node, and on two.
test_meshnet_five() {
    local sides side pod pods cables
    cables=$(for one in 1 2 3 4 5; do for other in 1 2 3 4 5; do for n in 1 2; do
        [ "$one" -ge "$other" ] || echo "r$one:eth$other$n r$other:eth$one$n"
    done; done; done | awk '{ print NR - 1, $0 }')
    meshnet_begins || { meshnet_ends; return; }
    for sides in "left left left left left" "left right right left right"; do
        kne_objects <<<"$cables" | k create -f - >/dev/null
        pods=()
        for side in $sides; do pods+=("r$((${#pods[@]} + 1))=$side=8"); done
        lab_pods "${pods[@]}"
        check "five pods run ($sides)" running r1 r2 r3 r4 r5 || break
        check "20 links are up" links_up 20
        check "every link answers" all_answer <<<"$cables"
        for pod in r1 r2 r3 r4 r5; do check "$pod is alive" alive "$pod"; done
        k delete pods --all --grace-period=0 --force >/dev/null 2>&1
        meshnet delete --all >/dev/null
        check "no Link is left" no_links
    done
    meshnet_ends
}
