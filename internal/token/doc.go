// Package token is the one way to read a JWT: the authority and the verifiers use
// it, because a token read in two ways is a way around its revocation.
//
// A [Reader] turns a compact JWS into a [Verified]: shape, strict header, keys of
// the one configured issuer, signature, strict claims. Time, audience and lifetime
// are asked afterwards and again at every use ([Verified.ValidAt]).
//
// Invariants:
//
//   - One spelling: header and payload are accepted in exactly one byte string
//     each. Base64url is canonical, JSON has no duplicate names, no invalid UTF-8
//     and nothing after its object, names are case-sensitive. What is left to vary
//     is the signature, which identifies nothing ([denylist.FingerprintOf]).
//   - Pinned: the issuer's configuration says which algorithms there are, and the
//     key's type, curve, use, key_ops and alg must agree. There is no "none". An
//     issuer has public keys or one secret, never both, so neither is taken for the
//     other.
//   - One store per issuer: a key vouches only for the issuer whose document it
//     came from. Nothing is fetched or trusted on behalf of a token (jku, jwk,
//     x5u, x5c are not looked at).
//   - Last good keys: no failure of a key document takes keys away. A good
//     document without a key retires it ([Verified.KeyRetired]): a verifier takes it
//     no more, an authority still does ([ForRevoking]).
//   - A known key is found without waiting. Unknown ones share one fetch, and
//     fetches on their account start at least 5 seconds apart.
//   - "No such key" and "can't know now" are different answers: see
//     [ErrUnknownKey] and [ErrKeysUnavailable].
//
// Errors carry issuer and key names cut short, and never a token or a claim.
package token
