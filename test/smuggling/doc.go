// Package smuggling sends the real sidecar requests as attackers write them, and looks
// at every byte that reaches the API behind it.
//
// testdata has a file for each case: why it is one, then
//
//	-- to --         the door: proxy or check, of the sidecar with routes; plain proxy or plain
//	                 check, of one without; preflight proxy or preflight check, of one with
//	                 routes and cors_preflight. Default proxy.
//	-- request --    what goes over the wire. Line ends of the file mean nothing: \r \n \t \\ and
//	                 \xHH do. {{token name}} is a token of the table tokens, {{length}} the length
//	                 of the body, {{repeat n text}} that text n times.
//	-- h2 --         in the place of request: a header list as it goes into one HEADERS frame, a
//	                 line each; name and value are cut at the first colon and space.
//	-- data --       of h2: the one DATA frame
//	-- trailers --   of h2: another header list
//	-- answers --    the status of each answer, in order: "reset" where h2 gives none, a slash
//	                 between those of which it may be any. Below them headers of the first
//	                 answer: "Name: value", or "Name:" for none.
//	-- upstream --   what the API gets: method and target of each request, and below it headers
//	                 as above. " (cut)" behind a target: the request breaks off, maybe before it
//	                 arrives. Without the section nothing reaches the API.
//
// Beyond what a case says, each must keep the invariants of invariants_test.go: whatever a
// server might read the path as, no rule is passed; no header or trailer that might be
// taken for an identity header holds anything but the truth; and there are as many
// requests behind the proxy as were let through.
package smuggling
