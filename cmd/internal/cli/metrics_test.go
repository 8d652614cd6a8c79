package cli

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/revcast/revcast/pkg/denylist"
)

func TestListMetrics(t *testing.T) {
	list := denylist.New()
	list.Add(
		denylist.Entry{Shape: "jti", Digest: denylist.Digest{1}, Cutoff: denylist.NoCutoff, Expires: 1_800_000_000, Windowed: true},
		denylist.Entry{Shape: "sub", Digest: denylist.Digest{2}, Cutoff: 1, Expires: 1_800_000_000},
	)
	if err := testutil.CollectAndCompare(ListCollector{list}, strings.NewReader(`
# HELP revcast_list_entries Live revocations in the list.
# TYPE revcast_list_entries gauge
revcast_list_entries 2
# HELP revcast_list_shapes Tuples of claims that live revocations select by.
# TYPE revcast_list_shapes gauge
revcast_list_shapes 2
# HELP revcast_list_windows Expiry windows that hold entries.
# TYPE revcast_list_windows gauge
revcast_list_windows 1
`), "revcast_list_entries", "revcast_list_shapes", "revcast_list_windows"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(ListCollector{list}); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}
