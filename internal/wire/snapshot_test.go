package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

func smallSnapshot() Snapshot {
	list := denylist.New()
	for _, r := range someEntries {
		list.Add(r.Entry())
	}
	list.Add(denylist.Entry{Shape: "sub", Digest: denylist.Digest{1}, Cutoff: t0 - 10, Expires: t0 + 7200})
	list.Add(denylist.Entry{Shape: "sub", Digest: denylist.Digest{1}, Cutoff: t0, Expires: t0 + 3600})
	return Snapshot{testEpoch, 9, ChainStart(testEpoch), testNow, slices.Collect(list.Sections())}
}

func readSnapshot(b []byte) (*Snapshot, error) { return testRing.ReadSnapshot(bytes.NewReader(b)) }

func TestSnapshotComesOutAsItWentIn(t *testing.T) {
	large := Snapshot{testEpoch, 1<<64 - 1, ChainStart("x"), time.UnixMicro(maxUnixMicro), nil}
	list := denylist.New()
	for i := range 3*chunk + 1 { // more than is read at a time, and than the writer's buffer
		d := denylist.Digest(sumOf([]byte{byte(i), byte(i >> 8)})[:digestSize])
		list.Add(denylist.Entry{Shape: "jti", Digest: d, Cutoff: denylist.NoCutoff, Expires: 600, Windowed: true},
			denylist.Entry{Shape: "sub", Digest: d, Cutoff: int64(i + 1), Expires: 600})
	}
	large.Sections = slices.Collect(list.Sections())
	for name, want := range map[string]Snapshot{
		"small": smallSnapshot(), "large": large, "empty": {testEpoch, 0, ChainStart(testEpoch), testNow, nil},
	} {
		b := writeSnapshot(t, testSigner, want)
		got, err := readSnapshot(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !got.IssuedAt.Equal(want.IssuedAt) {
			t.Errorf("%s: issued at %v", name, got.IssuedAt)
		}
		got.IssuedAt = want.IssuedAt
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: comes out as another", name)
		}
		dribble, err := testRing.ReadSnapshot(iotest.OneByteReader(bytes.NewReader(b)))
		if err != nil || !reflect.DeepEqual(dribble.Sections, want.Sections) {
			t.Errorf("%s, a byte at a time: %v", name, err)
		}
		if _, err := testRing.ReadSnapshot(iotest.DataErrReader(bytes.NewReader(b))); err != nil {
			t.Errorf("%s, with EOF on the last byte: %v", name, err)
		}
	}
}

// A windowed entry of the year 9999 has a window that ends after it.
func TestSnapshotHoldsWhateverAListDoes(t *testing.T) {
	list := denylist.New()
	last := denylist.Revocation{
		Issuer: idp, Selector: selector("jti", "x"), Expires: time.Unix(maxUnixMicro/microsPerSecond, 0), ExactExpiry: true, At: testNow,
	}
	if err := last.Validate(); err != nil {
		t.Fatal(err)
	}
	list.Add(last.Entry())
	if _, err := readSnapshot(writeSnapshot(t, testSigner, Snapshot{testEpoch, 1, Chain{}, testNow, slices.Collect(list.Sections())})); err != nil {
		t.Error(err)
	}
}

func TestSignedSnapshotWithAnAlteredByteIsRefused(t *testing.T) {
	good := writeSnapshot(t, testSigner, smallSnapshot())
	if _, err := readSnapshot(good); err != nil {
		t.Fatal(err)
	}
	for at := range good {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b := slices.Clone(good)
			b[at] ^= flip
			got, err := readSnapshot(b)
			if got != nil || !errors.Is(err, ErrFormat) && !errors.Is(err, ErrSigner) && !errors.Is(err, ErrSignature) {
				t.Errorf("byte %d ^ %#x: %+v, %v", at, flip, got, err)
			}
		}
	}
	for n := range good {
		got, err := readSnapshot(good[:n])
		if got != nil || !errors.Is(err, ErrFormat) {
			t.Errorf("%d bytes of %d: %+v, %v", n, len(good), got, err)
		}
	}
	for _, more := range [][]byte{{0}, {1}, good} {
		if got, err := readSnapshot(slices.Concat(good, more)); got != nil || !errors.Is(err, ErrFormat) {
			t.Errorf("with %d bytes behind it: %v", len(more), err)
		}
	}
}

func TestSnapshotThatBreaksOffIsNoLie(t *testing.T) {
	good, broken := writeSnapshot(t, testSigner, smallSnapshot()), errors.New("connection reset")
	for n := range len(good) + 1 {
		_, err := testRing.ReadSnapshot(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

func TestSnapshotByAStrangerIsRefused(t *testing.T) {
	snap := smallSnapshot()
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"a stranger":                               {writeSnapshot(t, stranger, snap), ErrSigner},
		"a stranger by the authority's name":       {writeSnapshot(t, Signer{stranger.key, testSigner.id}, snap), ErrSignature},
		"the signature of another":                 {slices.Concat(snapshotBody(writeSnapshot(t, testSigner, snap)), tail(writeSnapshot(t, testSigner, Snapshot{Epoch: "x", IssuedAt: testNow}))), ErrSignature},
		"a message's payload that is the checksum": {slices.Concat(snapshotBody(writeSnapshot(t, testSigner, snap)), testSigner.id[:], testSigner.sign(KindBatch, sumOf(snapshotBody(writeSnapshot(t, testSigner, snap))))), ErrSignature},
	} {
		if got, err := readSnapshot(c.b); got != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func tail(snapshot []byte) []byte { return snapshot[len(snapshotBody(snapshot)):] }

func TestStrictDecodingOfSections(t *testing.T) {
	for _, c := range badSections {
		if got, err := ReadSections(bytes.NewReader(c.content)); got != nil || !errors.Is(err, ErrFormat) {
			// What is left over behind the end is the caller's to read.
			if c.name != "count too small" || err == nil {
				t.Errorf("%s: %v, %v", c.name, got, err)
			}
		}
		if got, err := readSnapshot(signSnapshot(testSigner, slices.Concat(snapshotHead(Version, goodHeader), c.content))); got != nil || !errors.Is(err, ErrFormat) {
			t.Errorf("%s, signed: %v, %v", c.name, got, err)
		}
	}
	// The table would pass in full if these were refused.
	for _, good := range [][]byte{
		{0},
		append(section("jti", 600, 2, digestOf(1), digestOf(2)), 0),
		append(section("sub", 0, 3, cutOf(1, 1, 9), cutOf(1, 2, 8), cutOf(2, 1, 1)), 0),
		slices.Concat(section("", 0, 1, cutOf(1, 1, 1)), section("sub", 0, 1, cutOf(1, denylist.NoCutoff, 1)), section("jti", 600, 1, digestOf(1)), section("client_id\x00sub", 1200, 1, digestOf(1)), []byte{0}),
	} {
		sections, err := ReadSections(bytes.NewReader(good))
		if err != nil {
			t.Errorf("%x: %v", good, err)
		}
		var b bytes.Buffer
		if err := WriteSections(&b, slices.Values(sections)); err != nil || !bytes.Equal(b.Bytes(), good) {
			t.Errorf("%x is written as %x", good, b.Bytes())
		}
	}
}

func TestStrictDecodingOfASnapshotsHeader(t *testing.T) {
	read := func(header string) error {
		_, err := readSnapshot(signSnapshot(testSigner, append(snapshotHead(Version, header), sectionsEnd)))
		return err
	}
	if err := read(goodHeader); err != nil {
		t.Fatal(err)
	}
	if err := read(goodHeader + strings.Repeat(" ", maxHeader-len(goodHeader))); err != nil {
		t.Errorf("the largest: %v", err)
	}
	for name, header := range map[string]string{
		"larger":           goodHeader + strings.Repeat(" ", maxHeader+1-len(goodHeader)),
		"empty":            "",
		"null":             "null",
		"null position":    strings.Replace(goodHeader, `"position":1`, `"position":null`, 1),
		"null chain":       strings.Replace(goodHeader, `"chain":"`+zeros+`"`, `"chain":null`, 1),
		"negative":         strings.Replace(goodHeader, `"position":1`, `"position":-1`, 1),
		"beyond uint64":    strings.Replace(goodHeader, `"position":1`, `"position":18446744073709551616`, 1),
		"another case":     strings.Replace(goodHeader, `"position"`, `"Position"`, 1),
		"issued in 1970":   strings.Replace(goodHeader, `"issued_at":1`, `"issued_at":0`, 1),
		"issued in 10000":  strings.Replace(goodHeader, `"issued_at":1`, `"issued_at":253402300800000000`, 1),
		"epoch too long":   strings.Replace(goodHeader, `"E"`, `"`+zeros+`0"`, 1),
		"invalid UTF-8":    strings.Replace(goodHeader, `"E"`, "\"\xff\"", 1),
		"bytes behind it":  goodHeader + "x",
		"version as text":  strings.Replace(goodHeader, `"v":1`, `"v":"1"`, 1),
		"version is a sum": strings.Replace(goodHeader, `"v":1`, `"v":1.0`, 1),
	} {
		if err := read(header); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestBoundedAllocationWhateverACountClaims(t *testing.T) {
	for _, count := range []uint64{2, chunk, 1 << 32, 1 << 62, 1<<63 - 1, 1<<64 - 1} {
		for name, content := range map[string][]byte{
			"windowed": section("jti", 600, count, digestOf(1)),
			"always":   section("sub", 0, count, cutOf(1, 1, 1)),
		} {
			b := slices.Concat(snapshotHead(Version, goodHeader), content)
			var err error
			n := allocated(func() { _, err = readSnapshot(b) })
			if !errors.Is(err, ErrFormat) || n > 512<<10 {
				t.Errorf("%s, count %d: %v, %d bytes allocated for %d", name, count, err, n, len(b))
			}
		}
	}
	// A record may claim one message, once.
	record := AppendRecord(nil, Record{5, make([]byte, MaxMessage)})[:recordHead]
	var err error
	n := allocated(func() { _, err = testRing.ReadPage(bytes.NewReader(record), 4, "n") })
	if !errors.Is(err, ErrFormat) || n > 2*MaxMessage {
		t.Errorf("a record: %v, %d bytes allocated for %d", err, n, len(record))
	}
}

type failingWriter struct{ left int }

var errFull = errors.New("disk full")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestSnapshotThatCantBeWrittenIsAnError(t *testing.T) {
	snap := smallSnapshot()
	size := len(writeSnapshot(t, testSigner, snap))
	for n := range size {
		if err := testSigner.WriteSnapshot(&failingWriter{n}, snap, slices.Values(snap.Sections)); !errors.Is(err, errFull) {
			t.Fatalf("room for %d bytes of %d: %v", n, size, err)
		}
	}
}
