package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

const maxDocument = 1 << 20 // bytes, after decompression

// NewHTTPClient returns a client for one host at a time, that keeps few connections.
func NewHTTPClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 1
	t.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{Transport: t}
}

// Restrict returns a client on the same transport that follows redirects only
// within a host, never from https to http, and only those that repeat the request
// as it is.
func Restrict(c *http.Client) *http.Client {
	return &http.Client{Transport: c.Transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		first := via[0].URL
		if r.URL.Host != first.Host || r.URL.Scheme != first.Scheme {
			return errors.New("a redirect to another host is not followed")
		}
		if r.Method != via[0].Method {
			return errors.New("a redirect that drops the request is not followed")
		}
		if len(via) > 3 {
			return errors.New("too many redirects")
		}
		return nil
	}}
}

func fetchDocument(ctx context.Context, client *http.Client, uri string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the request for keys: %w", err)
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	r.Header.Set("User-Agent", "revcast")
	response, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("couldn't fetch keys: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("couldn't fetch keys: answer is %s", response.Status)
	}
	b, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("couldn't read the key document: %w", err)
	}
	if len(b) > maxDocument {
		return nil, errors.New("key document is larger than 1 MiB")
	}
	return b, nil
}
