package cli

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/pkg/denylist"
)

// Describe names a metric of ours.
func Describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("revcast_"+name, help, labels, nil)
}

var (
	listEntries   = Describe("list_entries", "Live revocations in the list.")
	listBytes     = Describe("list_bytes", "Memory that the list's entries take.")
	listShapes    = Describe("list_shapes", "Tuples of claims that live revocations select by.")
	listWindows   = Describe("list_windows", "Expiry windows that hold entries.")
	listFill      = Describe("list_filter_fill_ratio", "Entries for each slot of the list's filter. It grows by itself, well before 1.")
	listFalseHits = Describe("list_false_hits_total", "Filter hits that the entry behind did not confirm: each costs a moment, and refuses nothing.")
)

// ListCollector reports a list to Prometheus, as it is at the scrape.
type ListCollector struct{ List *denylist.List }

// Describe implements [prometheus.Collector].
func (c ListCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{listEntries, listBytes, listShapes, listWindows, listFill, listFalseHits} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c ListCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.List.Stats()
	for d, v := range map[*prometheus.Desc]float64{
		listEntries: float64(st.Entries), listBytes: float64(st.Bytes), listShapes: float64(len(st.Shapes)),
		listWindows: float64(st.Windows), listFill: float64(st.Entries) / float64(max(st.Slots, 1)),
	} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	ch <- prometheus.MustNewConstMetric(listFalseHits, prometheus.CounterValue, float64(st.FalseHits))
}
