// Prints what Multus 4 writes into a pod's annotation k8s.v1.cni.cncf.io/network-status of an attachment: network-status NAME
// DEFAULT, with the attachment's CNI result on stdin. It is the library that Multus calls; Multus 4 itself does not exist as
// a module.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	cni100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/utils"
)

func run() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	result, err := cni100.NewResult(text)
	if err != nil {
		return err
	}
	statuses, err := utils.CreateNetworkStatuses(result, os.Args[1], os.Args[2] == "true", nil)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(statuses)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
