package wire

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/revcast/revcast/pkg/denylist"
)

// Subjects. The stream takes LogSubjects and republishes "revcast.log.x" as
// "revcast.live.x"; heartbeats go straight to the live subject.
const (
	Stream          = "REVCAST"
	LogSubjects     = "revcast.log.>"
	LogBatch        = "revcast.log.batch"
	LogMark         = "revcast.log.mark"
	LiveSubjects    = "revcast.live.>"
	LiveHeartbeat   = "revcast.live.heartbeat"
	PositionHeader  = "Nats-Sequence"  // set by the stream on what it republishes
	EpochMetadata   = "revcast.epoch"  // in the stream's metadata
	SignerMetadata  = "revcast.signer" // the same: the key id of the authorities that write it
	maxEpoch        = 64
	maxNonce        = 64
	maxBatchEntries = 16 << 10
	microsPerSecond = int64(time.Second / time.Microsecond)
	maxUnix         = 253402300799 // the year 9999 ends
	maxUnixMicro    = maxUnix * microsPerSecond
)

// Chain is a running hash over the log: every message up to a position, in order.
type Chain [sha256.Size]byte

// ChainStart is the chain at position 0 of an epoch.
func ChainStart(epoch string) Chain { return sha256.Sum256([]byte(chainDomain + epoch)) }

// Hash identifies a message of the log by its exact bytes.
type Hash [sha256.Size]byte

// HashOf hashes a message.
func HashOf(message []byte) Hash { return sha256.Sum256(message) }

// Next is the chain one message further: SHA-256 over the chain, the message's
// position as a big-endian uint64 and the message's hash.
func (c Chain) Next(position uint64, message Hash) Chain {
	var b [2*sha256.Size + 8]byte
	copy(b[:], c[:])
	binary.BigEndian.PutUint64(b[sha256.Size:], position)
	copy(b[sha256.Size+8:], message[:])
	return sha256.Sum256(b[:])
}

func (c Chain) String() string { return hex.EncodeToString(c[:]) }

// MarshalText writes lower-case hexadecimal.
func (c Chain) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText writes, and nothing else.
func (c *Chain) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(c) || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("a chain is %d lower-case hexadecimal digits", 2*len(c))
	}
	*c = Chain(b)
	return nil
}

// Batch is what revoke calls that arrived together became.
type Batch struct {
	Epoch    string
	IssuedAt time.Time
	Entries  []denylist.Revocation
}

type batchJSON struct {
	Version  int         `json:"v"`
	Epoch    string      `json:"epoch"`
	IssuedAt int64       `json:"issued_at"`
	Entries  []entryJSON `json:"entries"` // nil: missing
}

type entryJSON struct {
	Issuer       string            `json:"iss"`
	Selector     map[string]string `json:"sel"` // nil: missing, which must not read as {}, the whole issuer
	IssuedBefore *int64            `json:"issued_before,omitzero"`
	Expires      int64             `json:"exp"`
	Exact        bool              `json:"exact,omitzero"`
	At           *int64            `json:"at"`
	By           string            `json:"by,omitzero"`
	Reason       string            `json:"reason,omitzero"`
}

// EncodeEntry writes one entry of a batch, so that whoever collects a batch knows
// its size. It errs where the revocation breaks a rule of denylist.
func EncodeEntry(r denylist.Revocation) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	// By hand, since revoke calls wait for it: what entryJSON would become, in the same order.
	b, err := appendEntryPrefix(make([]byte, 0, 256), r.Issuer, r.Selector)
	quote := func(name, value string) {
		var failed error
		b = append(b, name...)
		b, failed = jsontext.AppendQuote(b, value)
		err = cmp.Or(err, failed)
	}
	if !r.IssuedBefore.IsZero() {
		b = strconv.AppendInt(append(b, `,"issued_before":`...), r.IssuedBefore.Unix(), 10)
	}
	b = strconv.AppendInt(append(b, `,"exp":`...), r.Expires.Unix(), 10)
	if r.ExactExpiry {
		b = append(b, `,"exact":true`...)
	}
	b = strconv.AppendInt(append(b, `,"at":`...), r.At.UnixMicro(), 10)
	if r.By != "" {
		quote(`,"by":`, r.By)
	}
	if r.Reason != "" {
		quote(`,"reason":`, r.Reason)
	}
	return append(b, '}'), err
}

// EntryPrefix returns the bytes that every encoded entry of this issuer and selector
// begins with, and none of another: what travels can be searched for them, and need
// not be decoded where it lacks them. Nothing inside a JSON string can look like them.
func EntryPrefix(issuer string, selector denylist.Selector) ([]byte, error) {
	b, err := appendEntryPrefix(nil, issuer, selector)
	if err != nil {
		return nil, fmt.Errorf("spell an issuer and a selector: %w", err)
	}
	return b, nil
}

func appendEntryPrefix(b []byte, issuer string, selector denylist.Selector) ([]byte, error) {
	b, err := jsontext.AppendQuote(append(b, `{"iss":`...), issuer)
	b = append(b, `,"sel":{`...)
	for i, p := range selector.Pairs() {
		var badName, badValue error
		if i > 0 {
			b = append(b, ',')
		}
		b, badName = jsontext.AppendQuote(b, p.Claim)
		b, badValue = jsontext.AppendQuote(append(b, ':'), p.Value)
		err = cmp.Or(err, badName, badValue)
	}
	return append(b, '}'), err
}

// SealBatch signs a batch of encoded entries. Its size is at most the entries'
// total, a comma each, and BatchOverhead.
func (s Signer) SealBatch(epoch string, issuedAt time.Time, entries [][]byte) []byte {
	size := BatchOverhead
	for _, e := range entries {
		size += len(e) + 1
	}
	b := fmt.Appendf(make([]byte, 0, size), `{"v":%d,"epoch":`, Version)
	b, _ = jsontext.AppendQuote(b, epoch) // invalid UTF-8 becomes U+FFFD; an epoch is ASCII
	b = fmt.Appendf(b, `,"issued_at":%d,"entries":[`, issuedAt.UnixMicro())
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e...)
	}
	return s.seal(KindBatch, append(b, "]}"...))
}

// BatchOverhead is what a batch needs beside its entries, at most.
const (
	BatchOverhead   = headSize + 512
	MaxBatchEntries = maxBatchEntries
)

func decodeBatch(payload []byte) (*Batch, error) {
	var j batchJSON
	if err := strict(payload, &j); err != nil {
		return nil, fmt.Errorf("%w: batch: %w", ErrFormat, err)
	}
	if err := checkHead(j.Version, Version, j.Epoch, j.IssuedAt); err != nil {
		return nil, fmt.Errorf("%w: batch: %w", ErrFormat, err)
	}
	if j.Entries == nil {
		return nil, fmt.Errorf("%w: batch: no entries", ErrFormat)
	}
	if len(j.Entries) > maxBatchEntries {
		return nil, fmt.Errorf("%w: batch: more than %d entries", ErrFormat, maxBatchEntries)
	}
	b := &Batch{Epoch: j.Epoch, IssuedAt: time.UnixMicro(j.IssuedAt), Entries: make([]denylist.Revocation, len(j.Entries))}
	for i, e := range j.Entries {
		r, err := e.revocation()
		if err != nil {
			return nil, fmt.Errorf("%w: batch: entry %d: %w", ErrFormat, i, err)
		}
		b.Entries[i] = r
	}
	return b, nil
}

func (e entryJSON) revocation() (r denylist.Revocation, err error) {
	if e.Selector == nil || e.At == nil {
		return r, errors.New("no sel or no at")
	}
	r = denylist.Revocation{
		Issuer: e.Issuer, Expires: time.Unix(e.Expires, 0), ExactExpiry: e.Exact,
		At: time.UnixMicro(*e.At), By: e.By, Reason: e.Reason,
	}
	if r.Selector, err = denylist.NewSelector(e.Selector); err != nil {
		return r, err
	}
	if e.IssuedBefore != nil {
		if *e.IssuedBefore <= 0 { // the zero time.Time would read as no cut-off
			return r, errors.New("issued_before must lie between 1970 and 9999")
		}
		r.IssuedBefore = time.Unix(*e.IssuedBefore, 0)
	}
	return r, r.Validate()
}

// Heartbeat says where the log stands: up to Position it hashes to Chain, and it
// held everything that was acknowledged before AsOf.
type Heartbeat struct {
	Epoch    string
	Position uint64
	Chain    Chain
	AsOf     time.Time // at or before IssuedAt
	IssuedAt time.Time // when it was signed
	Nonce    string    // what the asker of a log page sent; empty on the live subject
}

type heartbeatJSON struct {
	Version  int     `json:"v"`
	Epoch    string  `json:"epoch"`
	Position *uint64 `json:"position"` // nil: missing
	Chain    *Chain  `json:"chain"`
	AsOf     int64   `json:"as_of"`
	IssuedAt int64   `json:"issued_at"`
	Nonce    string  `json:"nonce,omitzero"`
}

// SealHeartbeat signs a heartbeat.
func (s Signer) SealHeartbeat(h Heartbeat) ([]byte, error) {
	payload, err := json.Marshal(heartbeatJSON{
		Version, h.Epoch, &h.Position, &h.Chain, h.AsOf.UnixMicro(), h.IssuedAt.UnixMicro(), h.Nonce,
	})
	if err != nil {
		return nil, fmt.Errorf("encode a heartbeat: %w", err)
	}
	return s.seal(KindHeartbeat, payload), nil
}

func decodeHeartbeat(payload []byte) (*Heartbeat, error) {
	var j heartbeatJSON
	if err := strict(payload, &j); err != nil {
		return nil, fmt.Errorf("%w: heartbeat: %w", ErrFormat, err)
	}
	err := checkHead(j.Version, Version, j.Epoch, j.IssuedAt)
	switch {
	case err != nil:
	case j.Position == nil || j.Chain == nil:
		err = errors.New("no position or no chain")
	case j.AsOf <= 0 || j.AsOf > j.IssuedAt:
		err = errors.New("as_of lies after issued_at")
	case len(j.Nonce) > maxNonce:
		err = fmt.Errorf("a nonce is at most %d bytes", maxNonce)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: heartbeat: %w", ErrFormat, err)
	}
	return &Heartbeat{j.Epoch, *j.Position, *j.Chain, time.UnixMicro(j.AsOf), time.UnixMicro(j.IssuedAt), j.Nonce}, nil
}

func checkHead(version, known int, epoch string, issuedAt int64) error {
	switch {
	case version != known:
		return fmt.Errorf("version %d is not known here", version)
	case epoch == "" || len(epoch) > maxEpoch:
		return fmt.Errorf("an epoch is 1 to %d bytes", maxEpoch)
	case issuedAt <= 0 || issuedAt > maxUnixMicro:
		return errors.New("issued_at must lie between 1970 and 9999")
	}
	return nil
}

// strict decodes JSON: unknown members, doubled names, names in another case,
// invalid UTF-8 and trailing bytes are errors.
func strict(b []byte, v any) error {
	return json.Unmarshal(b, v, json.RejectUnknownMembers(true))
}
