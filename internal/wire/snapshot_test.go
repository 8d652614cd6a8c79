package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/revcast/revcast/pkg/denylist"
)

var smallSnapshot = Snapshot{testEpoch, 9, ChainStart(testEpoch), testNow}

func smallEntries() (entries []denylist.Entry) {
	for _, r := range someEntries {
		entries = append(entries, r.Entry())
	}
	return append(entries,
		denylist.Entry{Shape: "sub", Digest: denylist.Digest{1}, Cutoff: t0 - 10, Expires: t0 + 7200},
		denylist.Entry{Shape: "sub", Digest: denylist.Digest{1}, Cutoff: t0, Expires: t0 + 3600})
}

func writeSmall(t testing.TB, s Signer) []byte {
	t.Helper()
	return writeSnapshot(t, s, smallSnapshot, smallEntries()...)
}

func TestSnapshotComesOutAsItWentIn(t *testing.T) {
	var many []denylist.Entry
	for i := range 3*full + 1 {
		d := denylist.Digest(sumOf([]byte{byte(i), byte(i >> 8)})[:digestSize])
		many = append(many, denylist.Entry{Shape: "jti", Digest: d, Cutoff: denylist.NoCutoff, Expires: 600, Windowed: true},
			denylist.Entry{Shape: "sub", Digest: d, Cutoff: int64(i + 1), Expires: 600})
	}
	for name, want := range map[string]struct {
		Snapshot
		entries []denylist.Entry
	}{
		"small": {smallSnapshot, smallEntries()},
		"large": {Snapshot{testEpoch, 1<<64 - 1, ChainStart("x"), time.UnixMicro(maxUnixMicro)}, many},
		"empty": {Snapshot{testEpoch, 0, ChainStart(testEpoch), testNow}, nil},
	} {
		b := writeSnapshot(t, testSigner, want.Snapshot, want.entries...)
		sections, err := collect(t, denylist.Sections(want.entries))
		if err != nil {
			t.Fatal(err)
		}
		for how, r := range map[string]io.Reader{
			"whole": bytes.NewReader(b), "a byte at a time": iotest.OneByteReader(bytes.NewReader(b)),
			"with EOF on the last byte": iotest.DataErrReader(bytes.NewReader(b)),
		} {
			got, gotSections, err := readSnapshot(t, r)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, how, err)
			}
			if !got.IssuedAt.Equal(want.IssuedAt) {
				t.Errorf("%s, %s: issued at %v", name, how, got.IssuedAt)
			}
			got.IssuedAt = want.IssuedAt
			if got != want.Snapshot || !reflect.DeepEqual(gotSections, sections) {
				t.Errorf("%s, %s: comes out as another", name, how)
			}
		}
	}
}

// A windowed entry of the year 9999 has a window that ends after it.
func TestSnapshotHoldsWhateverAListDoes(t *testing.T) {
	last := denylist.Revocation{
		Issuer: idp, Selector: selector("jti", "x"), Expires: time.Unix(maxUnix, 0), ExactExpiry: true, At: testNow,
	}
	cut := denylist.Revocation{Issuer: idp, IssuedBefore: time.Unix(maxUnix, 0), Expires: time.Unix(maxUnix, 0), At: testNow}
	for _, r := range []denylist.Revocation{last, cut} {
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	b := writeSnapshot(t, testSigner, smallSnapshot, last.Entry(), cut.Entry())
	if _, sections, err := readSnapshot(t, bytes.NewReader(b)); err != nil || len(sections) != 2 {
		t.Errorf("%d sections, %v", len(sections), err)
	}
}

// The signature comes last, and readers are promised nothing before it.
func TestSectionsComeBeforeTheSignature(t *testing.T) {
	want, err := collect(t, denylist.Sections(smallEntries()))
	if err != nil {
		t.Fatal(err)
	}
	forged := writeSmall(t, stranger)
	snap, sections, err := testRing.ReadSnapshot(bytes.NewReader(forged))
	if err != nil || snap.Epoch != testEpoch {
		t.Fatalf("its header: %+v, %v", snap, err)
	}
	got, err := collect(t, sections)
	if !errors.Is(err, ErrSigner) || !reflect.DeepEqual(got, want) {
		t.Errorf("a stranger's snapshot: %d sections of %d, %v", len(got), len(want), err)
	}
	for _, err := range sections {
		if err == nil {
			t.Error("read a second time, it holds")
		}
	}

	// They come as the bytes do.
	good := writeSmall(t, testSigner)
	first := bytes.IndexByte(good, '}') + 1 + len(section(string(want[0].Shape), 0, 1, cutOf(1, 1, 1)))
	n, rest := 0, bytes.NewReader(good[first:])
	_, sections, err = testRing.ReadSnapshot(io.MultiReader(bytes.NewReader(good[:first]), readerFunc(func(p []byte) (int, error) {
		if n == 0 {
			t.Error("it reads on before it yields the first section")
		}
		return rest.Read(p)
	})))
	if err != nil {
		t.Fatal(err)
	}
	for s, err := range sections {
		if n++; err != nil || !reflect.DeepEqual(kept(s), want[n-1]) {
			t.Fatalf("section %d is %+v, %v", n, s, err)
		}
	}
	if n != len(want) {
		t.Errorf("%d sections of %d", n, len(want))
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// hostileSnapshots are to be refused. All are small, whatever they claim, but for
// those with a full section.
func hostileSnapshots(t testing.TB) map[string][]byte {
	all := map[string][]byte{}
	for _, c := range badSnapshots(t, writeSmall(t, testSigner), smallSnapshot, smallEntries()) {
		all[c.Name] = fromBase64(t, c.Base64)
	}
	for _, c := range badSections {
		unsigned := slices.Concat(snapshotHead(snapshotVersion, goodHeader), c.content)
		all[c.name+", and no signature"] = unsigned
		all[c.name+", and by a stranger"] = signSnapshot(stranger, unsigned)
	}
	small := writeSmall(t, testSigner)
	body := snapshotBody(small)
	for n := range small {
		all[fmt.Sprintf("cut at %d of %d", n, len(small))] = small[:n]
	}
	for n := range body {
		all[fmt.Sprintf("cut at %d of %d, and signed", n, len(body))] = signSnapshot(testSigner, body[:n])
	}
	for at := range small {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b := slices.Clone(small)
			b[at] ^= flip
			all[fmt.Sprintf("byte %d of %d ^ %#x", at, len(small), flip)] = b
		}
	}
	for _, more := range [][]byte{{0}, {1}, small, make([]byte, 1<<10)} {
		all[fmt.Sprintf("%d bytes after it, from %d", len(more), more[0])] = slices.Concat(small, more)
		all[fmt.Sprintf("%d bytes before the signature, from %d", len(more), more[0])] = signSnapshot(testSigner, slices.Concat(body, more))
	}
	names := section(strings.Repeat("\x00", 1<<16-1), 0, 1, cutOf(1, 1, 1))
	all["a shape of 65536 names"] = signSnapshot(testSigner, slices.Concat(snapshotHead(snapshotVersion, goodHeader), names, []byte{sectionsEnd}))
	all["the signature of another"] = slices.Concat(body, tail(writeSnapshot(t, testSigner, smallSnapshot)))
	all["a stranger's signature by the authority's name"] = writeSmall(t, Signer{stranger.key, testSigner.id})
	return all
}

func TestHostileSnapshots(t *testing.T) {
	all := hostileSnapshots(t)
	var most uint64
	for name, b := range all {
		var err error
		n := allocated(func() {
			var sections iter.Seq2[denylist.Section, error]
			if _, sections, err = testRing.ReadSnapshot(bytes.NewReader(b)); err != nil {
				return
			}
			for _, err = range sections {
			}
		})
		if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrSigner) && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
		if n > 512<<10 {
			t.Errorf("%s: %d bytes allocated for %d", name, n, len(b))
		}
		most = max(most, n)
		// Nothing follows the error, either.
		if _, _, again := readSnapshot(t, bytes.NewReader(b)); again == nil || err == nil || again.Error() != err.Error() {
			t.Errorf("%s: %v, and then %v", name, err, again)
		}
	}
	t.Logf("%d refused; at most %d KiB allocated for one", len(all), most>>10)
}

func TestSnapshotThatBreaksOffIsNoLie(t *testing.T) {
	good, broken := writeSmall(t, testSigner), errors.New("connection reset")
	for n := range len(good) + 1 {
		_, _, err := readSnapshot(t, io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

func TestSnapshotByAStrangerIsRefused(t *testing.T) {
	body := snapshotBody(writeSmall(t, testSigner))
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"a stranger":                               {writeSmall(t, stranger), ErrSigner},
		"a stranger by the authority's name":       {writeSmall(t, Signer{stranger.key, testSigner.id}), ErrSignature},
		"the signature of another":                 {slices.Concat(body, tail(writeSnapshot(t, testSigner, smallSnapshot))), ErrSignature},
		"a message's payload that is the checksum": {slices.Concat(body, testSigner.id[:], testSigner.sign(KindBatch, sumOf(body))), ErrSignature},
	} {
		if _, _, err := readSnapshot(t, bytes.NewReader(c.b)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func tail(snapshot []byte) []byte { return snapshot[len(snapshotBody(snapshot)):] }

func TestStrictDecodingOfASnapshotsHeader(t *testing.T) {
	read := func(header string) error {
		_, _, err := readSnapshot(t, bytes.NewReader(signSnapshot(testSigner, append(snapshotHead(snapshotVersion, header), sectionsEnd))))
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
		"version as text":  strings.Replace(goodHeader, `"v":2`, `"v":"2"`, 1),
		"version is a sum": strings.Replace(goodHeader, `"v":2`, `"v":2.0`, 1),
	} {
		if err := read(header); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A record may claim one message, once.
func TestBoundedAllocationWhateverARecordClaims(t *testing.T) {
	record := AppendRecord(nil, Record{5, make([]byte, MaxMessage)})[:recordHead]
	var err error
	n := allocated(func() { _, err = testRing.ReadPage(bytes.NewReader(record), 4, "n") })
	if !errors.Is(err, ErrFormat) || n > 2*MaxMessage {
		t.Errorf("%v, %d bytes allocated for %d", err, n, len(record))
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
	size := len(writeSmall(t, testSigner))
	for n := range size {
		if err := testSigner.WriteSnapshot(&failingWriter{n}, smallSnapshot, denylist.Sections(smallEntries())); !errors.Is(err, errFull) {
			t.Fatalf("room for %d bytes of %d: %v", n, size, err)
		}
	}
}

func TestSnapshotOfSectionsThatCantBeReadIsNotSigned(t *testing.T) {
	good, err := collect(t, denylist.Sections(smallEntries()))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := testSigner.WriteSnapshot(&b, smallSnapshot, sequence(errFull, good...)); !errors.Is(err, errFull) {
		t.Error(err)
	}
	if _, _, err := readSnapshot(t, &b); !errors.Is(err, ErrFormat) {
		t.Errorf("what was written of it is read: %v", err)
	}
}
