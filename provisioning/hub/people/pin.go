package people

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/alcove-room/alcove/provisioning/document"
)

// pinTries is how often a PIN may be wrong in a row; then the desk sets a new one.
const pinTries = 5

// RFC 9106, 4, with the memory of OWASP's Password Storage Cheat Sheet. A million PINs are few for whoever has the
// database: this buys hours and no more, and a PIN is of no use without a living invitation.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	argonAtOnce  = 2 // bounds memory that strangers can take
)

func (s *Service) hashPIN(ctx context.Context, pin string, salt [16]byte) (h [32]byte, err error) {
	select {
	case s.argon <- struct{}{}:
	case <-ctx.Done():
		return h, ctx.Err()
	}
	defer func() { <-s.argon }()
	copy(h[:], argon2.IDKey([]byte(pin), salt[:], argonTime, argonMemory, argonThreads, uint32(len(h))))
	return h, nil
}

func checkPIN(pin string) error {
	if len(pin) != 6 || strings.Trim(pin, "0123456789") != "" {
		return fmt.Errorf("%w: a PIN has 6 digits", ErrRequest)
	}
	for _, step := range []int{-1, 0, 1} {
		run := true
		for i := 1; i < len(pin); i++ {
			run = run && int(pin[i])-int(pin[i-1]) == step
		}
		if run {
			return fmt.Errorf("%w: this PIN is too easy to guess", ErrRequest)
		}
	}
	return nil
}

func newPIN() (string, error) {
	for {
		n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
		if err != nil {
			return "", fmt.Errorf("make PIN: %w", err)
		}
		if pin := fmt.Sprintf("%06d", n); checkPIN(pin) == nil {
			return pin, nil
		}
	}
}

// SetPIN sets a patient's PIN, or a random one for "", and returns it. It gives all tries back.
func (s *Service) SetPIN(ctx context.Context, subject, pin string) (string, error) {
	p, err := s.store.Person(ctx, subject)
	if err != nil {
		return "", err
	}
	if !slices.Contains(p.Roles, Patient) {
		return "", fmt.Errorf("%w: only patients have a PIN", ErrRequest)
	}
	if pin == "" {
		if pin, err = newPIN(); err != nil {
			return "", err
		}
	}
	if err := checkPIN(pin); err != nil {
		return "", err
	}
	var kept PIN
	_, _ = rand.Read(kept.Salt[:]) // crypto/rand.Read never fails: it ends the program
	if kept.Hash, err = s.hashPIN(ctx, pin, kept.Salt); err != nil {
		return "", err
	}
	return pin, s.store.SetPIN(ctx, subject, kept)
}

// pinSignIn signs a patient in by an invitation of theirs and their PIN: {"invitation","pin"}. It does not use the
// invitation up.
type pinSignIn struct{ s *Service }

func (m pinSignIn) Authenticate(ctx context.Context, a Attempt) (Identity, error) {
	var req struct {
		Invitation string `json:"invitation"`
		PIN        string `json:"pin"`
	}
	if err := document.Decode(a.Body, &req); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	v, err := m.s.store.Visit(ctx, HashOf(req.Invitation))
	if errors.Is(err, ErrNotFound) {
		return Identity{}, ErrNoMatch
	}
	if err != nil {
		return Identity{}, err
	}
	if !m.s.rooms.allow(v.Room, a.Now) {
		return Identity{}, &SlowDownError{roomEvery}
	}
	kept, err := m.s.store.TryPIN(ctx, v.Subject, pinTries)
	if errors.Is(err, ErrNotFound) {
		return Identity{}, ErrNoMatch
	}
	if err != nil {
		return Identity{}, err
	}
	got, err := m.s.hashPIN(ctx, req.PIN, kept.Salt)
	if err != nil {
		return Identity{}, err
	}
	if subtle.ConstantTimeCompare(got[:], kept.Hash[:]) != 1 {
		return Identity{}, ErrNoMatch
	}
	if err := m.s.store.ClearPIN(ctx, v.Subject); err != nil {
		return Identity{}, err
	}
	return m.s.identity(ctx, v.Subject, ByPIN, a.Now)
}
