package apiserver

import (
	"context"
	"errors"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

const manager = "revcast-test"

// Client applies objects of any kind, and keeps what the server warns of.
type Client struct {
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper

	mu       sync.Mutex
	warnings []string
}

// NewClient makes a client of a server.
func NewClient(s *Server) (*Client, error) {
	c := &Client{}
	config := rest.CopyConfig(s.Config)
	config.WarningHandler = c
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kinds))
	c.dynamic, err = dynamic.NewForConfig(config)
	return c, err
}

// HandleWarningHeader is called with each warning of the server.
func (c *Client) HandleWarningHeader(_ int, _, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warnings = append(c.warnings, text)
}

// Warnings are those since the last call.
func (c *Client) Warnings() (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, c.warnings = c.warnings, nil
	return all
}

// Apply applies an object on the server's side, where no unknown field is accepted.
func (c *Client) Apply(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	at, err := c.of(o)
	if err != nil {
		return nil, err
	}
	body, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	// Apply of the dynamic client can't ask for strict fields.
	return at.Patch(ctx, o.GetName(), "application/apply-patch+yaml", body, metav1.PatchOptions{
		FieldManager: manager, FieldValidation: metav1.FieldValidationStrict,
	})
}

// Create makes an object that isn't there; dry: everything but that.
func (c *Client) Create(ctx context.Context, o *unstructured.Unstructured, dry bool) error {
	at, err := c.of(o)
	if err != nil {
		return err
	}
	options := metav1.CreateOptions{FieldManager: manager, FieldValidation: metav1.FieldValidationStrict}
	if dry {
		options.DryRun = []string{metav1.DryRunAll}
	}
	_, err = at.Create(ctx, o, options)
	return err
}

// of is where objects of this one's kind and namespace are.
func (c *Client) of(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := o.GroupVersionKind()
	at, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	return c.dynamic.Resource(at.Resource).Namespace(o.GetNamespace()), nil
}

// defined waits until the server knows the kind that a definition defines.
func (c *Client) defined(ctx context.Context, definition *unstructured.Unstructured) error {
	at, err := c.of(definition)
	if err != nil {
		return err
	}
	return until(ctx, definition.GetName()+" is established", startTimeout, func() error {
		now, err := at.Get(ctx, definition.GetName(), metav1.GetOptions{})
		if err != nil {
			return err
		}
		conditions, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions")
		for _, condition := range conditions {
			if is, ok := condition.(map[string]any); ok && is["type"] == "Established" && is["status"] == "True" {
				return nil
			}
		}
		return errors.New("not established")
	})
}
