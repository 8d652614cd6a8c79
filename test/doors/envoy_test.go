//go:build doors

package doors

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// TestEnvoyConfigurationIsValid holds envoy.yaml to Envoy's own descriptions: every
// field exists, in every extension, and has a value that is allowed.
func TestEnvoyConfigurationIsValid(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deployed, "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	var config bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(asJSON, &config); err != nil {
		t.Fatal(err)
	}
	valid := func(m proto.Message) {
		t.Helper()
		if err := m.(interface{ ValidateAll() error }).ValidateAll(); err != nil {
			t.Errorf("%T: %v", m, err)
		}
	}
	open := func(a *anypb.Any) proto.Message {
		t.Helper()
		m, err := a.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		valid(m)
		return m
	}
	valid(&config)
	for _, c := range config.GetStaticResources().GetClusters() {
		for _, o := range c.GetTypedExtensionProtocolOptions() {
			open(o)
		}
	}
	var filters []string
	for _, l := range config.GetStaticResources().GetListeners() {
		manager := open(l.GetFilterChains()[0].GetFilters()[0].GetTypedConfig()).(*hcmv3.HttpConnectionManager)
		for _, f := range manager.GetHttpFilters() {
			kind := string(open(f.GetTypedConfig()).ProtoReflect().Descriptor().Name())
			if f.GetDisabled() {
				kind = "(" + kind + ")"
			}
			filters = append(filters, kind)
		}
	}
	if want := []string{"HeaderMutation", "ExtAuthz", "(ExtAuthz)", "Router"}; !slices.Equal(filters, want) {
		t.Errorf("filters %v, want %v", filters, want)
	}
	if strings.Contains(string(text), "failure_mode_allow: true") || strings.Count(string(text), "failure_mode_allow: false") != 2 {
		t.Error("a failure of ext_authz must refuse")
	}
}
