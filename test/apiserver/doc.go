// Package apiserver runs a real kube-apiserver on a real etcd, both built from their source,
// for the manifests of deploy/k8s. There are no controllers and no nodes: what is applied is
// decoded, defaulted, validated, admitted and stored, and nothing runs.
package apiserver
