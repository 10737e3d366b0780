#!/bin/sh
# The demo: brings the cloud router up, waits until the routers have exchanged their routes, and shows it.
#   demo.sh RATCHET LAB
set -eu
ratchet=$1
lab=$2

if [ "$(id -u)" != 0 ]; then
    echo "the demo makes network namespaces: run it as root" >&2
    exit 1
fi

"$ratchet" lab up examples/cloud-router.yaml --name "$lab"

run() {
    pod=$1
    shift
    "$ratchet" lab exec --name "$lab" "$pod" -- "$@"
}

echo
echo "Waiting for the two OSPF routers to exchange their routes ..."
deadline=$(($(date +%s) + 60))
until run centosa ping -c1 -W1 192.168.4.101 >/dev/null 2>&1; do
    if [ "$(date +%s)" -gt "$deadline" ]; then
        echo "centosb did not answer within 60 s; look at: $ratchet lab status --name $lab" >&2
        exit 1
    fi
    sleep 0.2
done

cat <<'DRAWING'

  +----------------------- node left ------------------------+   +----------------------- node right -----------------------+
  |                                                          |   |                                                          |
  |  centosa                     quagga-a                    |   |                    quagga-b                     centosb  |
  |  in1 192.168.2.100 --veth-- in2 .101                     |   |                     out1 192.168.4.100 --veth-- out2 .101|
  |                              mid1 192.168.3.100 ============VXLAN, VNI 11========== mid2 .101                           |
  |                              (zebra, ospfd)              |   |                    (zebra, ospfd)                        |
  +----------------------------------------------------------+   +----------------------------------------------------------+
DRAWING
echo
"$ratchet" lab status --name "$lab"
echo
echo "# quagga-a: ip -d link show mid1"
run quagga-a ip -d link show mid1
echo
echo "# quagga-a: its OSPF neighbour"
run quagga-a vtysh -c 'show ip ospf neighbor'
echo "# centosa: ping -c5 192.168.4.101"
run centosa ping -c5 -i 0.2 192.168.4.101
cat <<HINTS

Look around:
  $ratchet lab status --name $lab
  $ratchet lab exec --name $lab centosa -- ping 192.168.4.101
  $ratchet lab exec --name $lab quagga-a -- vtysh -c 'show ip route'
  $ratchet lab exec --name $lab quagga-b -- tcpdump -ni mid2     (if tcpdump is installed)
Remove it:
  make demo-down
HINTS
