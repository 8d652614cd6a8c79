package wire

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/revcast/revcast/pkg/denylist"
)

// fuzzTargets are the fuzz targets of this package, by the names of their
// functions. A seed is what a target's body takes: for the signed formats, what
// stands under the signature.
var fuzzTargets = map[string]struct {
	seeds func(t testing.TB) [][]byte
	// check asserts what must hold of any input, and reports whether it was read.
	check func(t testing.TB, seed []byte) bool
}{
	"FuzzOpen":           {openSeeds, checkOpen},
	"FuzzReadSnapshot":   {snapshotSeeds, checkSnapshot},
	"FuzzReadPage":       {pageSeeds, checkPage},
	"FuzzParseDiscovery": {discoverySeeds, checkDiscovery},
	"FuzzParseSigner":    {signerSeeds, checkSigner},
}

func fuzz(f *testing.F, name string) {
	target := fuzzTargets[name]
	for _, seed := range target.seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) { target.check(t, b) })
}

func FuzzOpen(f *testing.F)           { fuzz(f, "FuzzOpen") }
func FuzzReadSnapshot(f *testing.F)   { fuzz(f, "FuzzReadSnapshot") }
func FuzzReadPage(f *testing.F)       { fuzz(f, "FuzzReadPage") }
func FuzzParseDiscovery(f *testing.F) { fuzz(f, "FuzzParseDiscovery") }
func FuzzParseSigner(f *testing.F)    { fuzz(f, "FuzzParseSigner") }

// Seeds that nobody can read any more test nothing, and nobody would notice.
func TestEveryFuzzTargetHasSeedsThatLoad(t *testing.T) {
	paths, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			found++
			target, ok := fuzzTargets[fn.Name.Name]
			if !ok {
				t.Errorf("%s is not in fuzzTargets", fn.Name.Name)
				continue
			}
			read, refused := 0, 0
			for _, seed := range target.seeds(t) {
				if target.check(t, seed) {
					read++
				} else {
					refused++
				}
			}
			if read < 2 || refused < 2 {
				t.Errorf("%s: %d seeds are read and %d are refused", fn.Name.Name, read, refused)
			}
		}
	}
	if found != len(fuzzTargets) {
		t.Errorf("%d targets in the files, %d in fuzzTargets", found, len(fuzzTargets))
	}
}

func openSeeds(t testing.TB) [][]byte {
	seeds := [][]byte{
		sealEntries(t, testNow, someEntries...)[kindAt:],
		sealEntries(t, testNow)[kindAt:],
		sealHeartbeat(t, Heartbeat{testEpoch, 7, ChainStart(testEpoch), testNow, testNow, "n"})[kindAt:],
		nil,
	}
	for i, s := range seeds { // the kind, then the payload
		if len(s) > 0 {
			seeds[i] = slices.Concat(s[:1], s[headSize-kindAt:])
		}
	}
	for _, c := range badBatches {
		seeds = append(seeds, append([]byte{byte(KindBatch)}, c.payload...))
	}
	for _, c := range badHeartbeats {
		seeds = append(seeds, append([]byte{byte(KindHeartbeat)}, c.payload...))
	}
	return seeds
}

func checkOpen(t testing.TB, b []byte) bool {
	if opened, err := testRing.Open(b); err == nil {
		t.Fatalf("opened without a signature: %+v", opened)
	}
	if len(b) == 0 {
		return false
	}
	opened, err := testRing.Open(testSigner.seal(Kind(b[0]), b[1:]))
	if err != nil {
		if opened != (Opened{}) {
			t.Fatalf("refused, and yet opened: %+v", opened)
		}
		return false
	}
	again, err := testRing.Open(reencode(t, opened))
	if err != nil || !sameOpened(again, opened) {
		t.Fatalf("%+v is read again as %+v, %v", opened, again, err)
	}
	if opened.Batch != nil {
		for i, e := range opened.Batch.Entries {
			if again.Batch.Entries[i].Entry() != e.Entry() {
				t.Fatalf("entry %d is read again as another", i)
			}
		}
	}
	return true
}

func snapshotSeeds(t testing.TB) [][]byte {
	seeds := [][]byte{
		snapshotBody(writeSnapshot(t, testSigner, smallSnapshot, smallEntries()...)),
		snapshotBody(writeSnapshot(t, testSigner, smallSnapshot)),
		snapshotBody(writeSnapshot(t, testSigner, smallSnapshot, numberedEntries(full+1)...)),
		nil,
	}
	for _, c := range badSections {
		seeds = append(seeds, slices.Concat(snapshotHead(snapshotVersion, goodHeader), c.content))
	}
	return seeds
}

func checkSnapshot(t testing.TB, b []byte) bool {
	if snap, _, err := readSnapshot(t, bytes.NewReader(b)); err == nil {
		t.Fatalf("read without a signature: %+v", snap)
	}
	snap, sections, err := readSnapshot(t, bytes.NewReader(signSnapshot(testSigner, b)))
	if err != nil {
		return false
	}
	var written bytes.Buffer
	if err := testSigner.WriteSnapshot(&written, snap, sequence(nil, sections...)); err != nil {
		t.Fatalf("%+v can be read, but not written: %v", snap, err)
	}
	again, sectionsAgain, err := readSnapshot(t, bytes.NewReader(written.Bytes()))
	if err != nil || again != snap || !reflect.DeepEqual(sectionsAgain, sections) {
		t.Fatalf("%+v is read again as %+v, %v", snap, again, err)
	}
	// Its header is JSON and has many spellings. What follows has one.
	if !bytes.Equal(behindHeader(b), behindHeader(snapshotBody(written.Bytes()))) {
		t.Fatalf("sections %x are written as %x", behindHeader(b), behindHeader(snapshotBody(written.Bytes())))
	}
	// The same entries have no other sections.
	var sorted bytes.Buffer
	if err := WriteSections(&sorted, denylist.Sections(entriesOf(sections))); err != nil || !bytes.Equal(sorted.Bytes(), behindHeader(b)) {
		t.Fatalf("sections %x are %x when sorted anew, %v", behindHeader(b), sorted.Bytes(), err)
	}
	return true
}

func behindHeader(b []byte) []byte {
	at := len(snapshotMagic) + 1
	return b[at+2+int(b[at])<<8+int(b[at+1]):]
}

func pageSeeds(t testing.TB) [][]byte {
	end := len(AppendPage(nil, pageHeartbeat(t, pageNonce)))
	good := smallPage(t)
	return [][]byte{
		nil,
		good[:len(good)-end],
		good,
		AppendRecord(nil, Record{5, []byte("x")}),
		AppendRecord(nil, Record{6, []byte("x")}),
		AppendRecord(nil, Record{0, []byte("x")}),
		AppendRecord(nil, Record{5, make([]byte, 100)})[:50],
	}
}

// checkPage reads b as a page, and as the records of one.
func checkPage(t testing.TB, b []byte) bool {
	if p, err := testRing.ReadPage(bytes.NewReader(b), 4, ""); err == nil {
		t.Fatalf("a page of another nonce: %+v", p)
	}
	end := pageHeartbeat(t, pageNonce)
	whole := AppendPage(slices.Clone(b), end)
	p, err := testRing.ReadPage(bytes.NewReader(whole), 4, pageNonce)
	if err != nil {
		if p != nil {
			t.Fatalf("refused, and yet read: %+v", p)
		}
		return false
	}
	var again []byte
	for i, r := range p.Records {
		if r.Position != uint64(5+i) {
			t.Fatalf("record %d is at %d", i, r.Position)
		}
		again = AppendRecord(again, r)
	}
	if !bytes.Equal(AppendPage(again, end), whole) {
		t.Fatalf("page %x is written as %x", whole, again)
	}
	return true
}

func discoverySeeds(testing.TB) [][]byte {
	return [][]byte{
		[]byte(goodDiscovery),
		[]byte(strings.Replace(goodDiscovery, `"version"`, `"later":{"x":[1]},"version"`, 1)),
		[]byte(strings.Replace(goodDiscovery, `"epoch":"E"`, `"epoch":""`, 1)),
		[]byte(strings.Replace(goodDiscovery, `/v1/log`, `//evil.example`, 1)),
		[]byte(`{}`), nil,
	}
}

func checkDiscovery(t testing.TB, b []byte) bool {
	d, ring, err := ParseDiscovery(b)
	if err != nil {
		if d != nil || ring != nil {
			t.Fatalf("refused, and yet read: %+v", d)
		}
		return false
	}
	for id, key := range ring {
		if KeyIDOf(key) != id || !slices.ContainsFunc(d.SigningKeys, func(k SigningKey) bool { return k.X == SigningKeyOf(key).X }) {
			t.Fatalf("key %s is not among %v", id, d.SigningKeys)
		}
	}
	written, err := json.Marshal(d)
	if err != nil {
		t.Fatalf("%+v: %v", d, err)
	}
	again, ringAgain, err := ParseDiscovery(written)
	if err != nil || !reflect.DeepEqual(again, d) || !reflect.DeepEqual(ringAgain, ring) {
		t.Fatalf("%+v is read again as %+v, %v", d, again, err)
	}
	return true
}

func signerSeeds(t testing.TB) [][]byte {
	var seeds [][]byte
	for _, s := range []Signer{testSigner, stranger} {
		b, err := s.MarshalPEM()
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, b, b[:len(b)-3], append(bytes.Clone(b), b...))
	}
	return append(seeds, nil)
}

func checkSigner(t testing.TB, b []byte) bool {
	s, err := ParseSigner(b)
	if err != nil {
		if s.key != nil {
			t.Fatal("refused, and yet read")
		}
		return false
	}
	written, err := s.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseSigner(written)
	if err != nil || !again.key.Equal(s.key) || again.id != s.id {
		t.Fatalf("%q is read again as another key: %v", b, err)
	}
	if err := NewKeyring(s.Public()).verify(again.id, KindBatch, b, again.sign(KindBatch, b)); err != nil {
		t.Fatalf("what it signs does not hold: %v", err)
	}
	return true
}
