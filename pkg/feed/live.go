package feed

import (
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/revcast/revcast/internal/wire"
	"github.com/revcast/revcast/pkg/denylist"
)

// connect subscribes to the live subject as discovery describes it. A server that
// can't be reached is tried for ever; until then the feed asks over HTTP.
func (f *Feed) connect(live wire.Live) error {
	f.mu.Lock()
	f.connection++
	f.status.Connected = false
	this := f.connection
	f.mu.Unlock()
	options := []nats.Option{
		nats.Name("revcast-verifier"),
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(500 * time.Millisecond), nats.ReconnectJitter(time.Second, 2*time.Second),
		nats.Timeout(2 * time.Second), nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2),
		nats.PermissionErrOnSubscribe(true),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			f.connected(this, false)
			if err != nil {
				f.log.Warn("lost the live feed", "error", err)
			}
		}),
		nats.ConnectHandler(func(*nats.Conn) { f.connected(this, true); f.log.Info("connected to the live feed") }),
		nats.ReconnectHandler(func(*nats.Conn) { f.connected(this, true); f.log.Info("connected to the live feed again") }),
		nats.ClosedHandler(func(*nats.Conn) { f.connected(this, false) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) {
				f.log.Warn("live messages were dropped; asking for them", "error", err)
				return
			}
			f.log.Error("the live feed reported an error", "error", err)
		}),
	}
	if live.User != "" {
		options = append(options, nats.UserInfo(live.User, live.Password))
	}
	conn, err := nats.Connect(live.URL, options...)
	if err != nil {
		return err
	}
	if _, err := conn.Subscribe(live.Subject, func(m *nats.Msg) { f.receive(m, f.cfg.Now()) }); err != nil {
		conn.Close()
		return err
	}
	f.conn = conn
	return nil
}

// connected notes that the live feed came or went. What was said while it was gone
// is asked for at once: the next heartbeat would show it up to a second later.
func (f *Feed) connected(connection int, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if connection != f.connection {
		return // another has taken its place
	}
	f.status.Connected = yes
	if yes {
		f.hurry()
	}
}

// receive takes one message from the live subject, which anyone who controls NATS
// can have written.
func (f *Feed) receive(m *nats.Msg, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	opened, err := f.ring.Open(m.Data)
	if err != nil {
		f.reject(reason(err))
		return
	}
	if m.Subject == wire.LiveHeartbeat {
		if opened.Heartbeat == nil || opened.Heartbeat.Nonce != "" {
			f.reject("misplaced")
			return
		}
		f.heartbeat(*opened.Heartbeat, now)
		return
	}
	at, ok := positionOf(m.Header)
	if !ok {
		f.reject("position")
		return
	}
	f.message(at, m.Data, opened, now)
}

func (f *Feed) reject(why string) {
	f.status.Rejected[why]++
	if f.status.Rejected[why] == 1 {
		f.log.Error("the live subject carries messages that are not the authority's; they are dropped", "reason", why)
	}
}

func reason(err error) string {
	switch {
	case errors.Is(err, wire.ErrSigner):
		return "signer"
	case errors.Is(err, wire.ErrSignature):
		return "signature"
	}
	return "format"
}

// positionOf reads the position that the stream put beside a message. A message
// with two of them was smuggled in: which one a reader sees is up to its writer.
func positionOf(h nats.Header) (uint64, bool) {
	values := h[wire.PositionHeader]
	if len(values) != 1 {
		return 0, false
	}
	at, err := strconv.ParseUint(values[0], 10, 64)
	return at, err == nil && at > 0 && strconv.FormatUint(at, 10) == values[0]
}

// message applies a signed message of the log and notes where it stands. It serves
// live messages and the state file. The caller holds f.mu.
func (f *Feed) message(at uint64, message []byte, opened wire.Opened, now time.Time) decision {
	epoch := ""
	if opened.Batch != nil {
		epoch = opened.Batch.Epoch
	} else if opened.Heartbeat != nil {
		epoch = opened.Heartbeat.Epoch
	}
	d := f.position.message(epoch, at, wire.HashOf(message))
	f.status.Decisions[d.String()]++
	switch d {
	case foreign:
		f.foreigner(now)
		return d
	case duplicate:
		f.apply(opened, false, now) // nothing new, unless the log was rolled back and nobody has noticed yet
		return d
	case conflict:
		f.hurry()
	}
	f.journal(at, message) // first: what has been refused once is refused after kill -9
	f.apply(opened, true, now)
	f.watchGap(now)
	return d
}

// apply adds a batch to the list. What was journaled goes into the state file's next
// base, where it would else be lost with the frames: that the list knew it already
// does not mean that the file does.
func (f *Feed) apply(opened wire.Opened, journaled bool, now time.Time) {
	if opened.Batch == nil {
		return
	}
	entries := make([]denylist.Entry, len(opened.Batch.Entries))
	for i, r := range opened.Batch.Entries {
		entries[i] = r.Entry()
	}
	f.status.Batches++
	added := f.list.Add(entries...)
	f.status.Entries += uint64(added)
	f.propagated(now, opened.Batch.IssuedAt, added)
	if (added > 0 || journaled) && f.cfg.StateFile != "" {
		f.recent = append(f.recent, entries...)
	}
}

// heartbeat takes a signed heartbeat. The caller holds f.mu.
func (f *Feed) heartbeat(h wire.Heartbeat, now time.Time) {
	d := f.position.heartbeat(h)
	f.status.Decisions[d.String()]++
	switch d {
	case apply:
		f.status.Heartbeats++
		f.live = now
		if h.IssuedAt.After(f.authTime) {
			f.authTime = h.IssuedAt
		}
		f.advance(now, h.AsOf)
		f.watchGap(now)
	case gap:
		f.noteGap(now)
	case conflict:
		f.hurry()
	case foreign:
		f.foreigner(now)
	}
}

// foreigner asks, now and then, whether there is a new epoch: the message may as
// well be an old one that somebody kept.
func (f *Feed) foreigner(now time.Time) {
	if now.Sub(f.foreignAt) > foreignEvery {
		f.foreignAt = now
		f.hurry()
	}
}

func (f *Feed) watchGap(now time.Time) {
	if f.position.missing() {
		f.noteGap(now)
	} else {
		f.gapSince = time.Time{}
	}
}

// noteGap has the loop look again when what is missing has had its time.
func (f *Feed) noteGap(now time.Time) {
	if f.gapSince.IsZero() {
		f.gapSince = now
		time.AfterFunc(gapPatience+time.Millisecond, f.poke)
	}
}
