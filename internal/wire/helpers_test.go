package wire

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"iter"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

// Fixed keys and times, so that what is made of them is the same on every run.
const (
	testEpoch = "01HF7YAT00VECT0RSF0RREADER"
	t0        = 1700000000 // 2023-11-14T22:13:20Z
)

var (
	testSigner = signerOf(7)
	stranger   = signerOf(8)
	testRing   = NewKeyring(testSigner.Public())
	testNow    = time.Unix(t0, 0)
)

func signerOf(seed byte) Signer {
	return NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
}

func selector(pairs ...string) denylist.Selector {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	s, err := denylist.NewSelector(m)
	if err != nil {
		panic(err)
	}
	return s
}

// sealEntries makes a batch of revocations.
func sealEntries(t testing.TB, issuedAt time.Time, rs ...denylist.Revocation) []byte {
	t.Helper()
	encoded := make([][]byte, len(rs))
	for i, r := range rs {
		var err error
		if encoded[i], err = EncodeEntry(r); err != nil {
			t.Fatalf("encode entry %d: %v", i, err)
		}
	}
	return testSigner.SealBatch(testEpoch, issuedAt, encoded)
}

func sealHeartbeat(t testing.TB, h Heartbeat) []byte {
	t.Helper()
	m, err := testSigner.SealHeartbeat(h)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func writeSnapshot(t testing.TB, s Signer, snap Snapshot, entries ...denylist.Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteSnapshot(&b, snap, denylist.Sections(entries)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readSnapshot reads a snapshot to its end. Where it errs, what came before counts
// for nothing, and is returned for those who want to look at it.
func readSnapshot(t testing.TB, r io.Reader) (Snapshot, []denylist.Section, error) {
	t.Helper()
	snap, sections, err := testRing.ReadSnapshot(r)
	if err != nil {
		if snap != (Snapshot{}) || sections != nil {
			t.Fatalf("refused, and yet read: %+v", snap)
		}
		return snap, nil, err
	}
	all, err := collect(t, sections)
	return snap, all, err
}

// collect keeps a sequence's sections, and the error that it ends with.
func collect(t testing.TB, sections iter.Seq2[denylist.Section, error]) (all []denylist.Section, last error) {
	t.Helper()
	for s, err := range sections {
		switch {
		case last != nil:
			t.Fatalf("%+v, %v after its error, %v", s, err, last)
		case err != nil && !reflect.DeepEqual(s, denylist.Section{}):
			t.Fatalf("%+v with an error, %v", s, err)
		case err == nil:
			all = append(all, kept(s))
		}
		last = err
	}
	return all, last
}

// kept is a section that stays good.
func kept(s denylist.Section) denylist.Section {
	s.Digests, s.Cuts = slices.Clone(s.Digests), append([]denylist.Cut(nil), s.Cuts...)
	return s
}

// sequence yields sections, then an error where there is one.
func sequence(err error, sections ...denylist.Section) iter.Seq2[denylist.Section, error] {
	return func(yield func(denylist.Section, error) bool) {
		for _, s := range sections {
			if !yield(s, nil) {
				return
			}
		}
		if err != nil {
			yield(denylist.Section{}, err)
		}
	}
}

// signSnapshot signs bytes that stand where a snapshot's header and sections do.
func signSnapshot(s Signer, body []byte) []byte {
	sum := HashOf(body)
	b := append(slices.Clone(body), s.id[:]...)
	return append(b, s.sign(kindSnapshot, sum[:])...)
}

// snapshotBody is what a snapshot's signature covers.
func snapshotBody(b []byte) []byte { return b[:len(b)-keyIDSize-ed25519.SignatureSize] }

func altered(b []byte, at int) []byte {
	b = slices.Clone(b)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	return b
}
