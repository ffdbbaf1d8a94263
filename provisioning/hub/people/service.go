package people

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// How long things last.
const (
	idleLasts     = 30 * time.Minute
	signInLasts   = 12 * time.Hour
	registerLasts = 24 * time.Hour // a registration that IT hands out
	recoveryLasts = 15 * time.Minute
	touchEvery    = time.Minute // a sign-in's last use is stored no finer
)

// Limit bounds how often one address may do something.
type Limit interface {
	Allow(remote string, t time.Time) bool
}

// Options are what a Service needs; every field but ConsoleOrigin and OIDC is needed.
type Options struct {
	Store Store
	Log   *slog.Logger
	// CallOrigin and ConsoleOrigin are the sites' origins. The host of each is its WebAuthn relying party id, exactly
	// and never a parent domain. Without a console there is one site.
	CallOrigin    string
	ConsoleOrigin string
	// OIDC is the clinic's identity provider, or none.
	OIDC OIDC
	// Addresses bounds attempts for each address; Address is the form of an address that failures count for.
	Addresses Limit
	Address   func(remote string) string
}

// Service signs people in. It is safe for concurrent use.
type Service struct {
	store     Store
	log       *slog.Logger
	addresses Limit
	address   func(string) string
	passkeys  *passkeys
	oidc      *oidcSignIn // nil without a provider
	methods   map[Method]Authenticator
	guard     *guard
	rooms     *budget
	browsers  *budget
	argon     chan struct{}

	signIns       *prometheus.CounterVec
	registrations *prometheus.CounterVec
}

// New makes a Service.
func New(o Options) (*Service, error) {
	s := &Service{
		store: o.Store, log: o.Log, addresses: o.Addresses, address: o.Address, guard: newGuard(),
		rooms: newBudget(roomEvery, roomBurst), browsers: newBudget(browserEvery, browserBurst), argon: make(chan struct{}, argonAtOnce),
	}
	origins := map[Site]string{Call: o.CallOrigin, Console: o.ConsoleOrigin}
	var err error
	if s.passkeys, err = newPasskeys(s, origins); err != nil {
		return nil, err
	}
	s.methods = map[Method]Authenticator{ByPasskey: s.passkeys, ByTOTP: totp{s}, ByPIN: pinSignIn{s}}
	if o.OIDC.Issuer != "" {
		s.oidc = newOIDC(s, o.OIDC, origins)
		s.methods[ByOIDC] = s.oidc
	}
	s.newMetrics()
	return s, nil
}

func (s *Service) newMetrics() {
	s.signIns = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "alcove_hub_sign_ins_total", Help: "Attempts to sign in, by method and outcome."}, []string{"method", "outcome"})
	s.registrations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "alcove_hub_registrations_total", Help: "Attempts to register a passkey, by outcome."}, []string{"outcome"})
	for _, outcome := range outcomes() {
		for _, m := range append(Methods(), "recovery") {
			s.signIns.WithLabelValues(string(m), outcome)
		}
		s.registrations.WithLabelValues(outcome)
	}
}

// Metrics returns the collectors to register.
func (s *Service) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.signIns, s.registrations}
}

func outcomes() []string {
	return []string{"done", "no_match", "slow_down", "locked", "malformed", "unavailable", "failed"}
}

// outcomeOf is an error's label in metrics and its code in answers.
func outcomeOf(err error) string {
	var slow *SlowDownError
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &slow):
		return "slow_down"
	case errors.Is(err, ErrMalformed):
		return "malformed"
	case errors.Is(err, ErrLocked):
		return "locked"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	case errors.Is(err, ErrNoMatch):
		return "no_match"
	}
	return "failed"
}

// guarded counts a try against a secret that could be guessed. The returned function takes it back.
func (s *Service) guarded(ctx context.Context, subject string, a Attempt) (pass func(), err error) {
	place, known := "address "+s.address(a.Remote), false
	if a.Browser != "" {
		browser := HashOf(a.Browser)
		if known, err = s.store.BrowserOf(ctx, subject, browser); err != nil {
			return nil, err
		}
		if known {
			place = "browser " + string(browser[:])
		}
	}
	if wait, ok := s.guard.take(subject, place, known, a.Now); !ok {
		return nil, &SlowDownError{wait}
	}
	return func() { s.guard.succeeded(subject, place) }, nil
}

// admits bounds attempts of every kind. A browser that somebody has signed in with has a budget of its own: who shares
// the clinic's address with it cannot use that up.
func (s *Service) admits(ctx context.Context, a Attempt) error {
	known := false
	if a.Browser != "" {
		var err error
		if known, err = s.store.BrowserSeen(ctx, HashOf(a.Browser)); err != nil {
			return err
		}
	}
	if known && s.browsers.allow(a.Browser, a.Now) || s.addresses.Allow(a.Remote, a.Now) {
		return nil
	}
	return &SlowDownError{10 * time.Second}
}

// identity is what the hub knows of a person who has just proved to be one.
func (s *Service) identity(ctx context.Context, subject string, m Method, t time.Time) (Identity, error) {
	p, err := s.store.Person(ctx, subject)
	if errors.Is(err, ErrNotFound) {
		return Identity{}, ErrNoMatch // removed meanwhile
	}
	return Identity{Subject: p.Subject, Name: p.Name, Roles: p.Roles, Method: m, Level: m.Level(), Time: t}, err
}

// SignIn judges an attempt and, when it succeeds, returns a token for what follows and one that marks the browser.
func (s *Service) SignIn(ctx context.Context, m Method, a Attempt) (id Identity, token, browser string, err error) {
	method := s.methods[m]
	if method == nil {
		return id, "", "", fmt.Errorf("%w: unknown method", ErrMalformed)
	}
	defer func() { s.signIns.WithLabelValues(string(m), outcomeOf(err)).Inc() }()
	if err := s.admits(ctx, a); err != nil {
		return id, "", "", err
	}
	if id, err = method.Authenticate(ctx, a); err != nil {
		return Identity{}, "", "", err
	}
	token, browser = newToken(), a.Browser
	if known, err := s.store.BrowserOf(ctx, id.Subject, HashOf(browser)); err != nil || browser == "" || !known {
		browser = newToken() // never a value that somebody else may have planted
	}
	err = s.store.AddSignIn(ctx, SignIn{
		Hash: HashOf(token), Subject: id.Subject, Site: a.Site, Method: m, Level: id.Level, At: a.Now, Seen: a.Now,
	}, HashOf(browser))
	if err != nil {
		return Identity{}, "", "", err
	}
	return id, token, browser, nil
}

// Caller returns who a token belongs to, and notes its use; ErrNotFound when it has ended or belongs to another site.
func (s *Service) Caller(ctx context.Context, token string, site Site, t time.Time) (Identity, error) {
	v, err := s.store.SignIn(ctx, HashOf(token))
	if err != nil {
		return Identity{}, err
	}
	if v.Site != site || t.Sub(v.Seen) >= idleLasts || t.Sub(v.At) >= signInLasts {
		return Identity{}, ErrNotFound
	}
	p, err := s.store.Person(ctx, v.Subject)
	if err != nil {
		return Identity{}, err
	}
	if t.Sub(v.Seen) >= touchEvery {
		if err := s.store.Touch(ctx, v.Hash, t); err != nil {
			return Identity{}, err
		}
	}
	return Identity{Subject: p.Subject, Name: p.Name, Roles: p.Roles, Method: v.Method, Level: v.Level, Time: v.At}, nil
}

// SignOut ends a sign-in. Ending one that has ended is no error.
func (s *Service) SignOut(ctx context.Context, token string) error {
	return s.store.DropSignIn(ctx, HashOf(token))
}

// Run forgets sign-ins that have ended, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-tick.C:
			if err := s.store.DropSignIns(ctx, t.Add(-idleLasts), t.Add(-signInLasts)); err != nil && ctx.Err() == nil {
				s.log.Error("forget sign-ins that have ended", "err", err)
			}
		}
	}
}

// Add makes a person.
func (s *Service) Add(ctx context.Context, p Person) error {
	if err := p.Check(); err != nil {
		return err
	}
	p.Handle = make([]byte, 32)
	_, _ = rand.Read(p.Handle) // crypto/rand.Read never fails: it ends the program
	p.Created = time.Now()
	return s.store.AddPerson(ctx, p)
}

// Register returns a registration for one passkey of a person; the former one ends.
func (s *Service) Register(ctx context.Context, subject string) (registration string, expires time.Time, err error) {
	registration, expires = newToken(), time.Now().Add(registerLasts).UTC()
	return registration, expires, s.store.SetRegistration(ctx, subject, HashOf(registration), expires)
}

// SetTOTP gives a person a new code generator and returns the URI that apps read.
func (s *Service) SetTOTP(ctx context.Context, subject string) (uri string, err error) {
	secret, uri := newTOTP(subject)
	return uri, s.store.SetTOTP(ctx, subject, secret)
}

// SetRecovery gives a person new recovery codes; the former ones end.
func (s *Service) SetRecovery(ctx context.Context, subject string) ([]string, error) {
	codes, hashes := newRecovery()
	return codes, s.store.SetRecovery(ctx, subject, hashes)
}

// SetVisit says that a participant of a session is a patient whom the clinic knows.
func (s *Service) SetVisit(ctx context.Context, participant, subject string) error {
	return s.store.SetVisit(ctx, participant, subject)
}
