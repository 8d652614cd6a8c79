package wire

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

const pageNonce = "nonce-1"

// smallPage answers after=4 with two records; the second is not a message.
func smallPage(t testing.TB) []byte {
	records := AppendRecord(nil, Record{5, sealEntries(t, testNow, someEntries[0])})
	records = AppendRecord(records, Record{6, nil})
	return AppendPage(records, pageHeartbeat(t, pageNonce))
}

func pageHeartbeat(t testing.TB, nonce string) []byte {
	return sealHeartbeat(t, Heartbeat{testEpoch, 6, ChainStart(testEpoch), testNow, testNow, nonce})
}

func readPage(b []byte) (*Page, error) {
	return testRing.ReadPage(bytes.NewReader(b), 4, pageNonce)
}

func TestPageComesOutAsItWentIn(t *testing.T) {
	good := smallPage(t)
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(good), "a byte at a time": iotest.OneByteReader(bytes.NewReader(good)),
		"with EOF on the last byte": iotest.DataErrReader(bytes.NewReader(good)),
	} {
		p, err := testRing.ReadPage(r, 4, pageNonce)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h := p.Heartbeat; h.Position != 6 || h.Nonce != pageNonce || h.Epoch != testEpoch || !h.IssuedAt.Equal(testNow) {
			t.Errorf("%s: heartbeat %+v", name, h)
		}
		var b []byte
		for _, r := range p.Records {
			b = AppendRecord(b, r)
		}
		if b = AppendPage(b, pageHeartbeat(t, pageNonce)); !bytes.Equal(b, good) {
			t.Errorf("%s: comes out as another", name)
		}
	}
	if p, err := testRing.ReadPage(bytes.NewReader(AppendPage(nil, pageHeartbeat(t, pageNonce))), 1<<64-1, pageNonce); err != nil || len(p.Records) != 0 {
		t.Errorf("an empty page: %v", err)
	}
}

func TestPageCutAnywhereIsRefused(t *testing.T) {
	good, broken := smallPage(t), errors.New("connection reset")
	for n := range good {
		if p, err := readPage(good[:n]); p != nil || !errors.Is(err, ErrFormat) {
			t.Errorf("%d bytes of %d: %+v, %v", n, len(good), p, err)
		}
		if _, err := testRing.ReadPage(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(broken)), 4, pageNonce); !errors.Is(err, broken) {
			t.Errorf("broken off after %d bytes: %v", n, err)
		}
	}
}

// The records' signatures are the reader's to check, and the chain tells whether
// they are the log's. All else of a page is held here.
func TestPageWithAnAlteredByteIsRefused(t *testing.T) {
	good := smallPage(t)
	first := len(good) - len(AppendPage(AppendRecord(nil, Record{6, nil}), pageHeartbeat(t, pageNonce)))
	for at := range good {
		p, err := readPage(altered(good, at))
		if at >= recordHead && at < first {
			if err != nil {
				t.Errorf("byte %d, of a record's message: %v", at, err)
			} else if _, err := testRing.Open(p.Records[0].Message); err == nil {
				t.Errorf("byte %d: the record opens", at)
			}
			continue
		}
		if p != nil || err == nil {
			t.Errorf("byte %d: %+v, %v", at, p, err)
		}
	}
}

func TestPageThatAnswersAnotherQuestionIsRefused(t *testing.T) {
	good := smallPage(t)
	for _, nonce := range []string{"", "nonce-2", "nonce-1 ", "NONCE-1"} {
		if p, err := testRing.ReadPage(bytes.NewReader(good), 4, nonce); p != nil || !errors.Is(err, ErrSignature) {
			t.Errorf("nonce %q: %v", nonce, err)
		}
	}
	for _, after := range []uint64{0, 3, 5, 6, 1<<64 - 1} {
		if p, err := testRing.ReadPage(bytes.NewReader(good), after, pageNonce); p != nil || !errors.Is(err, ErrFormat) {
			t.Errorf("after %d: %v", after, err)
		}
	}
}

func TestStrictDecodingOfAPage(t *testing.T) {
	good := smallPage(t)
	end, batch := pageHeartbeat(t, pageNonce), sealEntries(t, testNow, someEntries[0])
	record := func(positions ...uint64) (b []byte) {
		for _, p := range positions {
			b = AppendRecord(b, Record{p, batch})
		}
		return b
	}
	for name, c := range map[string]struct {
		page []byte
		want error
	}{
		"nothing":                  {nil, ErrFormat},
		"no heartbeat":             {record(5, 6), ErrFormat},
		"gap":                      {AppendPage(record(5, 7), end), ErrFormat},
		"out of order":             {AppendPage(record(6, 5), end), ErrFormat},
		"twice":                    {AppendPage(record(5, 5), end), ErrFormat},
		"too early":                {AppendPage(record(4, 5), end), ErrFormat},
		"a byte behind it":         {append(slices.Clone(good), 0), ErrFormat},
		"a record behind it":       {append(slices.Clone(good), record(7)...), ErrFormat},
		"a heartbeat behind it":    {AppendPage(slices.Clone(good), end), ErrFormat},
		"a batch at its end":       {AppendPage(record(5), batch), ErrSignature},
		"nothing at its end":       {AppendPage(record(5), nil), ErrFormat},
		"a stranger's heartbeat":   {AppendPage(record(5), stranger.seal(KindHeartbeat, end[headSize:])), ErrSigner},
		"a heartbeat that is none": {AppendPage(record(5), testSigner.seal(KindHeartbeat, []byte(`{}`))), ErrFormat},
		"a message that is large":  {AppendPage(AppendRecord(nil, Record{5, make([]byte, MaxMessage+1)}), end), ErrFormat},
	} {
		if p, err := readPage(c.page); p != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", name, p, err, c.want)
		}
	}
	if _, err := readPage(AppendPage(AppendRecord(nil, Record{5, make([]byte, MaxMessage)}), end)); err != nil {
		t.Errorf("a message of the largest size: %v", err)
	}
}

func TestPageHasALargestSize(t *testing.T) {
	var b []byte
	for p := uint64(5); len(b) <= 2*MaxPage; p++ {
		b = AppendRecord(b, Record{p, make([]byte, MaxMessage)})
	}
	if p, err := readPage(AppendPage(b, pageHeartbeat(t, pageNonce))); p != nil || !errors.Is(err, ErrFormat) {
		t.Errorf("a page of %d bytes: %v", len(b), err)
	}
}
