package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/pkg/feed"
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("revcast_"+name, help, labels, nil)
}

var (
	buildInfo       = describe("build_info", "1, with the version as a label.", "version")
	feedConnected   = describe("feed_connected", "1 while connected to NATS.")
	feedPosition    = describe("feed_position", "The log is here up to this position, without a gap.")
	feedConfirmed   = describe("feed_confirmed_position", "The last position that a heartbeat confirmed.")
	feedBatches     = describe("feed_batches_total", "Batches applied.")
	feedEntries     = describe("feed_entries_total", "Revocations in the batches applied.")
	feedHeartbeats  = describe("feed_heartbeats_total", "Heartbeats that confirmed the position.")
	feedMessages    = describe("feed_messages_total", "Live messages and heartbeats, by what they meant.", "decision")
	feedRejected    = describe("feed_rejected_total", "Live messages that were not looked into, by reason.", "reason")
	feedAlarms      = describe("feed_alarms_total", "Signs that the log is not the one that was followed.", "kind")
	feedAsks        = describe("feed_asks_total", "Questions to the authority.")
	feedAskErrors   = describe("feed_ask_errors_total", "Questions to the authority that failed.")
	feedSnapshots   = describe("feed_snapshots_total", "Snapshots loaded.")
	feedStateErrors = describe("feed_state_errors_total", "Failures to write the state file.")
)

// feedCollector reports a feed to Prometheus, as it is at the scrape.
type feedCollector struct{ status func() feed.Status }

func (c feedCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, feedConnected, feedPosition, feedConfirmed, feedBatches, feedEntries, feedHeartbeats,
		feedMessages, feedRejected, feedAlarms, feedAsks, feedAskErrors, feedSnapshots, feedStateErrors,
	} {
		ch <- d
	}
}

func (c feedCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	each := func(d *prometheus.Desc, m map[string]uint64) {
		for label, v := range m {
			counter(d, v, label)
		}
	}
	st := c.status()
	connected := 0.0
	if st.Connected {
		connected = 1
	}
	gauge(buildInfo, 1, cli.Version())
	gauge(feedConnected, connected)
	gauge(feedPosition, float64(st.Position))
	gauge(feedConfirmed, float64(st.Confirmed))
	counter(feedBatches, st.Batches)
	counter(feedEntries, st.Entries)
	counter(feedHeartbeats, st.Heartbeats)
	each(feedMessages, st.Decisions)
	each(feedRejected, st.Rejected)
	each(feedAlarms, st.Alarms)
	counter(feedAsks, st.Asks)
	counter(feedAskErrors, st.AskErrors)
	counter(feedSnapshots, st.Snapshots)
	counter(feedStateErrors, st.StateErrors)
}
