// Package dialects holds what each revoke dialect answers, case by case, and runs it
// against the real authority.
//
// testdata has a directory for each dialect and in it a file for each case: what the
// case is about, a request as it goes over the wire, the exact answer, and so on for
// each further request.
//
//	-- authority --    which one is asked: "plain", or "opaque", which takes opaque tokens
//	-- request --      Host and Content-Length are added where they are not given
//	-- response --     all headers but Date and Content-Length, sorted, and the whole body
//	-- stored --       what the case puts into the log, once or more; without it, nothing
//	-- over --         tokens that are not active any more; all others still are
//
// {{name argument}} stands for what differs from run to run, see placeholders; the
// clients and tokens that they name are in tables, too. Each run has tokens of its own.
//
// A case of one dialect is a case of all, or not-applicable.txt says why not.
package dialects
