package verifier

import "testing"

// A parameter that some server takes for a token must not stand beside the one that is
// decided on.
func TestIsTokenParameter(t *testing.T) {
	for name, want := range map[string]bool{
		"access_token": true, "Access_Token": true, "access.token": true, "access+token": true, "%61ccess%5ftoken": true, "access_token[]": true,
		"access_token[%zz]": true, "+access_token": true, "%20+ access_token": true, "access_token%00x": true, "access%5Btoken": true,
		"": false, "access": false, "token": false, "xaccess_token": false, "access_token2": false, "access_token+": false, "%00access_token": false,
		"access%2525token": false, "access%zztoken": false, "access%+5token": false,
	} {
		if got := IsTokenParameter(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}
