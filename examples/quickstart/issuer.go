package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// issuer is a token issuer with one ES256 key: client_credentials for one client,
// and for any user that the request names.
type issuer struct {
	url              string
	clientID, secret string
	key              *ecdsa.PrivateKey
}

func newIssuer(url, clientID, secret string) (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the issuer's key: %w", err)
	}
	return &issuer{url, clientID, secret, key}, nil
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.Method + " " + r.URL.Path {
	case "GET /jwks":
		point, err := i.key.PublicKey.Bytes() // 4, x, y
		if err != nil {
			http.Error(w, "{}", http.StatusInternalServerError)
			return
		}
		b64 := base64.RawURLEncoding.EncodeToString
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{
			"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256", "x": b64(point[1:33]), "y": b64(point[33:]),
		}}})
	case "POST /token":
		id, secret, _ := r.BasicAuth()
		if id != i.clientID || secret != i.secret {
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client"})
			return
		}
		token, err := i.token(r.PostFormValue("sub"))
		if err != nil {
			http.Error(w, "{}", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600})
	default:
		http.Error(w, `{"error":"not_found"}`, http.StatusNotFound)
	}
}

func (i *issuer) token(subject string) (string, error) {
	if subject == "" {
		subject = i.clientID
	}
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": i.url, "sub": subject, "client_id": i.clientID, "aud": "api", "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	t.Header["kid"], t.Header["typ"] = "k1", "at+jwt"
	return t.SignedString(i.key)
}
