package wire

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/revcast/revcast/pkg/denylist"
)

// The vectors are made here and nowhere else: go test ./internal/wire -run
// TestVectorsAreWhatTheCodeWrites -update. testdata/README.md describes them.
var update = flag.Bool("update", false, "write testdata anew")

type vectors struct {
	PublicKey string `json:"public_key"`
	KeyID     string `json:"kid"`
	Epoch     string `json:"epoch"`

	Digests  []digestVector  `json:"digests"`
	Messages []messageVector `json:"messages"`
	Chain    chainVector     `json:"chain"`
	Snapshot snapshotVector  `json:"snapshot"`
	Large    largeVector     `json:"large"`
	Page     pageVector      `json:"page"`
	Tokens   []tokenVector   `json:"tokens"`
	Bad      []badVector     `json:"bad"`
}

type digestVector struct {
	Issuer   string            `json:"issuer"`
	Selector denylist.Selector `json:"selector"`
	Shape    []string          `json:"shape"`
	Digest   string            `json:"digest"`
}

type messageVector struct {
	Name      string           `json:"name"`
	Position  uint64           `json:"position,omitzero"` // in the log; none for a live heartbeat
	Base64    string           `json:"base64"`
	Valid     bool             `json:"valid"`
	Batch     *batchVector     `json:"batch,omitzero"`
	Heartbeat *heartbeatVector `json:"heartbeat,omitzero"`
}

type batchVector struct {
	Epoch    string        `json:"epoch"`
	IssuedAt int64         `json:"issued_at"`
	Entries  []entryVector `json:"entries"`
}

type entryVector struct {
	Issuer       string            `json:"iss"`
	Selector     denylist.Selector `json:"sel"`
	IssuedBefore *int64            `json:"issued_before"`
	Expires      int64             `json:"exp"`
	Exact        bool              `json:"exact"`
	At           int64             `json:"at"`
	By           string            `json:"by"`
	Reason       string            `json:"reason"`
	Digest       string            `json:"digest"`
}

type heartbeatVector struct {
	Epoch    string `json:"epoch"`
	Position uint64 `json:"position"`
	Chain    Chain  `json:"chain"`
	AsOf     int64  `json:"as_of"`
	IssuedAt int64  `json:"issued_at"`
	Nonce    string `json:"nonce"`
}

type chainVector struct {
	Start Chain       `json:"start"`
	Steps []chainStep `json:"steps"`
}

type chainStep struct {
	Position uint64 `json:"position"`
	Message  string `json:"message"`
	Chain    Chain  `json:"chain"`
}

type snapshotVector struct {
	File     string          `json:"file"`
	Epoch    string          `json:"epoch"`
	Position uint64          `json:"position"`
	Chain    Chain           `json:"chain"`
	IssuedAt int64           `json:"issued_at"`
	Sections []sectionVector `json:"sections"`
}

type sectionVector struct {
	Shape   []string    `json:"shape"`
	Window  int64       `json:"window"`
	Digests []string    `json:"digests"`
	Cuts    []cutVector `json:"cuts,omitzero"`
}

type cutVector struct {
	Cutoff  *int64 `json:"cutoff"` // null: 2^63-1, which denies all
	Expires int64  `json:"expires"`
}

// largeVector is a snapshot of one shape and window. Its digests are the numbers
// from 1 on.
type largeVector struct {
	File   string   `json:"file"`
	Shape  []string `json:"shape"`
	Window int64    `json:"window"`
	Count  int      `json:"count"`
}

type pageVector struct {
	File      string          `json:"file"`
	After     uint64          `json:"after"`
	Nonce     string          `json:"nonce"`
	Positions []uint64        `json:"positions"`
	Messages  []string        `json:"messages"`
	Heartbeat heartbeatVector `json:"heartbeat"`
}

type tokenVector struct {
	Name         string         `json:"name"`
	Issuer       string         `json:"issuer"`
	KeyID        *string        `json:"kid"`
	Claims       jsontext.Value `json:"claims"`
	Expires      int64          `json:"exp"`
	IssuedAt     *int64         `json:"iat"`
	SigningInput string         `json:"signing_input"`
	Fingerprint  string         `json:"fingerprint"`
	Expected     string         `json:"expected"`
	Shape        []string       `json:"shape,omitzero"` // where revoked
}

type badVector struct {
	Name   string `json:"name"`
	What   string `json:"what"` // message, snapshot or page
	After  uint64 `json:"after,omitzero"`
	Nonce  string `json:"nonce,omitzero"`
	Base64 string `json:"base64"`
}

const (
	idp         = "https://idp.example"
	otherIssuer = "https://other.example"
	vectorNonce = "0123456789abcdefABCDEF_-"
)

// someTokens are judged against the vectors' snapshot. What each should come to is
// said here, by hand.
var someTokens = []struct {
	name, kid, claims string
	shape             []string // nil: clear
}{
	{"jti in its window", "k-1", `{"iss":"https://idp.example","jti":"tok-window","exp":1700003600,"iat":1699999000}`, []string{"jti"}},
	{"jti in its window, no iat", "k-1", `{"iss":"https://idp.example","jti":"tok-window","exp":1700003600}`, []string{"jti"}},
	{"jti in its window, exp a fraction later", "k-1", `{"iss":"https://idp.example","jti":"tok-window","exp":1700003600.75,"iat":1699999000}`, []string{"jti"}},
	{"jti at the end of a window", "k-1", `{"iss":"https://idp.example","jti":"tok-edge","exp":1700004000,"iat":1699999000}`, []string{"jti"}},
	{"jti at the end of a window, exp a fraction later", "k-1", `{"iss":"https://idp.example","jti":"tok-edge","exp":1700004000.5,"iat":1699999000}`, []string{"jti"}},
	{"jti that every check asks", "k-1", `{"iss":"https://idp.example","jti":"tok-always","exp":1700050000,"iat":1699999000}`, []string{"jti"}},
	{"another jti", "k-1", `{"iss":"https://idp.example","jti":"tok-windo","exp":1700003600,"iat":1699999000}`, nil},
	{"same jti, another issuer", "k-1", `{"iss":"https://idp.example/","jti":"tok-window","exp":1700003600,"iat":1699999000}`, nil},
	{"same jti, issued long after", "k-1", `{"iss":"https://idp.example","jti":"tok-always","exp":1700080000,"iat":1700070000}`, []string{"jti"}},
	{"empty jti", "k-1", `{"iss":"https://idp.example","jti":"","exp":1700003600,"iat":1699999000}`, nil},
	{"session", "k-1", `{"iss":"https://idp.example","sid":"session-1","jti":"x","exp":1700003600,"iat":1700001000}`, []string{"sid"}},
	{"sub, iat at the cut-off", "k-1", `{"iss":"https://idp.example","sub":"alice","exp":1700003600,"iat":1700000000}`, []string{"sub"}},
	{"sub, iat in the second of the cut-off", "k-1", `{"iss":"https://idp.example","sub":"alice","exp":1700003600,"iat":1700000000.9}`, []string{"sub"}},
	{"sub, iat a second after", "k-1", `{"iss":"https://idp.example","sub":"alice","exp":1700003600,"iat":1700000001}`, nil},
	{"sub, no iat", "k-1", `{"iss":"https://idp.example","sub":"alice","exp":1700003600}`, []string{"sub"}},
	{"sub in another case", "k-1", `{"iss":"https://idp.example","sub":"Alice","exp":1700003600,"iat":1699999000}`, nil},
	{"claim in another case", "k-1", `{"iss":"https://idp.example","SUB":"alice","exp":1700003600,"iat":1699999000}`, nil},
	{"sub with two cut-offs, before the earlier", "k-1", `{"iss":"https://idp.example","sub":"carol","exp":1700003600,"iat":1699999900}`, []string{"sub"}},
	{"sub with two cut-offs, between them", "k-1", `{"iss":"https://idp.example","sub":"carol","exp":1700003600,"iat":1699999950}`, []string{"sub"}},
	{"sub with two cut-offs, after both", "k-1", `{"iss":"https://idp.example","sub":"carol","exp":1700003600,"iat":1700000001}`, nil},
	{"two claims, both match", "k-1", `{"iss":"https://idp.example","sub":"bob","client_id":"web","exp":1700003600,"iat":1699999000}`, []string{"client_id", "sub"}},
	{"two claims, one matches", "k-1", `{"iss":"https://idp.example","sub":"bob","client_id":"spa","exp":1700003600,"iat":1699999000}`, nil},
	{"two claims, one is missing", "k-1", `{"iss":"https://idp.example","sub":"bob","exp":1700003600,"iat":1699999000}`, nil},
	{"two claims, swapped", "k-1", `{"iss":"https://idp.example","sub":"web","client_id":"bob","exp":1700003600,"iat":1699999000}`, nil},
	{"header kid", "k-leaked", `{"iss":"https://idp.example","sub":"dave","exp":1700003600,"iat":1699999000}`, []string{"kid"}},
	{"header kid, issued after", "k-leaked", `{"iss":"https://idp.example","sub":"dave","exp":1700003600,"iat":1700000001}`, nil},
	{"a claim posing as kid", "k-1", `{"iss":"https://idp.example","sub":"dave","kid":"k-leaked","exp":1700003600,"iat":1699999000}`, nil},
	{"no kid", "", `{"iss":"https://idp.example","sub":"dave","exp":1700003600,"iat":1699999000}`, nil},
	{"number for a canonical value", "k-1", `{"iss":"https://idp.example","tenant":42,"exp":1700003600,"iat":1699999000}`, []string{"tenant"}},
	{"number in another spelling", "k-1", `{"iss":"https://idp.example","tenant":4.2e1,"exp":1700003600,"iat":1699999000}`, []string{"tenant"}},
	{"string for a canonical value", "k-1", `{"iss":"https://idp.example","tenant":"42","exp":1700003600,"iat":1699999000}`, []string{"tenant"}},
	{"string that is another", "k-1", `{"iss":"https://idp.example","tenant":"042","exp":1700003600,"iat":1699999000}`, nil},
	{"fraction", "k-1", `{"iss":"https://idp.example","tenant":42.5,"exp":1700003600,"iat":1699999000}`, nil},
	{"negative number", "k-1", `{"iss":"https://idp.example","tenant":-7,"exp":1700003600,"iat":1699999000}`, []string{"tenant"}},
	{"largest exact integer", "k-1", `{"iss":"https://idp.example","tenant":9007199254740991,"exp":1700003600,"iat":1699999000}`, []string{"tenant"}},
	{"integer beyond it", "k-1", `{"iss":"https://idp.example","tenant":9007199254740992,"exp":1700003600,"iat":1699999000}`, nil},
	{"string of an integer beyond it", "k-1", `{"iss":"https://idp.example","tenant":"9007199254740992","exp":1700003600,"iat":1699999000}`, []string{"tenant"}},
	{"boolean", "k-1", `{"iss":"https://idp.example","beta":true,"exp":1700003600,"iat":1699999000}`, []string{"beta"}},
	{"the other boolean", "k-1", `{"iss":"https://idp.example","beta":false,"exp":1700003600,"iat":1699999000}`, nil},
	{"null", "k-1", `{"iss":"https://idp.example","beta":null,"exp":1700003600,"iat":1699999000}`, nil},
	{"an object", "k-1", `{"iss":"https://idp.example","groups":{"admins":"admins"},"exp":1700003600,"iat":1699999000}`, nil},
	{"an element of an array", "k-1", `{"iss":"https://idp.example","groups":["users","admins"],"exp":1700003600,"iat":1699999000}`, []string{"groups"}},
	{"an element of an inner array", "k-1", `{"iss":"https://idp.example","groups":["users",["admins"]],"exp":1700003600,"iat":1699999000}`, nil},
	{"an empty array", "k-1", `{"iss":"https://idp.example","groups":[],"exp":1700003600,"iat":1699999000}`, nil},
	{"elements of two arrays", "k-1", `{"iss":"https://idp.example","aud":["web","api"],"roles":[1,7,"x"],"exp":1700003600,"iat":1699999000}`, []string{"aud", "roles"}},
	{"elements of two arrays, one missing", "k-1", `{"iss":"https://idp.example","aud":["web","api"],"roles":[1,"x"],"exp":1700003600,"iat":1699999000}`, nil},
	{"beyond ASCII", "k-1", `{"iss":"https://idp.example","sub":"日本\u00e9\"\\","exp":1700003600,"iat":1699999000}`, []string{"sub"}},
	{"beyond ASCII, decomposed", "k-1", `{"iss":"https://idp.example","sub":"日本e\u0301\"\\","exp":1700003600,"iat":1699999000}`, nil},
	{"fingerprint", "k-1", fingerprinted, []string{"fingerprint"}},
	{"fingerprint of other bytes", "k-1", `{"iss":"https://idp.example", "sub":"no-jti","exp":1700003600,"iat":1699999000}`, nil},
	{"a claim posing as fingerprint", "k-1", `{"iss":"https://idp.example","fingerprint":"` + theFingerprint + `","exp":1700003600,"iat":1699999000}`, nil},
	{"whole issuer", "k-1", `{"iss":"https://other.example","sub":"erin","exp":1700003600,"iat":1700000000}`, []string{}},
	{"whole issuer, no iat", "", `{"iss":"https://other.example","exp":1700003600}`, []string{}},
	{"whole issuer, issued after", "k-1", `{"iss":"https://other.example","sub":"erin","exp":1700003600,"iat":1700000001}`, nil},
	{"revoked after the snapshot", "k-1", `{"iss":"https://idp.example","jti":"tok-late","exp":1700003600,"iat":1699999000}`, nil},
}

const (
	fingerprinted  = `{"iss":"https://idp.example","sub":"no-jti","exp":1700003600,"iat":1699999000}`
	theFingerprint = "lJ_DLe-1KaMVzYvPszKa6BcNXz2fGe0XGPAPLJaKoAo" // of fingerprinted, with kid k-1
)

func signingInput(kid, claims string) string {
	header := `{"alg":"EdDSA","typ":"at+jwt"}`
	if kid != "" {
		header = `{"alg":"EdDSA","typ":"at+jwt","kid":"` + kid + `"}`
	}
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
}

type madeVectors struct {
	json, snapshot, large, page []byte
}

func makeVectors(t *testing.T) madeVectors {
	at := func(seconds int64) time.Time { return time.Unix(t0+seconds, 123456000) }
	whole := func(seconds int64) time.Time { return time.Unix(t0+seconds, 0) }
	by := func(s denylist.Selector, issuedBefore, expires int64) denylist.Revocation {
		return denylist.Revocation{Issuer: idp, Selector: s, IssuedBefore: whole(issuedBefore), Expires: whole(expires), At: at(0), By: "admin"}
	}
	first := []denylist.Revocation{
		{Issuer: idp, Selector: selector("jti", "tok-window"), Expires: whole(3600), ExactExpiry: true, At: at(0), By: "web"},
		{Issuer: idp, Selector: selector("jti", "tok-edge"), Expires: whole(4000), ExactExpiry: true, At: at(0), By: "web"},
		{Issuer: idp, Selector: selector("jti", "tok-always"), Expires: whole(86400), At: at(0), By: "admin", Reason: "lost laptop"},
		{Issuer: idp, Selector: selector("fingerprint", theFingerprint), Expires: whole(3600), ExactExpiry: true, At: at(0), By: "web"},
		{Issuer: idp, Selector: selector("sid", "session-1"), Expires: whole(86400), At: at(0)},
	}
	everyone := denylist.Revocation{Issuer: otherIssuer, IssuedBefore: whole(0), Expires: whole(86400), At: at(1), By: "admin", Reason: "breach"}
	second := []denylist.Revocation{
		by(selector("sub", "alice"), 0, 86400),
		by(selector("sub", "bob", "client_id", "web"), 0, 86400),
		by(selector("sub", "carol"), -100, 86400),
		by(selector("sub", "carol"), 0, 7200),
		by(selector("sub", "carol"), -200, 3600), // says nothing beside the two before
		by(selector("kid", "k-leaked"), 0, 86400),
		by(selector("tenant", "42"), 0, 86400),
		by(selector("tenant", "-7"), 0, 86400),
		by(selector("tenant", "9007199254740991"), 0, 86400),
		by(selector("tenant", "9007199254740992"), 0, 86400),
		by(selector("beta", "true"), 0, 86400),
		by(selector("groups", "admins"), 0, 86400),
		by(selector("aud", "api", "roles", "7"), 0, 86400),
		by(selector("sub", "日本é\"\\"), 0, 86400),
		everyone,
	}
	second[13].Reason = "quoted \"text\", \\, \u2028, <&> and \U0001F511"
	third := []denylist.Revocation{
		{Issuer: idp, Selector: selector("jti", "tok-late"), Expires: whole(3600), ExactExpiry: true, At: at(20)},
		by(selector("sub", "alice"), 20, 86420),
	}

	v := vectors{
		PublicKey: base64.RawURLEncoding.EncodeToString(testSigner.Public()), KeyID: KeyIDOf(testSigner.Public()).String(),
		Epoch: testEpoch,
	}
	for _, d := range append([]denylist.Revocation{
		{Issuer: "a", Selector: selector("b", "c")},
		{Issuer: "ab", Selector: selector("c", "d")},
		{Issuer: "a", Selector: selector("bc", "d")},
		{Issuer: "a", Selector: selector("B", "1", "a", "2", "é", "3", "aa", "4")},
		{Issuer: "a", Selector: selector("\uff5e", "first by bytes, not by UTF-16", "\U0001F511", "2")},
		{Issuer: "a", Selector: selector("long", strings.Repeat("x", 1000))},
	}, slices.Concat(first, second)...) {
		v.Digests = append(v.Digests, digestVector{d.Issuer, d.Selector, names(d.Selector.Shape()), hexDigest(d.Selector.Digest(d.Issuer))})
	}

	// The log: a message that no reader can use is part of the chain all the same.
	track := NewTrack(0, ChainStart(testEpoch))
	v.Chain.Start = track.Chain()
	log := map[string][]byte{}
	add := func(name string, position uint64, message []byte) {
		m := messageVector{Name: name, Position: position, Base64: base64.StdEncoding.EncodeToString(message)}
		if opened, err := testRing.Open(message); err == nil {
			m.Valid = true
			if h := opened.Heartbeat; h != nil {
				m.Heartbeat = &heartbeatVector{h.Epoch, h.Position, h.Chain, h.AsOf.UnixMicro(), h.IssuedAt.UnixMicro(), h.Nonce}
			}
			m.Batch = describeBatch(opened.Batch)
		}
		v.Messages = append(v.Messages, m)
		log[name] = message
		if position != 0 {
			track.Append(HashOf(message))
			v.Chain.Steps = append(v.Chain.Steps, chainStep{position, name, track.Chain()})
		}
	}
	add("first", 1, sealEntries(t, at(0), first...))
	add("second", 2, sealEntries(t, at(1), second...))
	add("mark", 3, sealHeartbeat(t, Heartbeat{testEpoch, 2, track.Chain(), at(1), at(2), ""}))
	add("by-a-stranger", 4, stranger.SealBatch(testEpoch, at(3), nil))
	var held []denylist.Entry
	for _, r := range slices.Concat(first, second) {
		held = append(held, r.Entry())
	}
	snap := Snapshot{testEpoch, 4, track.Chain(), at(10)}
	add("third", 5, sealEntries(t, at(20), third...))
	add("rubbish", 6, []byte("not a message at all"))
	add("heartbeat", 0, sealHeartbeat(t, Heartbeat{testEpoch, 6, track.Chain(), at(30), at(31), ""}))

	out := madeVectors{snapshot: writeSnapshot(t, testSigner, snap, held...)}
	v.Snapshot = snapshotVector{"snapshot.bin", snap.Epoch, snap.Position, snap.Chain, snap.IssuedAt.UnixMicro(), nil}
	for s := range denylist.Sections(held) {
		v.Snapshot.Sections = append(v.Snapshot.Sections, describeSection(s))
	}

	v.Large = largeVector{"large.bin", []string{"jti"}, 600, denylist.SectionSize + 1}
	out.large = writeSnapshot(t, testSigner, snap, numberedEntries(v.Large.Count)...)

	answer := Heartbeat{testEpoch, 6, track.Chain(), at(32), at(32), vectorNonce}
	records := AppendRecord(nil, Record{5, log["third"]})
	records = AppendRecord(records, Record{6, log["rubbish"]})
	out.page = AppendPage(records, sealHeartbeat(t, answer))
	v.Page = pageVector{"page.bin", 4, vectorNonce, []uint64{5, 6}, []string{"third", "rubbish"},
		heartbeatVector{answer.Epoch, answer.Position, answer.Chain, answer.AsOf.UnixMicro(), answer.IssuedAt.UnixMicro(), answer.Nonce}}

	for _, c := range someTokens {
		var claims struct {
			Iss string   `json:"iss"`
			Exp *float64 `json:"exp"`
			Iat *float64 `json:"iat"`
		}
		if err := json.Unmarshal([]byte(c.claims), &claims); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		input := signingInput(c.kid, c.claims)
		d := tokenVector{
			Name: c.name, Issuer: claims.Iss, Claims: jsontext.Value(c.claims), Expires: int64(*claims.Exp),
			SigningInput: input, Fingerprint: denylist.FingerprintOf(input), Expected: "clear", Shape: c.shape,
		}
		if c.kid != "" {
			d.KeyID = &c.kid
		}
		if claims.Iat != nil {
			d.IssuedAt = new(int64(*claims.Iat))
		}
		if c.shape != nil {
			d.Expected = "revoked"
		}
		v.Tokens = append(v.Tokens, d)
	}

	v.Bad = append(v.Bad, badMessages(log["first"], log["heartbeat"])...)
	v.Bad = append(v.Bad, badSnapshots(t, out.snapshot, snap, held)...)
	v.Bad = append(v.Bad, badPages(t, log, answer, out.page)...)

	var err error
	if out.json, err = json.Marshal(v, json.Deterministic(true), jsontext.WithIndent(" ")); err != nil {
		t.Fatal(err)
	}
	out.json = append(out.json, '\n')
	return out
}

func names(s denylist.Shape) []string { return append([]string{}, s.Names()...) }

func hexDigest(d denylist.Digest) string { return hex.EncodeToString(d[:]) }

func describeBatch(b *Batch) *batchVector {
	if b == nil {
		return nil
	}
	v := &batchVector{b.Epoch, b.IssuedAt.UnixMicro(), nil}
	for _, r := range b.Entries {
		e := entryVector{
			Issuer: r.Issuer, Selector: r.Selector, Expires: r.Expires.Unix(), Exact: r.ExactExpiry,
			At: r.At.UnixMicro(), By: r.By, Reason: r.Reason, Digest: hexDigest(r.Selector.Digest(r.Issuer)),
		}
		if !r.IssuedBefore.IsZero() {
			e.IssuedBefore = new(r.IssuedBefore.Unix())
		}
		v.Entries = append(v.Entries, e)
	}
	return v
}

func describeSection(s denylist.Section) sectionVector {
	v := sectionVector{Shape: names(s.Shape), Window: s.Window}
	for i := range s.Digests {
		v.Digests = append(v.Digests, hexDigest(s.Digests[i]))
		if s.Window == 0 {
			cut := cutVector{Expires: s.Cuts[i].Expires}
			if s.Cuts[i].Cutoff != denylist.NoCutoff {
				cut.Cutoff = new(s.Cuts[i].Cutoff)
			}
			v.Cuts = append(v.Cuts, cut)
		}
	}
	return v
}

// badBatches are payloads that are refused though the authority's key signed them.
var badBatches = []struct{ name, payload string }{
	{"batch of an unknown version", `{"v":2,"epoch":"E","issued_at":1,"entries":[]}`},
	{"batch without a version", `{"epoch":"E","issued_at":1,"entries":[]}`},
	{"batch without an epoch", `{"v":1,"issued_at":1,"entries":[]}`},
	{"batch with an empty epoch", `{"v":1,"epoch":"","issued_at":1,"entries":[]}`},
	{"batch without issued_at", `{"v":1,"epoch":"E","entries":[]}`},
	{"batch without entries", `{"v":1,"epoch":"E","issued_at":1}`},
	{"batch with null entries", `{"v":1,"epoch":"E","issued_at":1,"entries":null}`},
	{"batch with an unknown member", `{"v":1,"epoch":"E","issued_at":1,"entries":[],"x":0}`},
	{"batch with a member in another case", `{"v":1,"Epoch":"E","issued_at":1,"entries":[]}`},
	{"batch with a duplicate member", `{"v":1,"epoch":"E","issued_at":1,"entries":[],"entries":[]}`},
	{"batch with a duplicate member, spelled with an escape", `{"v":1,"epoch":"E","issued_at":1,"entries":[],"\u0065poch":"E"}`},
	{"batch with bytes after it", `{"v":1,"epoch":"E","issued_at":1,"entries":[]}{}`},
	{"batch with a NUL after it", `{"v":1,"epoch":"E","issued_at":1,"entries":[]}` + "\x00"},
	{"batch cut short", `{"v":1,"epoch":"E","issued_at":1,"entries":[]`},
	{"batch that is an array", `[]`},
	{"batch that is null", `null`},
	{"batch of nothing", ``},
	{"entry that is null", entries(`null`)},
	{"entry without sel", entries(`{"iss":"a","issued_before":1,"exp":2,"at":1}`)},
	{"entry with null sel", entries(`{"iss":"a","sel":null,"issued_before":1,"exp":2,"at":1}`)},
	{"entry with an array for sel", entries(`{"iss":"a","sel":[],"issued_before":1,"exp":2,"at":1}`)},
	{"entry with a duplicate claim", entries(`{"iss":"a","sel":{"jti":"x","jti":"y"},"exp":2,"at":1}`)},
	{"entry with a null value", entries(`{"iss":"a","sel":{"jti":null},"exp":2,"at":1}`)},
	{"entry with a number for a value", entries(`{"iss":"a","sel":{"jti":1},"exp":2,"at":1}`)},
	{"entry with a boolean for a value", entries(`{"iss":"a","sel":{"jti":true},"exp":2,"at":1}`)},
	{"entry with an array for a value", entries(`{"iss":"a","sel":{"jti":["x"]},"exp":2,"at":1}`)},
	{"entry with an empty value", entries(`{"iss":"a","sel":{"jti":""},"exp":2,"at":1}`)},
	{"entry with an empty claim name", entries(`{"iss":"a","sel":{"":"x"},"issued_before":1,"exp":2,"at":1}`)},
	{"entry with a NUL in a claim name", entries(`{"iss":"a","sel":{"a\u0000b":"x"},"issued_before":1,"exp":2,"at":1}`)},
	{"entry that selects by iss", entries(`{"iss":"a","sel":{"iss":"a"},"issued_before":1,"exp":2,"at":1}`)},
	{"entry that selects by exp", entries(`{"iss":"a","sel":{"exp":"2"},"issued_before":1,"exp":2,"at":1}`)},
	{"entry with nine claims", entries(`{"iss":"a","sel":{"a":"1","b":"1","c":"1","d":"1","e":"1","f":"1","g":"1","h":"1","i":"1"},"issued_before":1,"exp":2,"at":1}`)},
	{"entry without iss", entries(`{"sel":{"jti":"x"},"exp":2,"at":1}`)},
	{"entry with an empty iss", entries(`{"iss":"","sel":{"jti":"x"},"exp":2,"at":1}`)},
	{"entry without exp", entries(`{"iss":"a","sel":{"jti":"x"},"at":1}`)},
	{"entry without at", entries(`{"iss":"a","sel":{"jti":"x"},"exp":2}`)},
	{"entry with a negative exp", entries(`{"iss":"a","sel":{"jti":"x"},"exp":-1,"at":1}`)},
	{"entry with an exp beyond 9999", entries(`{"iss":"a","sel":{"jti":"x"},"exp":253402300800,"at":1}`)},
	{"entry with a string for exp", entries(`{"iss":"a","sel":{"jti":"x"},"exp":"2","at":1}`)},
	{"entry with a fraction for exp", entries(`{"iss":"a","sel":{"jti":"x"},"exp":2.5,"at":1}`)},
	{"entry by sub without a cut-off", entries(`{"iss":"a","sel":{"sub":"x"},"exp":2,"at":1}`)},
	{"entry of the whole issuer without a cut-off", entries(`{"iss":"a","sel":{},"exp":2,"at":1}`)},
	{"entry with a cut-off of zero", entries(`{"iss":"a","sel":{"jti":"x"},"issued_before":0,"exp":2,"at":1}`)},
	{"entry with a cut-off in the year 1", entries(`{"iss":"a","sel":{"jti":"x"},"issued_before":-62135596800,"exp":2,"at":1}`)},
	{"exact entry with a cut-off", entries(`{"iss":"a","sel":{"jti":"x"},"issued_before":1,"exp":2,"exact":true,"at":1}`)},
	{"exact entry by sid", entries(`{"iss":"a","sel":{"sid":"x"},"exp":2,"exact":true,"at":1}`)},
	{"exact entry by jti and sub", entries(`{"iss":"a","sel":{"jti":"x","sub":"y"},"exp":2,"exact":true,"at":1}`)},
	{"entry with an unknown member", entries(`{"iss":"a","sel":{"jti":"x"},"exp":2,"at":1,"scope":"x"}`)},
	{"entry with a duplicate member", entries(`{"iss":"a","sel":{"jti":"x"},"sel":{"jti":"x"},"exp":2,"at":1}`)},
	{"entry with invalid UTF-8", entries("{\"iss\":\"a\",\"sel\":{\"jti\":\"x\xff\"},\"exp\":2,\"at\":1}")},
	{"entry with half a surrogate pair", entries(`{"iss":"a","sel":{"jti":"x\ud800"},"exp":2,"at":1}`)},
	{"good entry before a bad one", entries(`{"iss":"a","sel":{"jti":"x"},"exp":2,"at":1},{"iss":"a","sel":{"sub":"x"},"exp":2,"at":1}`)},
}

func entries(list string) string {
	return `{"v":1,"epoch":"E","issued_at":1,"entries":[` + list + `]}`
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

var badHeartbeats = []struct{ name, payload string }{
	{"heartbeat of an unknown version", `{"v":2,"epoch":"E","position":1,"chain":"` + zeros + `","as_of":1,"issued_at":1}`},
	{"heartbeat without an epoch", `{"v":1,"position":1,"chain":"` + zeros + `","as_of":1,"issued_at":1}`},
	{"heartbeat without a position", `{"v":1,"epoch":"E","chain":"` + zeros + `","as_of":1,"issued_at":1}`},
	{"heartbeat with a null position", `{"v":1,"epoch":"E","position":null,"chain":"` + zeros + `","as_of":1,"issued_at":1}`},
	{"heartbeat with a negative position", `{"v":1,"epoch":"E","position":-1,"chain":"` + zeros + `","as_of":1,"issued_at":1}`},
	{"heartbeat without a chain", `{"v":1,"epoch":"E","position":1,"as_of":1,"issued_at":1}`},
	{"heartbeat with a null chain", `{"v":1,"epoch":"E","position":1,"chain":null,"as_of":1,"issued_at":1}`},
	{"heartbeat with a short chain", `{"v":1,"epoch":"E","position":1,"chain":"00","as_of":1,"issued_at":1}`},
	{"heartbeat with a chain in capitals", `{"v":1,"epoch":"E","position":1,"chain":"` + zeros[:62] + `AB","as_of":1,"issued_at":1}`},
	{"heartbeat without as_of", `{"v":1,"epoch":"E","position":1,"chain":"` + zeros + `","issued_at":1}`},
	{"heartbeat without issued_at", `{"v":1,"epoch":"E","position":1,"chain":"` + zeros + `","as_of":1}`},
	{"heartbeat as of later than it was issued", `{"v":1,"epoch":"E","position":1,"chain":"` + zeros + `","as_of":2,"issued_at":1}`},
	{"heartbeat with an unknown member", `{"v":1,"epoch":"E","position":1,"chain":"` + zeros + `","as_of":1,"issued_at":1,"entries":[]}`},
	{"heartbeat with a duplicate member", `{"v":1,"epoch":"E","position":1,"position":1,"chain":"` + zeros + `","as_of":1,"issued_at":1}`},
	{"heartbeat with bytes after it", `{"v":1,"epoch":"E","position":1,"chain":"` + zeros + `","as_of":1,"issued_at":1} x`},
	{"heartbeat with a nonce of 65 bytes", `{"v":1,"epoch":"E","position":1,"chain":"` + zeros + `","as_of":1,"issued_at":1,"nonce":"` + zeros + `0"}`},
}

func bad(what, name string, b []byte) badVector {
	return badVector{Name: name, What: what, Base64: base64.StdEncoding.EncodeToString(b)}
}

func badMessages(batch, heartbeat []byte) (all []badVector) {
	payload := batch[headSize:]
	for _, c := range []struct {
		name    string
		message []byte
	}{
		{"nothing", nil},
		{"head cut short", batch[:headSize-1]},
		{"head alone", batch[:headSize]},
		{"altered magic", altered(batch, 0)},
		{"unknown version", altered(batch, len(magic))},
		{"batch that calls itself a heartbeat", slices.Concat(batch[:kindAt], []byte{'h'}, batch[keyIDAt:])},
		{"heartbeat that calls itself a batch", slices.Concat(heartbeat[:kindAt], []byte{'b'}, heartbeat[keyIDAt:])},
		{"unknown kind, signed", testSigner.seal('x', payload)},
		{"snapshot's kind, signed", testSigner.seal(kindSnapshot, payload)},
		{"altered key id", altered(batch, keyIDAt)},
		{"altered signature, first byte", altered(batch, signatureAt)},
		{"altered signature, last byte", altered(batch, headSize-1)},
		{"altered payload, first byte", altered(batch, headSize)},
		{"altered payload, last byte", altered(batch, -1)},
		{"byte after a message", append(slices.Clone(batch), ' ')},
		{"message less its last byte", batch[:len(batch)-1]},
		{"signed by a stranger", stranger.seal(KindBatch, payload)},
		{"signed by a stranger under the authority's key id", Signer{stranger.key, testSigner.id}.seal(KindBatch, payload)},
		{"payload signed without the domain", slices.Concat(batch[:signatureAt], bareSignature(payload), payload)},
	} {
		all = append(all, bad("message", c.name, c.message))
	}
	for _, c := range badBatches {
		all = append(all, bad("message", c.name, testSigner.seal(KindBatch, []byte(c.payload))))
	}
	for _, c := range badHeartbeats {
		all = append(all, bad("message", c.name, testSigner.seal(KindHeartbeat, []byte(c.payload))))
	}
	return all
}

func bareSignature(payload []byte) []byte {
	s, err := testSigner.key.Sign(nil, payload, crypto.Hash(0))
	if err != nil {
		panic(err)
	}
	return s
}

// section writes one section by hand, so that it can break the rules.
func section(shape string, window uint64, count uint16, content ...[]byte) []byte {
	b := []byte{sectionFollows}
	b = binary.BigEndian.AppendUint16(b, uint16(len(shape)))
	b = append(b, shape...)
	b = binary.BigEndian.AppendUint64(b, window)
	b = binary.BigEndian.AppendUint16(b, count)
	return append(b, bytes.Join(content, nil)...)
}

func digestOf(b byte) []byte { return bytes.Repeat([]byte{b}, digestSize) }

// numbered makes the digests from one number to another.
func numbered(from, to int) (b []byte) {
	for n := from; n <= to; n++ {
		b = append(b, numberDigest(n)...)
	}
	return b
}

func numberDigest(n int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 8, digestSize), uint64(n))
}

func numberedEntries(count int) []denylist.Entry {
	entries := make([]denylist.Entry, count)
	for i := range entries {
		entries[i] = denylist.Entry{Shape: "jti", Digest: denylist.Digest(numberDigest(i + 1)), Cutoff: denylist.NoCutoff, Expires: 600, Windowed: true}
	}
	return entries
}

func cutOf(d byte, cutoff, expires int64) []byte {
	b := binary.BigEndian.AppendUint64(digestOf(d), uint64(cutoff))
	return binary.BigEndian.AppendUint64(b, uint64(expires))
}

func snapshotHead(version byte, header string) []byte {
	b := append([]byte(snapshotMagic), version)
	b = binary.BigEndian.AppendUint16(b, uint16(len(header)))
	return append(b, header...)
}

const goodHeader = `{"v":2,"epoch":"E","position":1,"chain":"` + zeros + `","issued_at":1}`

const (
	full = denylist.SectionSize
	huge = 1<<62 - 1<<62%600 // a multiple of a window
)

// badSections are refused by ReadSections, and so in every snapshot.
var badSections = []struct {
	name    string
	content []byte
}{
	{"no end", section("jti", 600, 1, digestOf(1))},
	{"unknown mark", append([]byte{2}, append(section("jti", 600, 1, digestOf(1)), 0)[1:]...)},
	{"unknown mark for the end", append(section("jti", 600, 1, digestOf(1)), 0xff)},
	{"count 0", append(section("jti", 600, 0), 0)},
	{"count 0 in window 0", append(section("sub", 0, 0), 0)},
	{"count 4097", append(section("jti", 600, full+1, numbered(1, full+1)), 0)},
	{"count too large", append(section("jti", 600, 2, digestOf(1)), 0)},
	{"count too small", append(section("jti", 600, 1, digestOf(1), digestOf(2)), 0)},
	{"count of 4096 for one", append(section("jti", 600, full, digestOf(1)), 0)},
	{"count of 4096 for one in window 0", append(section("sub", 0, full, cutOf(1, 1, 1)), 0)},
	{"count of 65535", append(section("jti", 600, 1<<16-1, digestOf(1)), 0)},
	{"window that is none", append(section("jti", 601, 1, digestOf(1)), 0)},
	{"negative window", append(section("jti", 1<<64-600, 1, digestOf(1)), 0)},
	{"window beyond 9999", append(section("jti", 253402300800+600, 1, digestOf(1)), 0)},
	{"window beyond 2^61", append(section("jti", huge, 1, digestOf(1)), 0)},
	{"window of -2^63", append(section("jti", 1<<63, 1, digestOf(1)), 0)},
	{"descending windows", slices.Concat(section("jti", 1200, 1, digestOf(1)), section("jti", 600, 1, digestOf(1)), []byte{0})},
	{"window 0 after another", slices.Concat(section("jti", 600, 1, digestOf(1)), section("jti", 0, 1, cutOf(1, 1, 1)), []byte{0})},
	{"descending shapes", slices.Concat(section("sid", 600, 1, digestOf(1)), section("jti", 600, 1, digestOf(1)), []byte{0})},
	{"section after another that was not full", slices.Concat(section("jti", 600, 1, digestOf(1)), section("jti", 600, 1, digestOf(2)), []byte{0})},
	{"section after another that was not full in window 0", slices.Concat(section("sub", 0, 1, cutOf(1, 1, 1)), section("sub", 0, 1, cutOf(2, 1, 1)), []byte{0})},
	{"section again", slices.Concat(section("jti", 600, 1, digestOf(1)), section("jti", 600, 1, digestOf(1)), []byte{0})},
	{"section again, after another shape", slices.Concat(section("jti", 600, 1, digestOf(1)), section("sid", 600, 1, digestOf(1)), section("jti", 600, 1, digestOf(2)), []byte{0})},
	{"digest twice over two sections", slices.Concat(section("jti", 600, full, numbered(1, full)), section("jti", 600, 1, numbered(full, full)), []byte{0})},
	{"descending digests", append(section("jti", 600, 2, digestOf(2), digestOf(1)), 0)},
	{"digest twice", append(section("jti", 600, 2, digestOf(1), digestOf(1)), 0)},
	{"descending digests in window 0", append(section("sub", 0, 2, cutOf(2, 1, 1), cutOf(1, 1, 1)), 0)},
	{"digest twice in window 0", append(section("sub", 0, 2, cutOf(1, 1, 1), cutOf(1, 1, 1)), 0)},
	{"digest twice in window 0, with ascending cut-offs", append(section("sub", 0, 2, cutOf(1, 1, 2), cutOf(1, 2, 1)), 0)},
	{"shape out of order", append(section("sub\x00client_id", 0, 1, cutOf(1, 1, 1)), 0)},
	{"shape with a name twice", append(section("sub\x00sub", 0, 1, cutOf(1, 1, 1)), 0)},
	{"shape with an empty name", append(section("\x00sub", 0, 1, cutOf(1, 1, 1)), 0)},
	{"shape of one empty name and another", append(section("sub\x00", 0, 1, cutOf(1, 1, 1)), 0)},
	{"shape of nine names", append(section("a\x00b\x00c\x00d\x00e\x00f\x00g\x00h\x00i", 0, 1, cutOf(1, 1, 1)), 0)},
	{"shape with a name of 257 bytes", append(section(strings.Repeat("x", 257), 0, 1, cutOf(1, 1, 1)), 0)},
	{"shape of 65535 bytes that are not there", []byte{sectionFollows, 0xff, 0xff, 'j', 't', 'i'}},
	{"shape by iss", append(section("iss", 0, 1, cutOf(1, 1, 1)), 0)},
	{"shape of invalid UTF-8", append(section("\xff", 0, 1, cutOf(1, 1, 1)), 0)},
	{"cut-off of zero", append(section("sub", 0, 1, cutOf(1, 0, 1)), 0)},
	{"negative cut-off", append(section("sub", 0, 1, cutOf(1, -1, 1)), 0)},
	{"cut-off beyond 9999", append(section("sub", 0, 1, cutOf(1, 253402300800, 1)), 0)},
	{"cut-off of 2^62", append(section("sub", 0, 1, cutOf(1, 1<<62, 1)), 0)},
	{"cut-off of 2^63-2", append(section("sub", 0, 1, cutOf(1, 1<<63-2, 1)), 0)},
	{"expiry of zero", append(section("sub", 0, 1, cutOf(1, 1, 0)), 0)},
	{"negative expiry", append(section("sub", 0, 1, cutOf(1, 1, -1)), 0)},
	{"expiry beyond 9999", append(section("sub", 0, 1, cutOf(1, 1, 253402300800)), 0)},
	{"expiry of 2^62", append(section("sub", 0, 1, cutOf(1, 1, 1<<62)), 0)},
	{"expiry of 2^63-1", append(section("sub", 0, 1, cutOf(1, 1, 1<<63-1)), 0)},
}

func badSnapshots(t testing.TB, good []byte, snap Snapshot, held []denylist.Entry) (all []badVector) {
	head := snapshotHead(snapshotVersion, goodHeader)
	header := func(version byte, text string) []byte {
		return signSnapshot(testSigner, append(snapshotHead(version, text), 0))
	}
	body := snapshotBody(good)
	for _, c := range []struct {
		name     string
		snapshot []byte
	}{
		{"nothing", nil},
		{"altered magic", altered(good, 0)},
		{"altered header", altered(good, 20)},
		{"altered section", altered(good, len(body)-10)},
		{"altered key id", altered(good, len(body))},
		{"altered signature", altered(good, -1)},
		{"byte after it", append(slices.Clone(good), 0)},
		{"less its last byte", good[:len(good)-1]},
		{"less its signature", body},
		{"signed by a stranger", writeSnapshot(t, stranger, snap, held...)},
		{"signed by a stranger under the authority's key id", writeSnapshot(t, Signer{stranger.key, testSigner.id}, snap, held...)},
		{"signed as a batch", slices.Concat(body, testSigner.id[:], testSigner.sign(KindBatch, sumOf(body)))},
		{"byte before the signature", signSnapshot(testSigner, append(slices.Clone(body), 0))},
		{"two snapshots", slices.Concat(good, good)},
		{"unknown magic", signSnapshot(testSigner, slices.Concat([]byte("RVCF"), head[len(snapshotMagic):], []byte{sectionsEnd}))},
		{"unknown version", header(3, goodHeader)},
		{"version 1 before a header of version 2", header(1, goodHeader)},
		{"version 1", header(1, strings.Replace(goodHeader, `"v":2`, `"v":1`, 1))},
		{"header of an unknown version", header(2, strings.Replace(goodHeader, `"v":2`, `"v":3`, 1))},
		{"header of version 1", header(2, strings.Replace(goodHeader, `"v":2`, `"v":1`, 1))},
		{"header with a version of 2^62", header(2, strings.Replace(goodHeader, `"v":2`, `"v":4611686018427387904`, 1))},
		{"header with a negative position", header(2, strings.Replace(goodHeader, `"position":1`, `"position":-1`, 1))},
		{"header with a position of 2^64", header(2, strings.Replace(goodHeader, `"position":1`, `"position":18446744073709551616`, 1))},
		{"header with an unknown member", header(2, strings.Replace(goodHeader, `}`, `,"x":1}`, 1))},
		{"header with a duplicate member", header(2, strings.Replace(goodHeader, `}`, `,"epoch":"E"}`, 1))},
		{"header with bytes after it", header(2, goodHeader+"{}")},
		{"header longer than what is there", signSnapshot(testSigner, []byte(snapshotMagic+"\x02\x10\x00"+goodHeader))},
		{"header of 65535 bytes", signSnapshot(testSigner, []byte(snapshotMagic+"\x02\xff\xff"+goodHeader))},
		{"header without an epoch", header(2, strings.Replace(goodHeader, `"epoch":"E",`, ``, 1))},
		{"header without a position", header(2, strings.Replace(goodHeader, `"position":1,`, ``, 1))},
		{"header without a chain", header(2, strings.Replace(goodHeader, `"chain":"`+zeros+`",`, ``, 1))},
		{"header without issued_at", header(2, strings.Replace(goodHeader, `,"issued_at":1`, ``, 1))},
		{"header with an issued_at of 2^62", header(2, strings.Replace(goodHeader, `"issued_at":1`, `"issued_at":4611686018427387904`, 1))},
	} {
		all = append(all, bad("snapshot", c.name, c.snapshot))
	}
	for _, c := range badSections {
		all = append(all, bad("snapshot", c.name, signSnapshot(testSigner, slices.Concat(head, c.content))))
	}
	two := slices.Concat(section("sub", 0, 1, cutOf(1, 1, 1)), section("jti", 600, 2, digestOf(1), digestOf(2)), []byte{0})
	for n := range two {
		name := fmt.Sprintf("sections cut at byte %d of %d", n, len(two))
		all = append(all, bad("snapshot", name, signSnapshot(testSigner, slices.Concat(head, two[:n]))))
	}
	return all
}

func sumOf(b []byte) []byte { h := HashOf(b); return h[:] }

func badPages(t testing.TB, log map[string][]byte, answer Heartbeat, good []byte) (all []badVector) {
	end := sealHeartbeat(t, answer)
	third := func(position uint64) []byte { return AppendRecord(nil, Record{position, log["third"]}) }
	otherNonce, noNonce := answer, answer
	otherNonce.Nonce, noNonce.Nonce = "0123456789abcdefABCDEF__", ""
	for _, c := range []struct {
		name string
		page []byte
	}{
		{"nothing", nil},
		{"no heartbeat", third(5)},
		{"less its last byte", good[:len(good)-1]},
		{"byte after it", append(slices.Clone(good), 0)},
		{"record after the heartbeat", append(slices.Clone(good), third(7)...)},
		{"gap at the beginning", AppendPage(third(6), end)},
		{"gap", AppendPage(slices.Concat(third(5), third(7)), end)},
		{"records out of order", AppendPage(slices.Concat(third(6), third(5)), end)},
		{"record twice", AppendPage(slices.Concat(third(5), third(5)), end)},
		{"record from before", AppendPage(slices.Concat(third(4), third(5)), end)},
		{"another nonce", AppendPage(third(5), sealHeartbeat(t, otherNonce))},
		{"no nonce", AppendPage(third(5), sealHeartbeat(t, noNonce))},
		{"batch for a heartbeat", AppendPage(third(5), log["third"])},
		{"altered heartbeat", AppendPage(third(5), altered(end, -1))},
		{"heartbeat by a stranger", AppendPage(third(5), stranger.seal(KindHeartbeat, end[headSize:]))},
		{"length of 2^32-1", append(binary.BigEndian.AppendUint64(nil, 5), 0xff, 0xff, 0xff, 0xff)},
	} {
		b := bad("page", c.name, c.page)
		b.After, b.Nonce = 4, answer.Nonce
		all = append(all, b)
	}
	return all
}

func TestVectorsAreWhatTheCodeWrites(t *testing.T) {
	made := makeVectors(t)
	for name, want := range map[string][]byte{"vectors.json": made.json, "snapshot.bin": made.snapshot, "large.bin": made.large, "page.bin": made.page} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code writes. A format that changed needs a new version; else run with -update", path)
		}
	}
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	if err := json.Unmarshal(testdata(t, "vectors.json"), &v, json.RejectUnknownMembers(true)); err != nil {
		t.Fatal(err)
	}
	return v
}

func fromBase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors does with the files what a reader in another language would do.
func TestVectors(t *testing.T) {
	v := readVectors(t)
	key, err := ParseKey(v.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	ring := NewKeyring(key)
	if KeyIDOf(key).String() != v.KeyID {
		t.Error("kid is another")
	}
	for _, d := range v.Digests {
		if got := hexDigest(d.Selector.Digest(d.Issuer)); got != d.Digest || !slices.Equal(names(d.Selector.Shape()), d.Shape) {
			t.Errorf("digest of %s %s: %s", d.Issuer, d.Selector, got)
		}
	}

	track, log := NewTrack(0, ChainStart(v.Epoch)), map[string][]byte{}
	if track.Chain() != v.Chain.Start {
		t.Error("the chain's start is another")
	}
	for _, m := range v.Messages {
		log[m.Name] = fromBase64(t, m.Base64)
		opened, err := ring.Open(log[m.Name])
		if (err == nil) != m.Valid {
			t.Errorf("%s: %v", m.Name, err)
		}
		if (opened.Batch != nil) != (m.Batch != nil) || (opened.Heartbeat != nil) != (m.Heartbeat != nil) {
			t.Errorf("%s: opens as something else", m.Name)
		}
	}
	for _, s := range v.Chain.Steps {
		track.Append(HashOf(log[s.Message]))
		if track.Position() != s.Position || track.Chain() != s.Chain {
			t.Errorf("chain at %d is another", s.Position)
		}
	}

	snap, sections, err := ring.ReadSnapshot(bytes.NewReader(testdata(t, v.Snapshot.File)))
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := track.At(snap.Position); !ok || snap.Chain != at || snap.Chain != v.Snapshot.Chain || snap.Position != v.Snapshot.Position ||
		snap.Epoch != v.Snapshot.Epoch || snap.IssuedAt.UnixMicro() != v.Snapshot.IssuedAt {
		t.Errorf("the snapshot's header is another: %+v", snap)
	}
	list := denylist.New()
	var described []sectionVector
	for s, err := range sections {
		if err != nil {
			t.Fatal(err)
		}
		list.AddSection(s)
		described = append(described, describeSection(s))
	}
	if !reflect.DeepEqual(described, v.Snapshot.Sections) {
		t.Errorf("the snapshot's sections are others: %+v", described)
	}
	_, sections, err = ring.ReadSnapshot(bytes.NewReader(testdata(t, v.Large.File)))
	if err != nil {
		t.Fatal(err)
	}
	digests := 0
	for s, err := range sections {
		if err != nil || !slices.Equal(names(s.Shape), v.Large.Shape) || s.Window != v.Large.Window {
			t.Fatalf("the large snapshot after %d digests: %v", digests, err)
		}
		for _, d := range s.Digests {
			if digests++; !bytes.Equal(d[:], numberDigest(digests)) {
				t.Errorf("the large snapshot's digest %d is %s", digests, hexDigest(d))
			}
		}
	}
	if digests != v.Large.Count {
		t.Errorf("the large snapshot has %d digests", digests)
	}
	list.Advance(testNow)
	for _, c := range v.Tokens {
		if got := judge(t, list, c); got != fmt.Sprintf("%s %v", c.Expected, c.Shape) {
			t.Errorf("%s: %s, not %s %v", c.Name, got, c.Expected, c.Shape)
		}
	}

	page, err := ring.ReadPage(bytes.NewReader(testdata(t, v.Page.File)), v.Page.After, v.Page.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range page.Records {
		if r.Position != v.Page.Positions[i] || !bytes.Equal(r.Message, log[v.Page.Messages[i]]) {
			t.Errorf("the page's record %d is another", i)
		}
	}
	if h := page.Heartbeat; h.Position != 6 || h.Chain != track.Chain() {
		t.Errorf("the page's heartbeat: %+v", h)
	}

	for _, b := range v.Bad {
		var err error
		content := fromBase64(t, b.Base64)
		switch b.What {
		case "message":
			_, err = ring.Open(content)
		case "snapshot":
			_, _, err = readSnapshot(t, bytes.NewReader(content))
		case "page":
			_, err = ring.ReadPage(bytes.NewReader(content), b.After, b.Nonce)
		default:
			t.Errorf("%s: what is a %s?", b.Name, b.What)
		}
		if err == nil {
			t.Errorf("%s with %s was accepted", b.What, b.Name)
		}
	}
}

func judge(t *testing.T, list *denylist.List, c tokenVector) string {
	t.Helper()
	claims := denylist.Claims{
		Issuer: c.Issuer, Expires: time.Unix(c.Expires, 0), Fingerprint: denylist.FingerprintOf(c.SigningInput),
	}
	if claims.Fingerprint != c.Fingerprint {
		t.Errorf("%s: fingerprint is another", c.Name)
	}
	if c.IssuedAt != nil {
		claims.IssuedAt = time.Unix(*c.IssuedAt, 0)
	}
	if c.KeyID != nil {
		claims.KeyID = *c.KeyID
	}
	if err := json.Unmarshal(c.Claims, &claims.Values); err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	token, err := denylist.NewToken(claims)
	if err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	switch verdict := list.CheckToken(token, testNow); verdict.Status {
	case denylist.Revoked:
		return fmt.Sprintf("revoked %v", names(verdict.Shape))
	default:
		return fmt.Sprintf("%v %v", verdict.Status, []string(nil))
	}
}
