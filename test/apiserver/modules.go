//go:build modules

package apiserver

// The modules that others' definitions are read from, or made from.
import (
	_ "github.com/envoyproxy/gateway/api/v1alpha1"
	_ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	_ "sigs.k8s.io/gateway-api/apis/v1"
)
