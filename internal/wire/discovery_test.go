package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

const goodDiscovery = `{"version":1,"epoch":"E","signing_keys":[{"kid":"fe812c12f3ab4ce6","kty":"OKP","crv":"Ed25519","x":"6kpsY-KcUgq-9VB7Ey7F-ZVHdq6-vnuSQh7qaRRG0iw"}],` +
	`"live":{"url":"nats://h:4222","subject":"revcast.live.>","user":"u","password":"p","heartbeat_ms":1000},"snapshot":"/v1/snapshot","log":"/v1/log"}`

func TestDiscoveryComesOutAsItWentIn(t *testing.T) {
	want := Discovery{
		Version: Version, Epoch: testEpoch, SigningKeys: []SigningKey{SigningKeyOf(testSigner.Public()), SigningKeyOf(stranger.Public())},
		Live:     Live{"nats://127.0.0.1:4222", LiveSubjects, "verifier", "secret", 1000},
		Snapshot: SnapshotPath, Log: LogPath,
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, ring, err := ParseDiscovery(b)
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if !reflect.DeepEqual(ring, NewKeyring(testSigner.Public(), stranger.Public())) {
		t.Errorf("keys %v", ring)
	}
}

func TestDiscoveryMayGrow(t *testing.T) {
	for name, text := range map[string]string{
		"a member":        strings.Replace(goodDiscovery, `"version"`, `"later":{"x":[1]},"version"`, 1),
		"an inner member": strings.Replace(goodDiscovery, `"heartbeat_ms"`, `"tls":true,"heartbeat_ms"`, 1),
		"another key":     strings.Replace(goodDiscovery, `[{`, `[{"kid":"x","kty":"AKP","alg":"ML-DSA-44","pub":"AA"},{"kty":"OKP","crv":"Ed448","x":"?"},{`, 1),
		"another kid":     strings.Replace(goodDiscovery, `fe812c12f3ab4ce6`, `0000000000000000`, 1), // the key names itself
		"no live feed":    strings.Replace(goodDiscovery, `"live":{`, `"former":{`, 1),
	} {
		_, ring, err := ParseDiscovery([]byte(text))
		if err != nil || !reflect.DeepEqual(ring, testRing) {
			t.Errorf("%s: %v, %v", name, ring, err)
		}
	}
}

func TestBadDiscoveryIsRefused(t *testing.T) {
	const x = `6kpsY-KcUgq-9VB7Ey7F-ZVHdq6-vnuSQh7qaRRG0iw`
	replaced := func(old, with string) string {
		if !strings.Contains(goodDiscovery, old) {
			t.Fatalf("nothing to replace: %s", old)
		}
		return strings.Replace(goodDiscovery, old, with, 1)
	}
	for name, text := range map[string]string{
		"nothing":            "",
		"null":               "null",
		"an array":           "[]",
		"a page of HTML":     "<html>",
		"bytes behind it":    goodDiscovery + "{}",
		"cut":                goodDiscovery[:len(goodDiscovery)-1],
		"unknown version":    replaced(`"version":1`, `"version":2`),
		"no version":         replaced(`"version":1,`, ``),
		"version as text":    replaced(`"version":1`, `"version":"1"`),
		"member twice":       replaced(`"epoch":"E"`, `"epoch":"E","epoch":"E"`),
		"key member twice":   replaced(`"x":`, `"x":"","x":`),
		"another case":       replaced(`"epoch"`, `"Epoch"`),
		"no epoch":           replaced(`"epoch":"E"`, `"epoch":""`),
		"long epoch":         replaced(`"epoch":"E"`, `"epoch":"`+zeros+`0"`),
		"invalid UTF-8":      replaced(`"epoch":"E"`, "\"epoch\":\"\xff\""),
		"no keys":            replaced(`"signing_keys"`, `"keys"`),
		"null keys":          replaced(`"signing_keys":[{`, `"signing_keys":null,"x":[{`),
		"no key of ours":     replaced(`"crv":"Ed25519"`, `"crv":"Ed448"`),
		"key of 31 bytes":    replaced(x, x[:42]),
		"key of 33 bytes":    replaced(x, x+"w"),
		"key in base64":      replaced(x, strings.Replace(x, "-", "+", 1)),
		"key with padding":   replaced(x, x+"="),
		"key with a newline": replaced(x, x[:4]+`\n`+x[4:]),
		"key's unused bits":  replaced(x, x[:42]+"x"),
		"one bad key of two": replaced(`[{`, `[{"kid":"","kty":"OKP","crv":"Ed25519","x":""},{`),
		"no snapshot":        replaced(`"snapshot":"/v1/snapshot"`, `"snapshot":""`),
		"no log":             replaced(`"log":"/v1/log"`, `"log":null`),
		"another host":       replaced(`/v1/snapshot`, `https://evil.example/v1/snapshot`),
		"another host's log": replaced(`/v1/log`, `//evil.example/v1/log`),
		"another scheme":     replaced(`/v1/log`, `file:///v1/log`),
		"opaque":             replaced(`/v1/log`, `data:x`),
		"not a URL":          replaced(`/v1/log`, `/%zz`),
	} {
		d, ring, err := ParseDiscovery([]byte(text))
		if d != nil || ring != nil || !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v, %v", name, d, ring, err)
		}
	}
	if _, _, err := ParseDiscovery([]byte(goodDiscovery)); err != nil {
		t.Error(err) // or the table says nothing
	}
}

func TestSigningKeyFileIsReadInFull(t *testing.T) {
	good, err := testSigner.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSigner(good)
	if err != nil || !s.key.Equal(testSigner.key) || s.id != testSigner.id {
		t.Fatalf("%v", err)
	}
	if again, err := s.MarshalPEM(); err != nil || !bytes.Equal(again, good) {
		t.Errorf("written as %s", again)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(testSigner.Public())
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	key, _ := pem.Decode(good)
	for name, text := range map[string][]byte{
		"nothing":             nil,
		"rubbish":             []byte("rubbish"),
		"the bare seed":       testSigner.key.Seed(),
		"DER":                 key.Bytes,
		"cut":                 good[:len(good)-5],
		"twice":               append(bytes.Clone(good), good...),
		"with text behind it": append(bytes.Clone(good), "x"...),
		"another type":        block("EC PRIVATE KEY", key.Bytes),
		"a public key":        block("PUBLIC KEY", spki),
		"a public key posing": block(pemKeyHeader, spki),
		"an ECDSA key":        block(pemKeyHeader, der),
		"an empty block":      block(pemKeyHeader, nil),
		"a cut key":           block(pemKeyHeader, key.Bytes[:len(key.Bytes)-1]),
	} {
		if s, err := ParseSigner(text); err == nil || s.key != nil {
			t.Errorf("%s: read as a key", name)
		} else if bytes.Contains([]byte(err.Error()), testSigner.key.Seed()) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
}
