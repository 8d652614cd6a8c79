package authority

// edgetag is EdgeTag's "Invalidating token". It takes the latest valid token of a
// user and "will immediately invalidate users' access": whatever that user was issued
// through that client is over.
var edgetag = dialect{
	name:   "edgetag",
	revoke: []string{"/v1/oauth-app/client/revoke"},
	token:  "token", hints: []string{"token_type_hint"},
	user:    true,
	headers: []string{"Authorization"}, parameters: credentialParameters,
	caller: oauthCaller,
	answer: answerJSON(struct{}{}),
}
