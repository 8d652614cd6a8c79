package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/revcast/revcast/pkg/denylist"
)

// someEntries holds one entry of each kind.
var someEntries = []denylist.Revocation{
	{Issuer: idp, Selector: selector("jti", "a"), Expires: testNow.Add(time.Hour), ExactExpiry: true, At: testNow, By: "web", Reason: "logout"},
	{Issuer: idp, Selector: selector("fingerprint", theFingerprint), Expires: testNow.Add(time.Hour), ExactExpiry: true, At: testNow},
	{Issuer: idp, Selector: selector("jti", "b"), Expires: testNow.Add(time.Hour), At: testNow},
	{Issuer: idp, Selector: selector("sid", "s"), IssuedBefore: testNow, Expires: testNow.Add(time.Hour), At: testNow},
	{Issuer: idp, Selector: selector("sub", "é\u2028\"\\<&>", "client_id", "web"), IssuedBefore: testNow, Expires: testNow.Add(time.Hour), At: testNow},
	{Issuer: idp, Selector: selector(), IssuedBefore: testNow, Expires: testNow.Add(time.Hour), At: testNow.Add(time.Microsecond)},
	{Issuer: idp, Selector: selector("jti", "c"), IssuedBefore: time.Unix(1, 0), Expires: time.Unix(253402300799, 0), At: time.UnixMicro(0)},
}

func TestBatchComesOutAsItWentIn(t *testing.T) {
	opened, err := testRing.Open(sealEntries(t, testNow, someEntries...))
	if err != nil {
		t.Fatal(err)
	}
	b := opened.Batch
	if opened.Heartbeat != nil || b.Epoch != testEpoch || !b.IssuedAt.Equal(testNow) || len(b.Entries) != len(someEntries) {
		t.Fatalf("opened as %+v", opened)
	}
	for i, want := range someEntries {
		got := b.Entries[i]
		if got.Entry() != want.Entry() || got.Issuer != want.Issuer || got.Selector.String() != want.Selector.String() ||
			!got.IssuedBefore.Equal(want.IssuedBefore) || !got.Expires.Equal(want.Expires) || got.ExactExpiry != want.ExactExpiry ||
			!got.At.Equal(want.At) || got.By != want.By || got.Reason != want.Reason {
			t.Errorf("entry %d: %+v, not %+v", i, got, want)
		}
	}
}

func TestHeartbeatComesOutAsItWentIn(t *testing.T) {
	for _, want := range []Heartbeat{
		{testEpoch, 0, ChainStart(testEpoch), testNow, testNow, ""},
		{strings.Repeat("e", maxEpoch), 1<<64 - 1, ChainStart("x"), testNow.Add(-time.Microsecond), testNow, strings.Repeat("n", maxNonce)},
	} {
		opened, err := testRing.Open(sealHeartbeat(t, want))
		if err != nil || opened.Batch != nil {
			t.Fatalf("%+v, %v", opened, err)
		}
		got := *opened.Heartbeat
		if !got.AsOf.Equal(want.AsOf) || !got.IssuedAt.Equal(want.IssuedAt) {
			t.Errorf("times of %+v", got)
		}
		got.AsOf, got.IssuedAt = want.AsOf, want.IssuedAt
		if got != want {
			t.Errorf("%+v, not %+v", got, want)
		}
	}
}

func TestBatchFitsIntoWhatItSaysItNeeds(t *testing.T) {
	for _, epoch := range []string{testEpoch, "", strings.Repeat("\x01", maxEpoch), strings.Repeat("\x7f", maxEpoch), strings.Repeat("\"", maxEpoch)} {
		list := make([][]byte, 3)
		total := 0
		for i := range list {
			var err error
			if list[i], err = EncodeEntry(someEntries[i]); err != nil {
				t.Fatal(err)
			}
			total += len(list[i]) + 1
		}
		m := testSigner.SealBatch(epoch, time.UnixMicro(maxUnixMicro), list)
		if len(m) > total+BatchOverhead {
			t.Errorf("epoch %q: %d bytes for %d of entries", epoch, len(m), total)
		}
		opened, err := testRing.Open(m)
		if epoch == "" {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("no epoch: %v", err)
			}
		} else if err != nil || opened.Batch.Epoch != epoch {
			t.Errorf("epoch %q: %v", epoch, err)
		}
	}
}

func TestEncodeEntryRefusesWhatABatchMayNotHold(t *testing.T) {
	r := someEntries[4]
	r.IssuedBefore = time.Time{}
	if b, err := EncodeEntry(r); err == nil {
		t.Errorf("encoded %s", b)
	}
}

// A search of the log that missed an entry would call a revoked token not revoked.
func TestEntryPrefixIsWhatEntriesOfItsIssuerAndSelectorBeginWith(t *testing.T) {
	pieces := []string{`"`, `\`, `\"`, "{", "}", ",", ":", `{"iss":`, `,"sel":{`, "\x00", "\x01", "\b", "\t", "\n", "\f", "\r", "\x1f", "\x7f",
		"<", ">", "&", "/", "\u2028", "\u2029", "\ufeff", "\ufffd", "é", "e\u0301", "😀", "alice", "a", "b", "%", "u0061", `\u0061`}
	random := rand.New(rand.NewPCG(1, 2))
	text := func(least int) (s string) {
		for range least + random.IntN(4) {
			s += pieces[random.IntN(len(pieces))]
		}
		return s
	}
	made := func() denylist.Revocation {
		pairs := map[string]string{}
		for range random.IntN(4) {
			pairs["n"+strings.ReplaceAll(text(0), "\x00", "")] = text(1)
		}
		s, err := denylist.NewSelector(pairs)
		if err != nil {
			t.Fatal(err)
		}
		r := denylist.Revocation{Issuer: text(1), Selector: s, Expires: testNow, At: testNow, By: text(0), Reason: text(0), IssuedBefore: testNow}
		if prefix, err := EntryPrefix(r.Issuer, s); err != nil {
			t.Fatal(err)
		} else if random.IntN(2) == 0 && len(prefix) <= denylist.MaxNote { // what could be mistaken for it
			r.Issuer, r.By, r.Reason = text(1), string(prefix), string(prefix)
		}
		return r
	}
	for range 2000 {
		rs := []denylist.Revocation{made(), made(), made()}
		rs[2].Selector, rs[0].By = rs[0].Selector, text(0)
		batch := sealEntries(t, testNow, rs...)
		for _, asked := range append(rs, made()) {
			prefix, err := EntryPrefix(asked.Issuer, asked.Selector)
			if err != nil {
				t.Fatal(err)
			}
			held := false
			for _, r := range rs {
				same := r.Issuer == asked.Issuer && slices.Equal(r.Selector.Pairs(), asked.Selector.Pairs())
				held = held || same
				encoded, err := EncodeEntry(r)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.HasPrefix(encoded, prefix) != same || bytes.Contains(encoded, prefix) != same {
					t.Fatalf("%q in %q: that they fit is %v", prefix, encoded, same)
				}
			}
			if bytes.Contains(batch, prefix) != held {
				t.Fatalf("%q in a batch of %+v: that it is there is %v", prefix, rs, held)
			}
		}
	}
}

// Logs outlive releases: what an entry begins with can't change without breaking those
// that search for it.
func TestEntryPrefixIsSpelledAsItAlwaysWas(t *testing.T) {
	for want, s := range map[string]denylist.Selector{
		`{"iss":"https://idp.example","sel":{}`:                                        selector(),
		`{"iss":"https://idp.example","sel":{"sub":"alice"}`:                           selector("sub", "alice"),
		`{"iss":"https://idp.example","sel":{"client_id":"web","sub":"a"}`:             selector("sub", "a", "client_id", "web"),
		`{"iss":"https://idp.example","sel":{"Z":"1","a":"2","é":"3"}`:                 selector("a", "2", "é", "3", "Z", "1"),
		`{"iss":"https://idp.example","sel":{"a\"\\\u0001":"\u0000\b\t\n\f\r\u001f"}`:  selector("a\"\\\x01", "\x00\b\t\n\f\r\x1f"),
		"{\"iss\":\"https://idp.example\",\"sel\":{\"a\":\"<>&/'\x7f\u2028\u2029é😀\"}": selector("a", "<>&/'\x7f\u2028\u2029é😀"),
	} {
		got, err := EntryPrefix("https://idp.example", s)
		if err != nil || string(got) != want {
			t.Errorf("%s, %v, not %s", got, err, want)
		}
	}
	for i, r := range someEntries { // the first releases had the encoder do it
		e := entryJSON{
			Issuer: r.Issuer, Selector: map[string]string{}, Expires: r.Expires.Unix(), Exact: r.ExactExpiry,
			At: new(r.At.UnixMicro()), By: r.By, Reason: r.Reason,
		}
		for _, p := range r.Selector.Pairs() {
			e.Selector[p.Claim] = p.Value
		}
		if !r.IssuedBefore.IsZero() {
			e.IssuedBefore = new(r.IssuedBefore.Unix())
		}
		want, err := json.Marshal(e, json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := EncodeEntry(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("entry %d: %s, %v, not %s", i, got, err, want)
		}
	}
	if b, err := EntryPrefix("\xff", selector()); err == nil {
		t.Errorf("an issuer that is not UTF-8: %s", b)
	}
}

// Every byte of a message is held to the
// signature: none can change without the whole being refused.
func TestSignedMessageWithAnAlteredByteIsRefused(t *testing.T) {
	for name, m := range map[string][]byte{
		"batch":     sealEntries(t, testNow, someEntries[:2]...),
		"heartbeat": sealHeartbeat(t, Heartbeat{testEpoch, 7, ChainStart(testEpoch), testNow, testNow, "n"}),
	} {
		if _, err := testRing.Open(m); err != nil {
			t.Fatal(err)
		}
		for at := range m {
			for _, flip := range []byte{0x01, 0x20, 0x80, 0xff} {
				b := slices.Clone(m)
				b[at] ^= flip
				want := ErrSignature
				switch {
				case at <= len(magic):
					want = ErrFormat
				case at >= keyIDAt && at < signatureAt:
					want = ErrSigner
				}
				refused(t, name, b, want)
			}
		}
		for n := range m {
			opened, err := testRing.Open(m[:n])
			if err == nil || opened != (Opened{}) {
				t.Errorf("%s of %d bytes instead of %d was opened", name, n, len(m))
			}
		}
		for _, more := range []string{" ", "\n", "{}", "\x00", string(m)} {
			refused(t, name+" with bytes behind it", append(slices.Clone(m), more...), ErrSignature)
		}
	}
}

func refused(t *testing.T, name string, m []byte, want error) {
	t.Helper()
	if opened, err := testRing.Open(m); !errors.Is(err, want) || opened != (Opened{}) {
		t.Errorf("%s: %+v, %v; want %v", name, opened, err, want)
	}
}

func TestSignedByAStrangerIsRefused(t *testing.T) {
	payload := sealEntries(t, testNow, someEntries...)[headSize:]
	refused(t, "a stranger", stranger.seal(KindBatch, payload), ErrSigner)
	refused(t, "a stranger by the authority's name", Signer{stranger.key, testSigner.id}.seal(KindBatch, payload), ErrSignature)
	both := NewKeyring(testSigner.Public(), stranger.Public())
	for _, s := range []Signer{testSigner, stranger} {
		if _, err := both.Open(s.seal(KindBatch, payload)); err != nil {
			t.Errorf("a ring of two: %v", err)
		}
	}
	if _, err := (Keyring{}).Open(testSigner.seal(KindBatch, payload)); !errors.Is(err, ErrSigner) {
		t.Errorf("an empty ring: %v", err)
	}
	// What was signed as one kind is nothing else.
	for _, kind := range []Kind{KindBatch, KindHeartbeat, kindSnapshot, 0, 'B'} {
		for _, as := range []Kind{KindBatch, KindHeartbeat} {
			m := testSigner.seal(kind, payload)
			m[kindAt] = byte(as)
			if _, err := testRing.Open(m); kind != as && !errors.Is(err, ErrSignature) {
				t.Errorf("signed as %q, opened as %q: %v", kind, as, err)
			}
		}
	}
}

func TestStrictDecodingOfSignedMessages(t *testing.T) {
	for _, c := range badBatches {
		refused(t, c.name, testSigner.seal(KindBatch, []byte(c.payload)), ErrFormat)
	}
	for _, c := range badHeartbeats {
		refused(t, c.name, testSigner.seal(KindHeartbeat, []byte(c.payload)), ErrFormat)
	}
	for _, kind := range []Kind{kindSnapshot, 'x', 0} {
		refused(t, "kind "+string(kind), testSigner.seal(kind, []byte(entries(""))), ErrFormat)
	}
	// The tables above would pass in full if this did not open.
	for _, good := range []string{
		entries(``), " \n" + entries(`{"iss":"a","sel":{"jti":"x"},"exp":2,"at":1}`) + "\n",
		entries(`{"at":-1,"exp":2,"sel":{},"issued_before":1,"iss":"a","exact":false}`),
	} {
		if _, err := testRing.Open(testSigner.seal(KindBatch, []byte(good))); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestMissingSelectorIsNotTheWholeIssuer(t *testing.T) {
	for _, sel := range []string{``, `"sel":null,`, `"sel":"",`, `"sel":[],`, `"sel":0,`, `"sel":false,`, `"Sel":{},`, `"selector":{},`} {
		refused(t, sel, testSigner.seal(KindBatch, []byte(entries(`{"iss":"a",`+sel+`"issued_before":1,"exp":2,"at":1}`))), ErrFormat)
	}
}

func TestMessageHasALargestSize(t *testing.T) {
	fill := func(size int) []byte {
		head := entries(`{"iss":"a","sel":{"jti":"x"},"exp":2,"at":1}`)
		return testSigner.seal(KindBatch, []byte(head+strings.Repeat(" ", size-headSize-len(head))))
	}
	if _, err := testRing.Open(fill(MaxMessage)); err != nil {
		t.Errorf("the largest: %v", err)
	}
	refused(t, "larger", fill(MaxMessage+1), ErrFormat)

	list := strings.Repeat(`{"iss":"a","sel":{"jti":"x"},"exp":2,"at":1},`, maxBatchEntries)
	if opened, err := testRing.Open(testSigner.seal(KindBatch, []byte(entries(list[:len(list)-1])))); err != nil || len(opened.Batch.Entries) != maxBatchEntries {
		t.Errorf("as many entries as a batch may hold: %v", err)
	}
	refused(t, "one more", testSigner.seal(KindBatch, []byte(entries(list+`{"iss":"a","sel":{"jti":"x"},"exp":2,"at":1}`))), ErrFormat)
}

func TestChainTextIsReadInOneSpelling(t *testing.T) {
	want := ChainStart(testEpoch)
	text, _ := want.MarshalText()
	var got Chain
	if err := got.UnmarshalText(text); err != nil || got != want {
		t.Errorf("%s reads as %s, %v", text, got, err)
	}
	for _, bad := range []string{"", zeros[:62], zeros + "00", strings.ToUpper(string(text)), zeros[:63] + "g", " " + zeros[:63]} {
		if err := got.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if got != want {
		t.Error("a refused chain was stored")
	}
}

func TestChainTellsWhatWasDoneToTheLog(t *testing.T) {
	hash := func(s string) Hash { return HashOf([]byte(s)) }
	start := ChainStart(testEpoch)
	seen := map[Chain]string{}
	for name, c := range map[string]Chain{
		"empty":         start,
		"another epoch": ChainStart("x"),
		"a":             start.Next(1, hash("a")),
		"a later":       start.Next(2, hash("a")),
		"a, b":          start.Next(1, hash("a")).Next(2, hash("b")),
		"b, a":          start.Next(1, hash("b")).Next(2, hash("a")),
		"a, a":          start.Next(1, hash("a")).Next(2, hash("a")),
		"b":             start.Next(1, hash("b")),
	} {
		if other, ok := seen[c]; ok {
			t.Errorf("%s has the chain of %s", name, other)
		}
		seen[c] = name
	}
}

func TestDeriveTellsLabelsAndKeysApart(t *testing.T) {
	a := testSigner.Derive("nats")
	if a != testSigner.Derive("nats") || a == testSigner.Derive("nat") || a == stranger.Derive("nats") || len(a) != 32 {
		t.Error("derived values are not one per label and key")
	}
}

// reencode encodes what was opened.
func reencode(t testing.TB, o Opened) []byte {
	t.Helper()
	if o.Heartbeat != nil {
		return sealHeartbeat(t, *o.Heartbeat)
	}
	list := make([][]byte, len(o.Batch.Entries))
	for i, r := range o.Batch.Entries {
		var err error
		if list[i], err = EncodeEntry(r); err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
	}
	return testSigner.SealBatch(o.Batch.Epoch, o.Batch.IssuedAt, list)
}

func sameOpened(a, b Opened) bool { return reflect.DeepEqual(a, b) }
