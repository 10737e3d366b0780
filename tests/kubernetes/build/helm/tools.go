//go:build tools

// Package tools names what go.mod is for.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
