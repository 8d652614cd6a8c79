// Package abuse holds tests that misuse a real authority: forged tokens, floods,
// streams of a million lines, callers that send slowly or never finish, and clocks
// held to the answers of a failed login. They carry the tag fault:
//
//	go test -tags fault -v ./test/abuse [-lines 1000000] [-during 30s] [-logins 10000]
//
// They log the figures that they reached. What they assert are ratios and bounds, not
// speeds: the one who misuses shares the processors with the one who is misused.
package abuse
