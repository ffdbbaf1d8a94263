package people

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6238's default, which every app supports; HMAC does not need collision resistance
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/alcove-room/alcove/provisioning/document"
)

// RFC 6238 as authenticator apps do it.
const (
	totpStep   = 30 * time.Second
	totpDigits = 6
	totpSkew   = 1  // steps before and after now, 5.2
	totpSecret = 20 // bytes, RFC 4226, 4 R6
)

// hotp is RFC 4226, 5.3, in digits decimal digits.
func hotp(secret []byte, counter uint64, digits int) string {
	mac := hmac.New(sha1.New, secret)
	_ = binary.Write(mac, binary.BigEndian, counter) // a hash does not fail
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	n := binary.BigEndian.Uint32(sum[at:]) & 0x7fffffff
	mod := uint32(1)
	for range digits {
		mod *= 10
	}
	return fmt.Sprintf("%0*d", digits, n%mod)
}

// matchTOTP returns the time step whose code this is.
func matchTOTP(secret []byte, code string, t time.Time) (step int64, ok bool) {
	now := t.Unix() / int64(totpStep/time.Second)
	for s := now - totpSkew; s <= now+totpSkew; s++ {
		if s > 0 && subtle.ConstantTimeCompare([]byte(hotp(secret, uint64(s), totpDigits)), []byte(code)) == 1 {
			step, ok = s, true
		}
	}
	return step, ok
}

// newTOTP returns a secret and the URI that authenticator apps read (Key URI Format).
func newTOTP(subject string) (secret []byte, uri string) {
	secret = make([]byte, totpSecret)
	_, _ = rand.Read(secret) // crypto/rand.Read never fails: it ends the program
	q := url.Values{"secret": {base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)}, "issuer": {"Alcove"}}
	return secret, "otpauth://totp/Alcove:" + url.PathEscape(subject) + "?" + q.Encode()
}

// totp signs in by a code generator: {"subject","code"}. One factor, therefore level 1.
type totp struct{ s *Service }

func (m totp) Authenticate(ctx context.Context, a Attempt) (Identity, error) {
	var req struct {
		Subject string `json:"subject"`
		Code    string `json:"code"`
	}
	if err := document.Decode(a.Body, &req); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	pass, err := m.s.guarded(ctx, req.Subject, a)
	if err != nil {
		return Identity{}, err
	}
	secret, err := m.s.store.TOTP(ctx, req.Subject)
	if errors.Is(err, ErrNotFound) {
		secret, err = make([]byte, totpSecret), nil // as long as for somebody who exists
		_, _ = rand.Read(secret)
	}
	if err != nil {
		return Identity{}, err
	}
	step, ok := matchTOTP(secret, req.Code, a.Now)
	if !ok {
		return Identity{}, ErrNoMatch
	}
	if err := m.s.store.UseTOTP(ctx, req.Subject, step); err != nil {
		return Identity{}, err
	}
	pass()
	return m.s.identity(ctx, req.Subject, ByTOTP, a.Now)
}
