package app

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/pkg/feed"
)

var (
	buildInfo       = cli.Describe("build_info", "1, with the version as a label.", "version")
	feedConnected   = cli.Describe("feed_connected", "1 while connected to NATS.")
	feedPosition    = cli.Describe("feed_position", "The log is here up to this position, without a gap.")
	feedConfirmed   = cli.Describe("feed_confirmed_position", "The last position that a heartbeat confirmed.")
	feedBatches     = cli.Describe("feed_batches_total", "Batches applied.")
	feedEntries     = cli.Describe("feed_entries_total", "Revocations in the batches applied.")
	feedHeartbeats  = cli.Describe("feed_heartbeats_total", "Heartbeats that confirmed the position.")
	feedMessages    = cli.Describe("feed_messages_total", "Live messages and heartbeats, by what they meant.", "decision")
	feedRejected    = cli.Describe("feed_rejected_total", "Live messages that were not looked into, by reason.", "reason")
	feedAlarms      = cli.Describe("feed_alarms_total", "Signs that the log is not the one that was followed.", "kind")
	feedAsks        = cli.Describe("feed_asks_total", "Questions to the authority.")
	feedAskErrors   = cli.Describe("feed_ask_errors_total", "Questions to the authority that failed.")
	feedSnapshots   = cli.Describe("feed_snapshots_total", "Snapshots loaded.")
	propagation     = cli.Describe("feed_propagation_seconds", "Time from the authority's timestamp of a revocation to its being in force here.")
	feedStateErrors = cli.Describe("feed_state_errors_total", "Failures to write the state file.")
	snapshotBytes   = cli.Describe("snapshot_bytes", "Size of the last snapshot loaded.")
	snapshotSeconds = cli.Describe("snapshot_duration_seconds", "Time that the last snapshot took to fetch and load.")
	snapshotEntries = cli.Describe("snapshot_entries", "Revocations in the last snapshot loaded.")
	snapshotMade    = cli.Describe("snapshot_timestamp_seconds", "When the authority made the last snapshot loaded.")
)

// feedCollector reports a feed to Prometheus, as it is at the scrape.
type feedCollector struct{ status func() feed.Status }

func (c feedCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildInfo, feedConnected, feedPosition, feedConfirmed, feedBatches, feedEntries, feedHeartbeats,
		feedMessages, feedRejected, feedAlarms, feedAsks, feedAskErrors, feedSnapshots, feedStateErrors, propagation,
		snapshotBytes, snapshotSeconds, snapshotEntries, snapshotMade,
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
	// Those that must be noticed are there from the start, so that the first is an increase.
	each := func(d *prometheus.Desc, m map[string]uint64, always ...string) {
		for label, v := range m {
			counter(d, v, label)
		}
		for _, label := range always {
			if _, there := m[label]; !there {
				counter(d, 0, label)
			}
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
	each(feedRejected, st.Rejected, "signer", "signature", "format", "misplaced", "position")
	each(feedAlarms, st.Alarms, "epoch_changed", "rolled_back", "forked", "key_changed")
	counter(feedAsks, st.Asks)
	counter(feedAskErrors, st.AskErrors)
	counter(feedSnapshots, st.Snapshots)
	counter(feedStateErrors, st.StateErrors)
	total, buckets := uint64(0), map[float64]uint64{}
	for bound, n := range st.Propagation.Buckets() {
		total = n
		if bound < math.MaxInt64 {
			buckets[bound.Seconds()] = n
		}
	}
	ch <- prometheus.MustNewConstHistogram(propagation, total, st.Propagation.Sum.Seconds(), buckets)
	if last := st.Snapshot; !last.IssuedAt.IsZero() {
		gauge(snapshotBytes, float64(last.Bytes))
		gauge(snapshotSeconds, last.Duration.Seconds())
		gauge(snapshotEntries, float64(last.Entries))
		gauge(snapshotMade, float64(last.IssuedAt.UnixMilli())/1000)
	}
}
