//go:build tools

// Package tools names what go.mod is for.
package tools

import _ "gopkg.in/k8snetworkplumbingwg/multus-cni.v3/cmd"
