//go:build cost

package cost

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/revcast/revcast/test/harness"
)

// measured is a process that is sent requests.
type measured struct {
	name, address, path string
	pid                 int

	cpu, rate []float64 // of each round: seconds per 10,000 requests, requests a second
}

// limits are what is promised of ratios. Every other figure is for orientation.
var limits = []struct {
	of, to string
	at     float64
}{
	{"proxy", "bare proxy", 1.1},
	{"proxy", "haproxy", 0.9},
	{"check", "bare handler", 1.2},
}

const middlewareLimit = 2 * time.Microsecond // more than the bare handler, each request

func TestCost(t *testing.T) {
	w := newWorld(t)
	all := w.subjects()
	for round := range *rounds {
		for i := range all {
			all[(i+round)%len(all)].measure(w)
		}
	}
	w.report(all)
}

// subjects starts all that is measured.
func (w *world) subjects() (all []*measured) {
	w.Helper()
	add := func(name, path string, start func() (string, int)) {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), name) {
			return
		}
		address, pid := start()
		all = append(all, &measured{name: name, address: address, path: path, pid: pid})
	}
	add("proxy", "/", func() (string, int) { return host(w.sidecar.URL), w.sidecar.PID() })
	add("bare proxy", "/", func() (string, int) { return w.start("proxy", "-upstream", "http://"+w.upstream) })
	add("haproxy", "/", w.haproxy)
	if _, err := exec.LookPath("nginx"); err == nil {
		add("nginx, no authentication", "/", w.nginx)
	}
	if w.hasCheck() {
		add("check", "/check", func() (string, int) { return host(w.sidecar.OpsURL), w.sidecar.PID() })
	}
	add("middleware", "/check", func() (string, int) {
		return w.start("middleware", "-authority", w.authority.URL, "-issuer", w.issuer.Issuer)
	})
	add("bare handler", "/check", func() (string, int) { return w.start("api") })
	return all
}

// measure sends each token once, so that every cache is warm, and then measures.
func (m *measured) measure(w *world) {
	w.Helper()
	w.send("load", m.address, m.path, "-requests", strconv.Itoa(distinct))
	before := harness.UsageOf(w, m.pid)
	t := w.send("load", m.address, m.path, "-requests", strconv.Itoa(*requests))
	after := harness.UsageOf(w, m.pid)
	m.cpu = append(m.cpu, (after.CPU-before.CPU).Seconds()/float64(*requests)*10_000)
	m.rate = append(m.rate, float64(*requests)/t.Took.Seconds())
}

func (w *world) report(all []*measured) {
	w.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "CPU seconds per 10,000 requests, median of %d rounds of %d (least to most); %d tokens, %d revocations\n",
		*rounds, *requests, distinct, *revocations)
	by := map[string]*measured{}
	for _, m := range all {
		by[m.name] = m
		cpu, u := spreadOf(m.cpu), harness.UsageOf(w, m.pid)
		fmt.Fprintf(&b, "%-26s %.3f (%.3f to %.3f)  %6.0f a second  %4.0f MB\n", m.name, cpu.median, cpu.least, cpu.most,
			spreadOf(m.rate).median, float64(u.RSS)/1e6)
	}
	for _, l := range limits {
		of, to := by[l.of], by[l.to]
		if of == nil || to == nil {
			continue
		}
		ratios := make([]float64, *rounds)
		for i := range ratios {
			ratios[i] = of.cpu[i] / to.cpu[i]
		}
		r := spreadOf(ratios)
		fmt.Fprintf(&b, "ratio %s / %s: %.2f (%.2f to %.2f), at most %.2f: %s\n", l.of, l.to, r.median, r.least, r.most, l.at, verdict(r.median <= l.at))
	}
	if of, to := by["middleware"], by["bare handler"]; of != nil && to != nil {
		more := make([]float64, *rounds)
		for i := range more {
			more[i] = (of.cpu[i] - to.cpu[i]) * 100 // microseconds a request
		}
		r := spreadOf(more)
		fmt.Fprintf(&b, "middleware - bare handler: %.2f µs a request (%.2f to %.2f), at most %.2f: %s\n", r.median, r.least, r.most,
			float64(middlewareLimit)/1000, verdict(r.median <= float64(middlewareLimit)/1000))
	}
	w.Log("\n" + b.String())
}

func verdict(kept bool) string {
	switch {
	case *rounds < 3:
		return "too few rounds to say"
	case kept:
		return "kept"
	}
	return "missed"
}

// haproxy does what HAProxy can of what the sidecar does: algorithm, issuer, expiry,
// signature, and a list of revoked jti in a file.
func (w *world) haproxy() (address string, pid int) {
	w.Helper()
	der, err := x509.MarshalPKIXPublicKey(w.key.Private.Public())
	if err != nil {
		w.Fatal(err)
	}
	key := w.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	var list bytes.Buffer
	for i := range *revocations {
		list.WriteString(revoked(i) + "\n")
	}
	denied := w.write("denylist", list.Bytes())
	address = harness.FreeAddress(w)
	config := w.write("haproxy.cfg", fmt.Appendf(nil, `global
  nbthread 2
defaults
  mode http
  timeout connect 5s
  timeout client 2m
  timeout server 1m
  timeout http-request 10s
  http-reuse always
frontend all
  bind %s
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.jti) var(txn.bearer),jwt_payload_query('$.jti')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless { var(txn.alg) -m str RS256 }
  http-request deny deny_status 401 unless { var(txn.iss) -m str %s }
  http-request deny deny_status 401 if { var(txn.exp),sub(txn.now) -m int lt 0 }
  http-request deny deny_status 401 unless { var(txn.bearer),jwt_verify(txn.alg,"%s") 1 }
  http-request deny deny_status 401 if { var(txn.jti) -m str -f %s }
  default_backend api
backend api
  server api %s
`, address, w.issuer.Issuer, key, denied, w.upstream))
	return address, w.run(address, "haproxy", "-db", "-f", config)
}

// nginx is one worker, as its processor time is then that of one process.
func (w *world) nginx() (address string, pid int) {
	w.Helper()
	address = harness.FreeAddress(w)
	config := w.write("nginx.conf", fmt.Appendf(nil, `daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  upstream api { server %[2]s; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen %[3]s;
    location / {
      proxy_pass http://api;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
    }
  }
}
`, w.dir, w.upstream, address))
	return address, w.run(address, "nginx", "-c", config)
}
