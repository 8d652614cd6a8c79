// Package event turns what identity providers say into what is over: logout tokens
// (OpenID Connect Back-Channel Logout 1.0), Security Event Tokens (RFC 8417 as OpenID
// Shared Signals Framework 1.0 profiles them) and Global Token Revocation requests.
//
// All of it is pure but [Poller], which fetches Security Event Tokens (RFC 8936). A
// JWT comes as a [token.Verified]: its signature and format are right, and it is of
// the kind that its typ says.
//
// Invariants:
//
//   - All or nothing: what can't be carried out in full is refused in full, and never
//     answered as done. An event type that is not known here says nothing about
//     tokens, and is accepted.
//   - Never less than was said: what tokens can't show (a device, a tenant) narrows
//     nothing, so more may be revoked than was meant. The remedy is a new token.
//   - A transmitter speaks about the tokens of the issuers it was given, and of no
//     others.
//   - A time in the future is no cut-off: it would revoke tokens still to be issued.
//   - Repetition is harmless for security events. Logout tokens and assertions are
//     good for once ([token.Replay]).
//   - A key that its issuer has withdrawn says nothing here any more.
//   - Errors are one line, and hold nothing of what was sent.
//
// # Subjects
//
// What a subject (RFC 9493, with the formats that Shared Signals adds) means.
// "Default" is the one issuer whose subjects need no iss.
//
//	subject                        account, credential,       session-revoked
//	                               sessions-revoked,
//	                               tokens-revoked
//	iss_sub                        {sub} of iss               the same
//	opaque                         {sub} of the default       {sid} and {sub} of the default:
//	                                                          it may name either
//	jwt_id                         {jti} of iss               the same
//	aliases                        every identifier that      the same
//	                               can be mapped; refused
//	                               where none can
//	email, phone_number, account,  refused: no token shows    the same
//	uri, did and all others        whose it is
//	complex with
//	  user                         {sub}                      {sub}
//	  user, application            {sub, client claim} for    the same
//	                               each that the issuer's
//	                               tokens may have
//	  session                      {sid}, refused where       the same
//	                               tokens don't carry it;
//	                               or {jti}
//	  user, session                {sid} and {sub}:           {sid} alone where tokens carry
//	                               an account is more         it, else {sid} and {sub};
//	                               than a session             {jti} and {sub}
//	  neither user nor session     refused                    refused
//
// In a complex subject, user is an iss_sub, an opaque or aliases of these; session is
// an opaque (a sid, of each issuer that the user has) or a jwt_id; and application is
// an opaque. A jwt_id names one token of a session, perhaps its ID
// token, so it never stands alone where there is a user. A session that can't be
// mapped is passed over where there is a user; a user who can't is passed over only
// where a session stands alone. An application of another format narrows nothing, and
// neither do device, tenant, org_unit, group and members that are not known here. An
// issuer whose tokens carry none of its client claims is not to be told of
// applications: nothing would match.
//
// # Times
//
// An event was when its event_timestamp says, else the token's toe, but at the latest
// at its iat. That is the cut-off, which every selector but {jti} and {sid} has: what
// was issued after a session ended or a credential changed was issued to whom it is
// due. It is iat for account-disabled, account-purged and credential-compromise: the
// tokens that somebody got with a compromised credential between the event and the
// word of it are the ones that matter. No selector outlives what was issued by then,
// however late or often a thing is said: [Over] has that time for {jti} and {sid} too.
package event
