package people

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/alcove-room/alcove/provisioning/document"
)

// OIDC is the clinic's identity provider (OpenID Connect Core 1.0). The zero value is none.
type OIDC struct {
	Issuer       string
	ClientID     string
	ClientSecret string
	// RolesClaim is the one claim of the ID token that lists roles, by their names in the table.
	RolesClaim string
	// ACR are the authentication contexts in which the provider asked for more than one factor. A token without one
	// of them must carry the method "mfa" (RFC 8176, 2).
	ACR []string
}

const (
	oidcTimeout = 10 * time.Second
	oidcFresh   = 10 * time.Minute // how old an ID token may be
	oidcSkew    = time.Minute
)

// oidcSignIn is the code flow with PKCE (RFC 7636): {"ceremony","state","code"}. The ceremony stays in the page that
// began and never travels through the provider, so a code cannot be slipped to another browser.
type oidcSignIn struct {
	s       *Service
	conf    OIDC
	origins map[Site]string
	client  *http.Client

	mu       sync.Mutex
	provider *oidc.Provider          // guarded by mu; nil until the issuer has answered once
	begun    map[string]oidcCeremony // guarded by mu
}

type oidcCeremony struct {
	site                   Site
	state, nonce, verifier string
	expires                time.Time
}

func newOIDC(s *Service, conf OIDC, origins map[Site]string) *oidcSignIn {
	return &oidcSignIn{s: s, conf: conf, origins: origins, begun: make(map[string]oidcCeremony),
		client: &http.Client{Timeout: oidcTimeout}}
}

// issuer asks for the provider's configuration until it has it; the hub starts and runs without.
func (o *oidcSignIn) issuer() (*oidc.Provider, error) {
	o.mu.Lock()
	p := o.provider
	o.mu.Unlock()
	if p != nil {
		return p, nil
	}
	// The provider keeps this context for its keys, so it is no request's; the client bounds every call.
	p, err := oidc.NewProvider(oidc.ClientContext(context.Background(), o.client), o.conf.Issuer)
	if err != nil {
		return nil, fmt.Errorf("ask the identity provider: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.provider = p
	return p, nil
}

func (o *oidcSignIn) flow(p *oidc.Provider, site Site) *oauth2.Config {
	return &oauth2.Config{ClientID: o.conf.ClientID, ClientSecret: o.conf.ClientSecret, Endpoint: p.Endpoint(),
		RedirectURL: o.origins[site] + "/", Scopes: []string{oidc.ScopeOpenID, "profile"}}
}

// Begin returns where the page sends the person, and the ceremony that it keeps.
func (o *oidcSignIn) Begin(site Site, t time.Time) (id, address string, err error) {
	p, err := o.issuer()
	if err != nil {
		return "", "", err
	}
	c := oidcCeremony{site: site, state: newToken(), nonce: newToken(), verifier: oauth2.GenerateVerifier(), expires: t.Add(ceremonyLasts)}
	options := []oauth2.AuthCodeOption{oidc.Nonce(c.nonce), oauth2.S256ChallengeOption(c.verifier)}
	if len(o.conf.ACR) > 0 {
		options = append(options, oauth2.SetAuthURLParam("acr_values", strings.Join(o.conf.ACR, " ")))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for old, b := range o.begun {
		if t.After(b.expires) || len(o.begun) >= maxCeremonies { // whoever is pushed out begins again
			delete(o.begun, old)
		}
	}
	id = newToken()
	o.begun[id] = c
	return id, o.flow(p, site).AuthCodeURL(c.state, options...), nil
}

func (o *oidcSignIn) take(id, state string, site Site, t time.Time) (oidcCeremony, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c, ok := o.begun[id]
	delete(o.begun, id)
	return c, ok && c.site == site && t.Before(c.expires) && subtle.ConstantTimeCompare([]byte(c.state), []byte(state)) == 1
}

// Authenticate implements Authenticator.
func (o *oidcSignIn) Authenticate(ctx context.Context, a Attempt) (Identity, error) {
	var req struct {
		Ceremony string `json:"ceremony"`
		State    string `json:"state"`
		Code     string `json:"code"`
	}
	if err := document.Decode(a.Body, &req); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	c, ok := o.take(req.Ceremony, req.State, a.Site, a.Now)
	if !ok {
		return Identity{}, ErrNoMatch
	}
	p, err := o.issuer()
	if err != nil {
		return Identity{}, err
	}
	ctx = oidc.ClientContext(ctx, o.client)
	tokens, err := o.flow(p, a.Site).Exchange(ctx, req.Code, oauth2.VerifierOption(c.verifier))
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response.StatusCode < 500 {
		return Identity{}, ErrNoMatch
	}
	if err != nil {
		return Identity{}, fmt.Errorf("trade the provider's code: %w", err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	verifier := p.Verifier(&oidc.Config{ClientID: o.conf.ClientID, Now: func() time.Time { return a.Now },
		SupportedSigningAlgs: []string{oidc.RS256, oidc.PS256, oidc.ES256, oidc.EdDSA}})
	token, err := verifier.Verify(ctx, raw)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNoMatch, err)
	}
	if subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(c.nonce)) != 1 ||
		a.Now.Sub(token.IssuedAt) > oidcFresh || token.IssuedAt.Sub(a.Now) > oidcSkew {
		return Identity{}, ErrNoMatch
	}
	return o.admit(ctx, token, a.Now)
}

// admit makes or renews the person that a verified token speaks of. Their roles are the claim's, each time anew.
func (o *oidcSignIn) admit(ctx context.Context, token *oidc.IDToken, t time.Time) (Identity, error) {
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNoMatch, err)
	}
	acr, _ := claims["acr"].(string)
	if !slices.Contains(o.conf.ACR, acr) && !slices.Contains(texts(claims["amr"]), "mfa") {
		return Identity{}, fmt.Errorf("%w: the provider does not say that it asked for a second factor", ErrNoMatch)
	}
	h := sha256.Sum256([]byte(token.Issuer + "\x00" + token.Subject))
	p := Person{Subject: "oidc-" + hex.EncodeToString(h[:16]), Handle: h[:], Created: t}
	for _, r := range texts(claims[o.conf.RolesClaim]) {
		// A patient is somebody with an appointment and a PIN, never an account.
		if role := Role(r); slices.Contains(staffRoles(), role) && !slices.Contains(p.Roles, role) {
			p.Roles = append(p.Roles, role)
		}
	}
	if p.Name, _ = claims["name"].(string); CheckName(p.Name) != nil {
		p.Name = p.Subject
	}
	if len(p.Roles) == 0 {
		return Identity{}, fmt.Errorf("%w: the provider gives no role", ErrNoMatch)
	}
	if err := o.s.store.PutPerson(ctx, p); err != nil {
		return Identity{}, err
	}
	return o.s.identity(ctx, p.Subject, ByOIDC, t)
}

// texts reads a claim that is a string or a list of strings.
func texts(claim any) []string {
	if one, ok := claim.(string); ok {
		return []string{one}
	}
	var list []string
	many, _ := claim.([]any)
	for _, v := range many {
		if s, ok := v.(string); ok {
			list = append(list, s)
		}
	}
	return list
}
