package authority

// rfc7009 is OAuth 2.0 Token Revocation, and RFC 7662 beside it.
var rfc7009 = dialect{
	name:   "rfc7009",
	revoke: []string{"/oauth2/revoke"}, introspect: []string{"/oauth2/introspect"},
	token: "token", hints: []string{"token_type_hint"},
	headers: []string{"Authorization"}, parameters: credentialParameters,
	caller: oauthCaller,
	answer: answerJSON(struct{}{}),
}
