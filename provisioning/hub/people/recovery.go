package people

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"
	"time"
)

const (
	recoveryCodes = 10
	recoveryBytes = 10 // 80 bits: nothing to guess, so a plain hash keeps them
)

// newRecovery returns codes as printed, four groups of four letters each.
func newRecovery() (codes []string, hashes []Hash) {
	for range recoveryCodes {
		raw := make([]byte, recoveryBytes)
		_, _ = rand.Read(raw) // crypto/rand.Read never fails: it ends the program
		c := base32.StdEncoding.EncodeToString(raw)
		codes = append(codes, fmt.Sprintf("%s-%s-%s-%s", c[:4], c[4:8], c[8:12], c[12:]))
		hashes = append(hashes, HashOf(c))
	}
	return codes, hashes
}

// Recover trades a recovery code for a registration, once. It signs nobody in: what it buys is a new passkey.
func (s *Service) Recover(ctx context.Context, subject, code string, a Attempt) (registration string, expires time.Time, err error) {
	pass, err := s.guarded(ctx, subject, a)
	if err != nil {
		return "", expires, err
	}
	registration, expires = newToken(), a.Now.Add(recoveryLasts)
	plain := strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
	if err := s.store.UseRecovery(ctx, subject, HashOf(plain), HashOf(registration), expires); err != nil {
		return "", expires, err
	}
	pass()
	return registration, expires, nil
}
