package token

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

// secretAlgorithms are kept apart from the others, so that no public key is ever the
// secret of one: an issuer has keys or a secret, and only what goes with it.
var secretAlgorithms = map[string]*jwt.SigningMethodHMAC{
	"HS256": jwt.SigningMethodHS256,
	"HS384": jwt.SigningMethodHS384,
	"HS512": jwt.SigningMethodHS512,
}

// SecretAlgorithms lists the algorithms of an issuer with a [Issuer.Secret].
func SecretAlgorithms() []string { return []string{"HS256", "HS384", "HS512"} }

// CheckSecret says what is wrong with a secret for these of the [SecretAlgorithms].
// Its errors read on from the secret's name, and never hold any of it.
func CheckSecret(secret []byte, algs []string) error {
	for _, name := range algs {
		method := secretAlgorithms[name]
		if method == nil {
			return fmt.Errorf("is for %s alone, not for %s", strings.Join(SecretAlgorithms(), ", "), name)
		}
		if least := method.Hash.Size(); len(secret) < least { // RFC 7518 section 3.2
			return fmt.Errorf("has %d bytes, and %s needs %d or more", len(secret), name, least)
		}
	}
	if looksPublic(secret) {
		return errors.New("is a key in PEM, DER or JWK form: a public key is no secret")
	}
	return nil
}

// looksPublic reports whether a secret is a key, or a certificate, that somebody took
// for one: whoever has the public key could sign with it.
func looksPublic(secret []byte) bool {
	text := bytes.TrimSpace(secret)
	if block, _ := pem.Decode(text); block != nil || bytes.Contains(text, []byte("-----BEGIN ")) || bytes.HasPrefix(text, []byte("ssh-")) {
		return true
	}
	if jsontext.Value(text).Kind() == jsontext.KindBeginObject {
		var members map[string]jsontext.Value
		return json.Unmarshal(text, &members, jsontext.AllowDuplicateNames(true)) == nil && (members["kty"] != nil || members["keys"] != nil)
	}
	// As admin consoles show keys: the inside of a PEM file.
	der, err := base64.StdEncoding.DecodeString(string(slices.DeleteFunc(slices.Clone(text), func(b byte) bool { return b == ' ' || b == '\n' || b == '\r' })))
	return isDER(secret) || err == nil && isDER(der)
}

func isDER(b []byte) bool {
	_, pkix := x509.ParsePKIXPublicKey(b)
	_, pkcs1 := x509.ParsePKCS1PublicKey(b)
	_, certificate := x509.ParseCertificate(b)
	_, private := x509.ParsePKCS8PrivateKey(b)
	return pkix == nil || pkcs1 == nil || certificate == nil || private == nil
}

// verifySecret checks a signature made with the issuer's secret. There is one, so no
// kid chooses among several, and a wrong signature is definite.
func (i *issuer) verifySecret(h header, signed string, signature []byte) (*key, error) {
	if secretAlgorithms[h.alg].Verify(signed, signature, i.Secret) != nil {
		return nil, fmt.Errorf("%w: the secret of %.128q", ErrSignature, i.Issuer.Issuer)
	}
	return i.keys.current.Load().keys[0], nil
}
