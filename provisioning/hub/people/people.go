// Package people says who may do what at the hub, and how somebody shows who they are: one table of roles and
// operations, deny by default, one gate in front of every handler, and sign-in.
//
// Its parties are people's browsers, the front desk and IT on the admin socket, and a Store. It promises:
//   - Nobody signs in by a password, nor by a code sent by telephone. Staff have passkeys with user verification
//     (W3C WebAuthn Level 3), or the clinic's identity provider, which must say that it asked for more than one factor
//     (OpenID Connect Core 1.0, code flow with PKCE, RFC 7636); a code generator (RFC 6238) is the fallback and counts as level 1. Patients have an
//     invitation and a PIN from intake. A recovery code only buys the registration of a new passkey.
//   - A sign-in ends after 30 minutes without use and after 12 hours (NIST SP 800-63B, 2.2.3), when the person signs
//     out, and when IT removes the person. Its token, and every other secret that is handed out but the code
//     generator's, is kept as a hash.
//   - Whoever fails slows down themselves alone. No stranger can lock somebody out of a browser that they have signed
//     in with before, and nothing slows a passkey down but its own address: there is nothing to guess.
//   - No answer tells whether a person exists, nor which half of a proof was wrong.
//
// The hub's word decides about the hub's services alone (a place in the lobby, a LiveKit token); it opens no media,
// because keys are agreed between the endpoints. What a room believes of a person it verifies itself against the
// clinic's signed people document (daemon/e2ee/agreement): a sign-in here is worth level 1 there.
package people

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest display name in bytes of UTF-8: the key agreement's document has room for no more.
const MaxName = 64

// ErrName is returned for a name that cannot be shown as it is.
var ErrName = errors.New("name cannot be used")

// CheckName refuses names that are empty, too long, or hold characters that a screen may show as something else:
// controls, and the marks that reverse the direction of text.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > MaxName:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrName, MaxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: it is not UTF-8", ErrName)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) { // IsPrint is false for controls, bidirectional marks and all spaces but U+0020
			return fmt.Errorf("%w: it holds the character %U", ErrName, r)
		}
	}
	return nil
}
