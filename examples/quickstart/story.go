package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// doors are the three places that accept or refuse a token.
var doors = []struct{ name, url string }{
	{"sidecar 1 ", "http://" + sidecarAddrs[0][0] + "/"},
	{"sidecar 2 ", "http://" + sidecarAddrs[1][0] + "/"},
	{"middleware", "http://" + middlewareAddr + "/"},
}

const refusedWithin = 5 * time.Second

var client = &http.Client{Timeout: 5 * time.Second}

// story tells what Revcast is for, and errs where it turns out otherwise.
func story(ctx context.Context, out io.Writer) error {
	defer client.CloseIdleConnections()
	fmt.Fprintf(out, "1. Get a token from the issuer (ES256, valid for an hour).\n")
	token, err := getToken(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "   %s...\n\n2. Call the API with it, through each door.\n", token[:40])
	for _, d := range doors {
		status, body, err := call(ctx, d.url, token)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "   %s  %d  %s\n", d.name, status, body)
		if status != http.StatusOK {
			return fmt.Errorf("%s refuses a good token", strings.TrimSpace(d.name))
		}
	}

	fmt.Fprintf(out, "\n3. Revoke it: POST http://%s/oauth2/revoke\n", authorityAddr)
	answered, err := revoke(ctx, token)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "   200, after the revocation was on disk.\n\n4. Call again. The token's signature is as good as ever, and no door asks anyone.\n")
	last, err := refused(ctx, out, token, answered)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nThe last refusal came %s after the revoke call's answer.\n", last.Sub(answered).Round(10*time.Microsecond))
	return nil
}

// refused asks all doors at once until each refuses, and returns when the last did.
func refused(ctx context.Context, out io.Writer, token string, answered time.Time) (last time.Time, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	lines := make([]string, len(doors))
	for i, d := range doors {
		wg.Go(func() {
			for {
				status, body, callErr := call(ctx, d.url, token)
				now := time.Now()
				// Until the revocation has arrived; a request that is open in that moment ends
				// without an answer.
				if (callErr != nil || status == http.StatusOK) && now.Sub(answered) < refusedWithin && ctx.Err() == nil {
					continue
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case callErr != nil:
					err = callErr
				case status != http.StatusUnauthorized:
					err = fmt.Errorf("%s answers %d to a revoked token", strings.TrimSpace(d.name), status)
				}
				lines[i] = fmt.Sprintf("   %s  %d  %s\n", d.name, status, body)
				if now.After(last) {
					last = now
				}
				return
			}
		})
	}
	wg.Wait()
	fmt.Fprint(out, strings.Join(lines, ""))
	return last, err
}

func getToken(ctx context.Context) (string, error) {
	_, body, err := post(ctx, "http://"+issuerAddr+"/token", url.Values{"grant_type": {"client_credentials"}})
	if err != nil {
		return "", err
	}
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Token) < 40 {
		return "", fmt.Errorf("the issuer gave no token: %s", body)
	}
	return answer.Token, nil
}

// revoke returns when the authority's answer was there.
func revoke(ctx context.Context, token string) (time.Time, error) {
	status, body, err := post(ctx, "http://"+authorityAddr+"/oauth2/revoke", url.Values{"token": {token}})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the authority answered %d: %s", status, body)
	}
	return time.Now(), err
}

func post(ctx context.Context, to string, form url.Values) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(clientID, secret)
	return do(request)
}

func call(ctx context.Context, door, token string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, door, nil)
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	status, b, err := do(request)
	return status, strings.TrimSpace(string(b)), err
}

func do(request *http.Request) (int, []byte, error) {
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, body, err
}

const paste = `
All of it stays up until Ctrl-C. Try it yourself, in another terminal:

  # a token for alice
  TOKEN=$(curl -s -u demo:demo-secret -d grant_type=client_credentials -d sub=alice http://127.0.0.1:8790/token | sed 's/.*"access_token":"\([^"]*\)".*/\1/')

  # call the API: through the sidecars, and with the middleware
  curl -i -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8710/
  curl -i -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8720/
  curl -i -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8730/

  # revoke this token (RFC 7009)
  curl -i -u demo:demo-secret -d token="$TOKEN" http://127.0.0.1:8700/oauth2/revoke

  # revoke all that alice was issued until now; tokens of the next second on are good again
  curl -i -u demo:demo-secret -H 'Content-Type: application/json' -d '{"issuer":"http://127.0.0.1:8790","selector":{"sub":"alice"},"reason":"lost laptop"}' http://127.0.0.1:8700/v1/revocations

  # what a sidecar knows
  curl -s http://127.0.0.1:8711/readyz http://127.0.0.1:8711/metrics | grep -v '^#' | grep revcast
`
