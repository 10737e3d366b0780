# How fast many links are, on a cluster whose store is the Kubernetes API. For `run` to source.
# shellcheck shell=bash

# Times are the machine's uptime, which pods see, too: in seconds.
uptime_now() { cut -d' ' -f1 /proc/uptime; }
since() { awk -v from="$1" -v to="$2" 'BEGIN {printf "%.1f", to - from}'; }
ratio() { awk -v one="$1" -v other="$2" 'BEGIN {printf "%.2f", one / other}'; }

# many COUNT SIDE SIDE: Topologies with that many links between two pods, and the pods. A pod writes down when all its
# interfaces are up and have their addresses; it only asks the kernel for them when they are there, since that takes a lock.
# A Topology gets at most 500 links.
many() {
    jq -n --argjson count "$1" --args '
        def address($n; $host): "10.\(1 + ($n / 250 | floor)).\($n % 250).\($host)/24";
        def counts: "until [ $(ls /sys/class/net | grep -c eth[1-9]) -ge \($count) ]; do sleep 0.1; done;
            until [ $(ip -o -4 addr show up | grep -c eth[1-9]) -ge \($count) ]; do sleep 0.1; done;";
        {apiVersion: "v1", kind: "List", items: ([range(0; $count; 500)] | map(. as $first | {
            apiVersion: "ratchet.dev/v1alpha1", kind: "Topology", metadata: {name: "many-\($first)"}, spec: {links: [
                range($first; [$first + 500, $count] | min) | {
                    endpoints: ["a:eth\(. + 1)", "b:eth\(. + 1)"], addresses: [[address(.; 1)], [address(.; 2)]]}]}}))} |
        .items += [["a", $ARGS.positional[0]], ["b", $ARGS.positional[1]] | {
            apiVersion: "v1", kind: "Pod", metadata: {name: .[0]}, spec: {
                terminationGracePeriodSeconds: 0, nodeSelector: {ratchetside: .[1]}, containers: [{
                    name: "main", image: "busybox:1.36", imagePullPolicy: "IfNotPresent",
                    command: ["sh", "-c", "\(counts) cut -d\" \" -f1 /proc/uptime; exec sleep infinity"]}]}}]' "${@:2}"
}
has_written() { k logs "$1" | grep -E '^[0-9.]+$'; }
topologies_ready() { k wait --for=condition=Ready --timeout="${1}s" topologies.ratchet.dev --all; }
vnis_named() { k get links -o json | jq '[.items[].spec.vni // empty] | length'; }
# Every address of the other end answers. Not `kubectl exec` for each; and the kernel keeps a thousand neighbours of all pods
# together, so they are forgotten in between.
# shellcheck disable=SC2016 # for the inner shell
all_addresses_answer() {
    local first one other
    one=$(entry a) other=$(entry b)
    for first in $(seq 0 250 $(($1 - 1))); do
        seq "$first" $((first + 250 < $1 ? first + 249 : $1 - 1)) | awk '{print "10." 1 + int($1 / 250) "." $1 % 250 ".2"}' |
            enter "$one" xargs -P 4 -n 1 sh -c 'ping -c1 -W2 "$0" >/dev/null || { echo "no answer from $0"; exit 1; }' || return
        enter "$one" ip neigh flush all
        enter "$other" ip neigh flush all
    done
}

# What the API server needs for these Links alone: the same objects, created again by a plain client, while no controller and
# no agent hears of them. Prints the seconds.
plain_creates() {
    local seconds creates=$work/creates
    [ -x "$creates" ] || (cd "$here/build/creates" && CGO_ENABLED=0 go build -o "$creates" .) || return
    k get links -o json | jq -c '{items: [.items[] | {apiVersion, kind, spec, metadata: (.metadata | {name: "plain-\(.name)", namespace,
        labels: {"node.ratchet.dev/nowhere": "", "node.ratchet.dev/elsewhere": ""}, annotations, ownerReferences} |
        with_entries(select(.value != null)))}]}' >"$work/links.json"
    signal_all STOP controller
    seconds=$(nsenter -t "$(holder control)" -n -- "$creates" "https://${address[control]}:6443" "$state/certificates/apiserver.crt" \
        "$(cat "$state/token")" 16 <"$work/links.json")
    kubectl delete --raw "/apis/ratchet.dev/v1alpha1/namespaces/$namespace/links?labelSelector=node.ratchet.dev/nowhere" >/dev/null
    signal_all CONT controller
    echo "$seconds"
}

# Many links between two pods in one apply, on one node and on two. LINKS is their number (20).
test_links_many() {
    local count=${LINKS:-20} sides began up ready plain pod deadline=$((deadline * 2))
    for sides in "left left" "left right"; do
        # shellcheck disable=SC2086 # two words
        many "$count" $sides >"$work/many.json"
        began=$(uptime_now)
        k create -f "$work/many.json" >/dev/null
        check "all Topologies are ready ($sides)" topologies_ready "$deadline" || break
        ready=$(uptime_now)
        up=$(for pod in a b; do until_true "$deadline" "the time of $pod" has_written $pod && k logs $pod; done | sort -n | tail -n 1)
        verify "every link answers" all_addresses_answer "$count"
        [ "$sides" = "left left" ] || verify "every link has a VNI" same "$count" "$(vnis_named)"
        verify "no two have one VNI" vnis_differ
        plain=$(plain_creates)
        echo "      $count links, $sides: all up after $(since "$began" "$up") s, all Topologies ready after $(since "$began" "$ready") s;" \
            "$count plain creates take $plain s (up: $(ratio "$(since "$began" "$up")" "$plain") times that)"
        k delete topologies.ratchet.dev --all >/dev/null
        clear_up
        check "without Topologies there is no Link" no_links
    done
    k delete topologies.ratchet.dev --all >/dev/null
    clear_up
    nothing_left
}

# rollout COUNT LINKS: pods on both nodes in turn, and that many links between them, each with its neighbours.
rollout() {
    jq -n --argjson count "$1" --argjson links "$2" '{apiVersion: "v1", kind: "List", items: (
        (if $links == 0 then [] else [{
            apiVersion: "ratchet.dev/v1alpha1", kind: "Topology", metadata: {name: "rollout"}, spec: {links: [range($links) |
                (. % $count) as $one | (($one + 1 + (. / $count | floor)) % $count) as $other | {
                    endpoints: ["p\($one):n\(. / $count | floor)", "p\($other):m\(. / $count | floor)"],
                    addresses: [["10.3.\(. / 120 | floor).\(2 * (. % 120))/31"], ["10.3.\(. / 120 | floor).\(2 * (. % 120) + 1)/31"]]}]}}] end) +
        [range($count) | {apiVersion: "v1", kind: "Pod", metadata: {name: "p\(.)"}, spec: {
            terminationGracePeriodSeconds: 0, nodeSelector: {ratchetside: (if . % 2 == 0 then "left" else "right" end)},
            containers: [{name: "main", image: "busybox:1.36", imagePullPolicy: "IfNotPresent", command: ["sleep", "infinity"]}]}}])}'
}

# Many pods in one apply, with links and without, in turn. PODS is their number (6), ROUNDS how often (1). On demand only.
test_rollout_many() {
    local count=${PODS:-6} round links began alone linked deadline=$((deadline * 5))
    for round in $(seq "${ROUNDS:-1}"); do
        for links in 0 $((count * 15 / 4)); do
            rollout "$count" "$links" >"$work/rollout.json"
            began=$(uptime_now)
            k create -f "$work/rollout.json" >/dev/null
            check "all pods run, with $links links" k wait --for=condition=Ready --timeout="${deadline}s" pods --all || break 2
            [ "$links" = 0 ] || check "and all links are up" topologies_ready "$deadline" || break 2
            linked=$(since "$began" "$(uptime_now)")
            [ "$links" != 0 ] || alone=$linked
            k delete topologies.ratchet.dev --all >/dev/null
            clear_up
            check "all pods have gone" pods_are ""
        done
        echo "      round $round: $count pods alone $alone s, with $links links $linked s: $(ratio "$linked" "$alone") times"
    done
    clear_up
    nothing_left
}
