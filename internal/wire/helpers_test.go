package wire

import (
	"bytes"
	"crypto/ed25519"
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

func writeSnapshot(t testing.TB, s Signer, snap Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteSnapshot(&b, snap, slices.Values(snap.Sections)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
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
