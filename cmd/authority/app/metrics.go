package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/revcast/revcast/cmd/internal/cli"
	"github.com/revcast/revcast/internal/client"
	"github.com/revcast/revcast/internal/event"
	"github.com/revcast/revcast/internal/token"
)

var (
	logPosition     = cli.Describe("log_position", "Position of the last message of the log.")
	logAsOf         = cli.Describe("log_heartbeat_timestamp_seconds", "The instant up to which the last heartbeat called the log complete.")
	logReady        = cli.Describe("log_ready", "1 where a revocation could be stored now.")
	logBytes        = cli.Describe("log_bytes", "Size of the log on disk, of one replica.")
	logMaxBytes     = cli.Describe("log_max_bytes", "Size at which the log refuses revocations; 0: not known yet.")
	natsHealthy     = cli.Describe("nats_server_healthy", "1 where a server of the NATS cluster answers and has caught up with the others.", "server")
	natsSyncs       = cli.Describe("nats_server_syncs", "1 where a server of the NATS cluster fsyncs before it acknowledges.", "server")
	logBatches      = cli.Describe("log_batches_total", "Batches acknowledged.")
	logEntries      = cli.Describe("log_revocations_total", "Revocations acknowledged.")
	logErrors       = cli.Describe("log_publish_errors_total", "Batches not acknowledged.")
	logHeartbeats   = cli.Describe("log_heartbeats_total", "Heartbeats sent.")
	logAlarms       = cli.Describe("log_alarms_total", "Times that the stream was found lost, rolled back or altered.")
	logRejected     = cli.Describe("log_rejected_messages_total", "Messages in the stream without our signature.")
	logRestarts     = cli.Describe("log_server_restarts_total", "Restarts of the embedded NATS server.")
	snapshotBytes   = cli.Describe("snapshot_bytes", "Size of the last snapshot made.")
	snapshotSeconds = cli.Describe("snapshot_duration_seconds", "Time that the last snapshot took to make.")
	snapshotEntries = cli.Describe("snapshot_entries", "Revocations in the last snapshot made.")
	snapshotErrors  = cli.Describe("snapshot_errors_total", "Times that no snapshot could be made.")
	snapshotMade    = cli.Describe("snapshot_timestamp_seconds", "When the last snapshot was made.")
	issuerKeys      = cli.Describe("issuer_keys", "Usable signing keys of an issuer.", "issuer")
	transmitterKeys = cli.Describe("transmitter_keys", "Usable signing keys of a transmitter of security events.", "transmitter")
	transmitterFail = cli.Describe("transmitter_keys_fetch_failed", "1 where the last fetch of a transmitter's keys failed.", "transmitter")
	polledAt        = cli.Describe("event_poll_last_success_timestamp_seconds", "When a transmitter's events were last fetched and all carried out; 0: never.", "transmitter")
	outstanding     = cli.Describe("client_revocations_outstanding", "Revocations of a client's making that are live.", "client")
	issuerFailed    = cli.Describe("issuer_keys_fetch_failed", "1 where the last fetch of an issuer's keys failed.", "issuer")
)

// collector reports log and keys to Prometheus, as they are at the scrape.
type collector struct {
	log     *pendingLog
	reader  *token.Reader
	events  *token.Reader // of transmitters; nil where there are none
	clients *client.Registry
	polled  map[string]*event.Poller // by transmitter
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		logPosition, logAsOf, logReady, logBytes, logMaxBytes, natsHealthy, natsSyncs, logBatches, logEntries, logErrors, logHeartbeats, logAlarms, logRejected, logRestarts,
		snapshotBytes, snapshotSeconds, snapshotEntries, snapshotMade, snapshotErrors, issuerKeys, issuerFailed, transmitterKeys, transmitterFail, polledAt, outstanding,
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
	for _, k := range c.reader.KeyStatuses() {
		gauge(issuerKeys, float64(k.Keys), k.Issuer)
		gauge(issuerFailed, truth(k.Err != nil), k.Issuer)
	}
	if c.events != nil {
		for _, k := range c.events.KeyStatuses() {
			gauge(transmitterKeys, float64(k.Keys), k.Issuer)
			gauge(transmitterFail, truth(k.Err != nil), k.Issuer)
		}
	}
	for issuer, poller := range c.polled {
		at := 0.0
		if last := poller.LastSuccess(); !last.IsZero() {
			at = float64(last.UnixMilli()) / 1000
		}
		gauge(polledAt, at, issuer)
	}
	c.clients.Outstanding(func(id string, entries int64) bool {
		gauge(outstanding, float64(entries), id)
		return true
	})
	log := c.log.open.Load()
	if log == nil {
		return
	}
	st := log.Stats()
	gauge(logPosition, float64(st.Position))
	if !st.AsOf.IsZero() {
		gauge(logAsOf, float64(st.AsOf.UnixMilli())/1000)
	}
	gauge(logBytes, float64(st.Bytes))
	gauge(logMaxBytes, float64(st.MaxBytes))
	for _, s := range st.Servers {
		gauge(natsHealthy, truth(s.Healthy), s.URL)
		if s.Known {
			gauge(natsSyncs, truth(s.Syncs), s.URL)
		}
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
	gauge(snapshotEntries, float64(st.SnapshotEntries))
	counter(snapshotErrors, st.SnapshotErrors)
	if !st.SnapshotAt.IsZero() {
		gauge(snapshotMade, float64(st.SnapshotAt.UnixMilli())/1000)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
