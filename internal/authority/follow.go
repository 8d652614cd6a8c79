package authority

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/revcast/revcast/internal/wire"
)

const (
	maxWait  = 30 * time.Second
	maxNonce = 64 // bytes; a heartbeat has no room for more
)

// serveDiscovery tells verifiers where everything is.
func (a *Authority) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	d, err := a.log.Discovery()
	if err != nil {
		a.notNow(w, r, "discovery", err)
		return
	}
	d.Live.URL = reachable(d.Live.URL, r.Host)
	writeJSON(w, http.StatusOK, d)
}

// reachable puts the host of asked, a Host header, in place of an unspecified one:
// the authority may listen on every address and can't know by which one a verifier
// reaches it, but the verifier just did.
func reachable(live, asked string) string {
	u, err := url.Parse(live)
	if err != nil {
		return live
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() != "" && (err != nil || !ip.IsUnspecified()) {
		return live
	}
	from, err := url.Parse("//" + asked)
	if err != nil || from.Hostname() == "" {
		return live
	}
	u.Host = net.JoinHostPort(from.Hostname(), u.Port())
	return u.String()
}

// serveSnapshot sends a snapshot whole. Two of them differ, so that a range of one
// would not fit to the rest of another.
func (a *Authority) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	snapshot, err := a.log.Snapshot(r.Context())
	if err != nil {
		a.notNow(w, r, "snapshot", err)
		return
	}
	defer func() { _ = snapshot.Close() }()
	size, err := snapshot.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = snapshot.Seek(0, io.SeekStart)
	}
	if err != nil {
		a.notNow(w, r, "snapshot", err)
		return
	}
	out := newPatientWriter(w)
	defer out.done()
	w.Header().Set("Content-Type", bytesType)
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if r.Method != http.MethodHead {
		out.copy(snapshot)
	}
}

// serveLog sends a page of the log, after waiting for one if asked to.
func (a *Authority) serveLog(w http.ResponseWriter, r *http.Request) {
	q, err := parseLogQuery(r.URL.RawQuery)
	if err != nil {
		writeError(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	out := newPatientWriter(w)
	defer out.done()
	// A poll outlasts the deadline of an ordinary answer. The one for reading stays: the
	// server lifts it where the request has arrived whole, and a body that never comes
	// would hold up the answer.
	_ = out.control.SetWriteDeadline(time.Now().Add(q.wait + patience))
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(a.stopping, cancel)()
	page, err := a.log.Page(ctx, q.after, q.wait, q.nonce)
	switch {
	case errors.Is(err, wire.ErrGone):
		writeError(w, http.StatusGone, "gone", "the log does not go back that far: load the snapshot")
		return
	case err != nil:
		a.notNow(w, r, "log", err)
		return
	}
	w.Header().Set("Content-Type", bytesType)
	w.Header().Set("Content-Length", strconv.Itoa(len(page)))
	_, _ = out.Write(page)
}

type logQuery struct {
	after uint64
	wait  time.Duration
	nonce string
}

func parseLogQuery(raw string) (q logQuery, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return logQuery{}, errors.New("the query can't be read")
	}
	for _, name := range []string{"after", "wait", "nonce"} {
		if len(values[name]) > 1 {
			return logQuery{}, fmt.Errorf("%s is there more than once", name)
		}
	}
	if q.after, err = strconv.ParseUint(values.Get("after"), 10, 64); err != nil {
		return logQuery{}, errors.New("after must be a position: 0 or a positive integer")
	}
	if values.Has("wait") {
		if q.wait, err = parseWait(values.Get("wait")); err != nil || q.wait < 0 || q.wait > maxWait {
			return logQuery{}, fmt.Errorf("wait must be seconds or a duration, 0 to %s", maxWait)
		}
	}
	q.nonce = values.Get("nonce")
	if len(q.nonce) > maxNonce || !utf8.ValidString(q.nonce) {
		return logQuery{}, fmt.Errorf("nonce is at most %d bytes of UTF-8", maxNonce)
	}
	return q, nil
}

func parseWait(s string) (time.Duration, error) {
	if seconds, err := strconv.ParseUint(s, 10, 16); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(s)
}

// notNow answers that the log can't serve a verifier now. Why is for the log: it
// may name addresses.
func (a *Authority) notNow(w http.ResponseWriter, r *http.Request, what string, err error) {
	if r.Context().Err() == nil && a.stopping.Err() == nil {
		level := slog.LevelError
		if errors.Is(err, ErrOpening) {
			level = slog.LevelInfo
		}
		a.logger.Log(r.Context(), level, "verifier turned away", "asked", what, "why", err)
	}
	writeError(w, http.StatusServiceUnavailable, "temporarily_unavailable", "the "+what+" can't be served now")
}

type health struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitzero"`
}

// serveHealth says that the process answers, and nothing else.
func (a *Authority) serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, health{Status: "ok"})
}

// serveReady says whether a revocation could be stored now.
func (a *Authority) serveReady(w http.ResponseWriter, _ *http.Request) {
	err := a.log.Ready()
	if a.stopping.Err() != nil {
		err = errors.New("shutting down")
	}
	if err != nil {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		writeJSON(w, http.StatusServiceUnavailable, health{"unavailable", err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, health{Status: "ready"})
}
