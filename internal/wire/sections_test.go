package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/revcast/revcast/pkg/denylist"
)

// entriesOf takes sections apart.
func entriesOf(sections []denylist.Section) (entries []denylist.Entry) {
	for _, s := range sections {
		for i, d := range s.Digests {
			e := denylist.Entry{Shape: s.Shape, Digest: d, Cutoff: denylist.NoCutoff, Expires: s.Window, Windowed: true}
			if s.Window == 0 {
				e.Cutoff, e.Expires, e.Windowed = s.Cuts[i].Cutoff, s.Cuts[i].Expires, false
			}
			entries = append(entries, e)
		}
	}
	return entries
}

// goodSections are the only way to write what they hold.
func goodSections() map[string][]byte {
	cuts := func(from, to int) (b []byte) {
		for n := from; n <= to; n++ {
			b = append(b, numberDigest(n)...)
			b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(n)), 600)
		}
		return b
	}
	return map[string][]byte{
		"none": {0},
		"one":  append(section("jti", 600, 2, digestOf(1), digestOf(2)), 0),
		"several": slices.Concat(section("", 0, 1, cutOf(1, 1, 1)), section("sub", 0, 2, cutOf(1, denylist.NoCutoff, 1), cutOf(2, maxUnix, maxUnix)),
			section("jti", 600, 1, digestOf(1)), section("client_id\x00sub", 1200, 1, digestOf(1)), section("jti", 1200, 1, digestOf(1)),
			section("jti", 253402300800, 1, digestOf(1)), []byte{0}),
		"a full one":              append(section("jti", 600, full, numbered(1, full)), 0),
		"a full one and the rest": slices.Concat(section("jti", 600, full, numbered(1, full)), section("jti", 600, 1, numbered(full+1, full+1)), []byte{0}),
		"full ones": slices.Concat(section("sub", 0, full, cuts(1, full)), section("sub", 0, full, cuts(full+1, 2*full)), section("sub", 0, 1, cuts(2*full+1, 2*full+1)),
			section("jti", 600, full, numbered(1, full)), section("sid", 600, full, numbered(1, full)), section("sid", 600, full, numbered(full+1, 2*full)), []byte{0}),
	}
}

func TestSectionsAreReadAndWrittenInOneWay(t *testing.T) {
	for name, good := range goodSections() {
		sections, err := collect(t, ReadSections(bytes.NewReader(good)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var b bytes.Buffer
		if err := WriteSections(&b, denylist.Sections(entriesOf(sections))); err != nil || !bytes.Equal(b.Bytes(), good) {
			t.Errorf("%s: %d bytes are written as %d others, %v", name, len(good), b.Len(), err)
		}
		dribble, err := collect(t, ReadSections(iotest.OneByteReader(bytes.NewReader(good))))
		if err != nil || !reflect.DeepEqual(dribble, sections) {
			t.Errorf("%s, a byte at a time: %v", name, err)
		}
	}
}

func TestReadSectionsReadsNoByteTooMany(t *testing.T) {
	for name, good := range goodSections() {
		r := bytes.NewReader(append(good, "rest"...))
		if _, err := collect(t, ReadSections(r)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if rest, err := io.ReadAll(r); err != nil || string(rest) != "rest" {
			t.Errorf("%s: %q is left, %v", name, rest, err)
		}
	}
}

func TestStrictDecodingOfSections(t *testing.T) {
	for _, c := range badSections {
		if _, err := collect(t, ReadSections(bytes.NewReader(c.content))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestSectionsCanBeLeft(t *testing.T) {
	for name, good := range goodSections() {
		for range ReadSections(bytes.NewReader(good)) {
			break
		}
		for _, err := range denylist.Merge(ReadSections(bytes.NewReader(good)), ReadSections(bytes.NewReader(nil)), 0) {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%s, joined with nothing: %v", name, err)
			}
			break
		}
	}
}

// A file of sections is joined with another this way.
func TestMergedSectionsAreWhatSortingGives(t *testing.T) {
	a, b := numberedEntries(3*full), slices.Concat(numberedEntries(full/2), smallEntries())
	for i := range b {
		b[i].Digest[0] ^= byte(i % 3)
	}
	read := func(entries []denylist.Entry) io.Reader {
		var b bytes.Buffer
		if err := WriteSections(&b, denylist.Sections(entries)); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	want, err := io.ReadAll(read(slices.Concat(a, b)))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := WriteSections(&got, denylist.Merge(ReadSections(read(a)), ReadSections(read(b)), 0)); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes, not the %d of both, %v", got.Len(), len(want), err)
	}
}

func TestReadingSectionsUsesTheMemoryOfOne(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSections(&b, denylist.Sections(numberedEntries(100*full))); err != nil {
		t.Fatal(err)
	}
	sections, size := 0, b.Len()
	n := allocated(func() {
		for range ReadSections(&b) {
			sections++
		}
	})
	if sections != 100 || n > 512<<10 {
		t.Errorf("%d bytes allocated for %d sections of %d bytes in all", n, sections, size)
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

// What is signed is not what readers refuse.
func TestWriteSectionsRefusesWhatReadersWould(t *testing.T) {
	digests := func(numbers ...int) (all []denylist.Digest) {
		for _, n := range numbers {
			all = append(all, denylist.Digest(numberDigest(n)))
		}
		return all
	}
	fullOne := denylist.Section{Shape: "jti", Window: 600}
	for n := range full {
		fullOne.Digests = append(fullOne.Digests, digests(n+1)...)
	}
	tooLong := fullOne
	tooLong.Digests = append(kept(fullOne).Digests, digests(full+1)...)
	jti := func(numbers ...int) denylist.Section {
		return denylist.Section{Shape: "jti", Window: 600, Digests: digests(numbers...)}
	}
	cut := denylist.Cut{Cutoff: 1, Expires: 1}
	for name, c := range map[string][]denylist.Section{
		"empty":                      {jti()},
		"too long":                   {tooLong},
		"of no window":               {{Shape: "jti", Window: 601, Digests: digests(1)}},
		"of no shape":                {{Shape: "iss", Window: 600, Digests: digests(1)}},
		"digests out of order":       {jti(2, 1)},
		"digest twice":               {jti(1, 1)},
		"digest twice, in two":       {fullOne, jti(full)},
		"goes on that was not full":  {jti(1), jti(2)},
		"out of order":               {{Shape: "jti", Window: 1200, Digests: digests(1)}, jti(1)},
		"without cuts":               {{Shape: "sub", Digests: digests(1)}},
		"with too many cuts":         {{Shape: "sub", Digests: digests(1), Cuts: []denylist.Cut{cut, cut}}},
		"with a cut-off beyond 9999": {{Shape: "sub", Digests: digests(1), Cuts: []denylist.Cut{{Cutoff: maxUnix + 1, Expires: 1}}}},
	} {
		if err := WriteSections(io.Discard, sequence(nil, c...)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := WriteSections(io.Discard, sequence(nil, fullOne, jti(full+1))); err != nil {
		t.Error(err)
	}
}

func TestWriteSectionsEndsAtTheFirstError(t *testing.T) {
	good, err := collect(t, denylist.Sections(smallEntries()))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the file is gone")
	for n := range len(good) + 1 {
		var b bytes.Buffer
		if err := WriteSections(&b, sequence(broken, good[:n]...)); !errors.Is(err, broken) {
			t.Errorf("after %d sections: %v", n, err)
		}
		if _, err := collect(t, ReadSections(&b)); !errors.Is(err, ErrFormat) {
			t.Errorf("what was written of %d sections is read: %v", n, err)
		}
	}
}
