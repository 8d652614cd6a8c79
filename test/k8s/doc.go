// Package k8s tests deploy/k8s without a cluster: every kustomization is built with
// kustomize's own library, every object decoded strictly into its published type, and held
// against what a cluster, and a careful operator, would ask of it.
package k8s
