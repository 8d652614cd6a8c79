package client

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

const (
	outstandingVersion = 1
	maxOutstandingFile = 32 << 20
)

// outstandingFile is what [Registry.SaveOutstanding] writes.
type outstandingFile struct {
	Version int                 `json:"version"`
	Clients []outstandingClient `json:"clients"`
}

type outstandingClient struct {
	ID string `json:"id"`
	// Buckets are pairs: the Unix time at which the bucket ends, and how many
	// revocations expire in it. In order, without empty ones.
	Buckets [][2]int64 `json:"buckets"`
}

// Outstanding yields how many revocations of each client are outstanding, in the order
// of their ids.
func (r *Registry) Outstanding(yield func(id string, entries int64) bool) {
	all, now := r.current.Load(), r.now()
	for _, id := range all.ids {
		if !yield(id, all.byID[id].account.outstanding(now)) {
			return
		}
	}
}

// SaveOutstanding writes what [Registry.LoadOutstanding] reads: the revocations
// outstanding, also of clients that are gone.
func (r *Registry) SaveOutstanding(w io.Writer) error {
	now := r.now()
	file := outstandingFile{Version: outstandingVersion, Clients: []outstandingClient{}}
	r.mu.Lock()
	accounts := maps.Clone(r.accounts)
	r.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(accounts)) {
		if b := accounts[id].save(now); len(b) > 0 {
			file.Clients = append(file.Clients, outstandingClient{id, b})
		}
	}
	b, err := json.Marshal(file)
	if err != nil {
		return fmt.Errorf("couldn't encode what is outstanding: %w", err)
	}
	if len(b) > maxOutstandingFile {
		return fmt.Errorf("what is outstanding takes %d bytes, more than the %d that are read again", len(b), maxOutstandingFile)
	}
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("couldn't write what is outstanding: %w", err)
	}
	return nil
}

// LoadOutstanding adds what was written to what is counted: it is for the start, and is
// called once. Where it errs, nothing has changed. What was written of ids that no
// client has is kept for when they come back, of a bounded number of them.
func (r *Registry) LoadOutstanding(from io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(from, maxOutstandingFile+2))
	if err != nil {
		return fmt.Errorf("couldn't read what is outstanding: %w", err)
	}
	file, err := decodeOutstanding(b)
	if err != nil {
		return fmt.Errorf("couldn't decode what is outstanding: %w", err)
	}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	strangers := len(r.accounts) - len(r.current.Load().byID)
	left := 0
	for _, c := range file.Clients {
		if c.Buckets[len(c.Buckets)-1][0] <= now.Unix() {
			continue
		}
		if r.accounts[c.ID] == nil {
			if strangers >= maxStrangers {
				left++
				continue
			}
			strangers++
			r.accounts[c.ID] = newAccount()
		}
		r.accounts[c.ID].load(c.Buckets, now)
	}
	if left > 0 {
		r.logger.Warn("revocations outstanding of ids that no client has were left out: there are too many ids", "ids", left)
	}
	return nil
}

// decodeOutstanding errs unless every bit is as [Registry.SaveOutstanding] could have
// written it.
func decodeOutstanding(b []byte) (outstandingFile, error) {
	var file outstandingFile
	if len(b) > maxOutstandingFile+1 {
		return file, fmt.Errorf("it is larger than %d bytes", maxOutstandingFile)
	}
	if err := json.Unmarshal(b, &file, json.RejectUnknownMembers(true)); err != nil {
		return file, errors.New("not strict JSON of the right form")
	}
	if file.Version != outstandingVersion {
		return file, fmt.Errorf("version is %d, not %d", file.Version, outstandingVersion)
	}
	before := ""
	for i, c := range file.Clients {
		switch {
		case c.ID <= before || len(c.ID) > maxClientID || !utf8.ValidString(c.ID):
			return file, fmt.Errorf("clients[%d].id is not an id, or not in order", i)
		case len(c.Buckets) == 0:
			return file, fmt.Errorf("clients[%d].buckets is empty", i)
		}
		before = c.ID
		ended, sum := int64(0), int64(0)
		for j, pair := range c.Buckets {
			end, n := pair[0], pair[1]
			if end <= ended || end >= yearTenThousand || end%bucketSeconds != 0 || n < 1 || n > maxMaxEntries-sum {
				return file, fmt.Errorf("clients[%d].buckets[%d] is not a bucket with entries, or not in order", i, j)
			}
			ended = end
			sum += n
		}
	}
	return file, nil
}

const yearTenThousand = 253402300800 // in Unix seconds

// save returns the buckets with something in them.
func (q *Quota) save(now time.Time) (buckets [][2]int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(now)
	for _, f := range q.buckets {
		buckets = append(buckets, [2]int64{bucketEnd(f.bucket).Unix(), f.entries})
	}
	return buckets
}

// load adds to the buckets.
func (q *Quota) load(buckets [][2]int64, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(now)
	for _, pair := range buckets {
		if b, counts := q.bucketOf(time.Unix(pair[0]-1, 0)); counts {
			q.add(b, pair[1])
		}
	}
}
