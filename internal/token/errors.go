package token

import "errors"

// What can be wrong with a token. Errors of this package wrap exactly one of
// them, or one and ErrKeysUnavailable: then that one is the best knowledge, and a
// later look at the issuer's keys may tell otherwise.
var (
	ErrTooLarge      = errors.New("token is larger than 8 KiB")
	ErrNotCompact    = errors.New("token is not a compact JWS")
	ErrMalformed     = errors.New("token breaks the strict format")
	ErrType          = errors.New("token type is not an access token's")
	ErrUnknownIssuer = errors.New("issuer is not configured")
	ErrAlgorithm     = errors.New("algorithm is not allowed")

	// ErrUnknownKey: the issuer's keys are loaded, and the token's is not among
	// them. Alone, it is definite: a fetch that started after the call succeeded
	// and did not bring the key. With ErrKeysUnavailable, that fetch failed or may
	// not start yet, or the document names the key in a way that can't be used.
	ErrUnknownKey = errors.New("signing key is unknown")
	// ErrKeysUnavailable: what the issuer's keys are can't be known now. Alone, they
	// were never loaded.
	ErrKeysUnavailable = errors.New("issuer's keys can't be had now")

	ErrSignature   = errors.New("signature is wrong")
	ErrExpired     = errors.New("token has expired")
	ErrNotYetValid = errors.New("token is not valid yet")
	ErrAudience    = errors.New("token is for another audience")
	ErrLifetime    = errors.New("token lives longer than its issuer may grant")
)

// reasons is in the order in which [Reason] asks: best knowledge before doubt.
var reasons = []struct {
	err   error
	label string
}{
	{ErrTooLarge, "too_large"},
	{ErrNotCompact, "not_compact"},
	{ErrMalformed, "malformed"},
	{ErrType, "wrong_type"},
	{ErrUnknownIssuer, "unknown_issuer"},
	{ErrAlgorithm, "bad_algorithm"},
	{ErrSignature, "bad_signature"},
	{ErrUnknownKey, "unknown_key"},
	{ErrKeysUnavailable, "keys_unavailable"},
	{ErrExpired, "expired"},
	{ErrNotYetValid, "not_yet_valid"},
	{ErrAudience, "wrong_audience"},
	{ErrLifetime, "too_long_lived"},
}

// Reason returns a short stable label of an error of this package, for metrics
// and logs; "" for nil and "other" for a foreign error.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.label
		}
	}
	return "other"
}
