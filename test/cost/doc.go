// Package cost measures what a request costs the processor: behind the sidecar's
// doors and behind the middleware, beside what people would use instead, in one run
// and against real processes. Run it with
//
//	make cost
//
// which needs HAProxy; nginx is measured too where it is installed. It prints what it
// measured and asserts no speed. With -args -rounds 1 -requests 2000 -revocations 10000
// -phase 3s it only shows that everything still works.
package cost
