package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Define has a server know the kinds of others that deploy/k8s uses: those of the Gateway API,
// of Envoy Gateway and of the Prometheus operator. dir is for files on the way.
func Define(ctx context.Context, s *Server, dir string) error {
	c, err := NewClient(s)
	if err != nil {
		return err
	}
	gateway, err := moduleDir(ctx, "sigs.k8s.io/gateway-api")
	if err != nil {
		return err
	}
	envoy, err := moduleDir(ctx, "github.com/envoyproxy/gateway")
	if err != nil {
		return err
	}
	// The operator's module has its types alone. Its definitions are made of these, by this program.
	bin, err := Programs()
	if err != nil {
		return err
	}
	operator := filepath.Join(dir, "definitions")
	if _, err := command(ctx, filepath.Join(bin, "controller-gen"), "crd:maxDescLen=0", "output:crd:dir="+operator,
		"paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"); err != nil {
		return err
	}
	var defined []*unstructured.Unstructured
	for _, dir := range []string{
		filepath.Join(gateway, "config/crd/standard"),
		filepath.Join(envoy, "charts/gateway-helm/charts/crds/crds/generated"),
		operator,
	} {
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("no definitions in %s: %v", dir, err)
		}
		for _, file := range files {
			objects, err := readObjects(file)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			for _, o := range objects {
				if _, err := c.Apply(ctx, o); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				if o.GetKind() == "CustomResourceDefinition" {
					defined = append(defined, o)
				}
			}
		}
	}
	for _, o := range defined {
		if err := c.defined(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func moduleDir(ctx context.Context, module string) (string, error) {
	if _, err := command(ctx, "go", "mod", "download", module); err != nil {
		return "", err
	}
	return command(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
}

func readObjects(file string) (all []*unstructured.Unstructured, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
}
