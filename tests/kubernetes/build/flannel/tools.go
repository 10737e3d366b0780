//go:build tools

// Package tools names what go.mod is for.
package tools

import _ "github.com/containernetworking/plugins/plugins/meta/flannel"
