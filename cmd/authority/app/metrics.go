package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/internal/token"
	"github.com/revcast/revcast/pkg/denylist"
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("revcast_"+name, help, labels, nil)
}

var (
	logPosition     = describe("log_position", "Position of the last message of the log.")
	logAsOf         = describe("log_heartbeat_timestamp_seconds", "The instant up to which the last heartbeat called the log complete.")
	logReady        = describe("log_ready", "1 where a revocation could be stored now.")
	logBatches      = describe("log_batches_total", "Batches acknowledged.")
	logEntries      = describe("log_revocations_total", "Revocations acknowledged.")
	logErrors       = describe("log_publish_errors_total", "Batches not acknowledged.")
	logHeartbeats   = describe("log_heartbeats_total", "Heartbeats sent.")
	logAlarms       = describe("log_alarms_total", "Times that the stream was found lost, rolled back or altered.")
	logRejected     = describe("log_rejected_messages_total", "Messages in the stream without our signature.")
	logRestarts     = describe("log_server_restarts_total", "Restarts of the embedded NATS server.")
	snapshotBytes   = describe("snapshot_bytes", "Size of the last snapshot made.")
	snapshotSeconds = describe("snapshot_duration_seconds", "Time that the last snapshot took to make.")
	listEntries     = describe("list_entries", "Live revocations.")
	issuerKeys      = describe("issuer_keys", "Usable signing keys of an issuer.", "issuer")
	issuerFailed    = describe("issuer_keys_fetch_failed", "1 where the last fetch of an issuer's keys failed.", "issuer")
)

// collector reports log, list and keys to Prometheus, as they are at the scrape.
type collector struct {
	log    *pendingLog
	list   *denylist.List
	reader *token.Reader
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		logPosition, logAsOf, logReady, logBatches, logEntries, logErrors, logHeartbeats, logAlarms, logRejected, logRestarts,
		snapshotBytes, snapshotSeconds, listEntries, issuerKeys, issuerFailed,
	} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge(logReady, truth(c.log.Ready() == nil))
	gauge(listEntries, float64(c.list.Stats().Entries))
	for _, k := range c.reader.KeyStatuses() {
		gauge(issuerKeys, float64(k.Keys), k.Issuer)
		gauge(issuerFailed, truth(k.Err != nil), k.Issuer)
	}
	log := c.log.open.Load()
	if log == nil {
		return
	}
	st := log.Stats()
	gauge(logPosition, float64(st.Position))
	if !st.AsOf.IsZero() {
		gauge(logAsOf, float64(st.AsOf.UnixMilli())/1000)
	}
	counter(logBatches, st.Batches)
	counter(logEntries, st.Entries)
	counter(logErrors, st.PublishErrors)
	counter(logHeartbeats, st.Heartbeats)
	counter(logAlarms, st.Alarms)
	counter(logRejected, st.RejectedMessages)
	counter(logRestarts, st.ServerRestarts)
	gauge(snapshotBytes, float64(st.SnapshotBytes))
	gauge(snapshotSeconds, st.SnapshotDuration.Seconds())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
