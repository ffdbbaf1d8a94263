package people

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/alcove-room/alcove/provisioning/document"
)

const (
	ceremonyLasts = 5 * time.Minute
	maxCeremonies = 10_000 // about 1 KiB each
)

// passkeys is WebAuthn (Level 3, 7.1 and 7.2) with user verification, at each site with a relying party of its own.
type passkeys struct {
	s     *Service
	sites map[Site]*webauthn.WebAuthn

	mu         sync.Mutex
	ceremonies map[string]ceremony // guarded by mu
}

// ceremony is a challenge that waits for its one answer.
type ceremony struct {
	site    Site
	data    webauthn.SessionData
	subject string // of a registration
	expires time.Time
}

func newPasskeys(s *Service, origins map[Site]string) (*passkeys, error) {
	k := &passkeys{s: s, sites: make(map[Site]*webauthn.WebAuthn), ceremonies: make(map[string]ceremony)}
	for site, origin := range origins {
		u, err := url.Parse(origin)
		if err != nil {
			return nil, fmt.Errorf("origin of %s: %w", site, err)
		}
		// A relying party id is a domain and never an IP address (WebAuthn, 5.1.2): such a site has no passkeys.
		if _, err := netip.ParseAddr(u.Hostname()); err == nil || u.Hostname() == "" {
			continue
		}
		k.sites[site], err = webauthn.New(&webauthn.Config{
			RPID: u.Hostname(), RPDisplayName: "Alcove", RPOrigins: []string{origin},
			AttestationPreference: protocol.PreferNoAttestation,
			AuthenticatorSelection: protocol.AuthenticatorSelection{
				ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: protocol.ResidentKeyRequired(),
				UserVerification: protocol.VerificationRequired,
			},
		})
		if err != nil {
			return nil, fmt.Errorf("relying party of %s: %w", site, err)
		}
	}
	return k, nil
}

func (k *passkeys) keep(c ceremony, t time.Time) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.ceremonies) >= maxCeremonies {
		for id, old := range k.ceremonies {
			if t.After(old.expires) {
				delete(k.ceremonies, id)
			}
		}
	}
	for id := range k.ceremonies { // whoever is pushed out begins again
		if len(k.ceremonies) < maxCeremonies {
			break
		}
		delete(k.ceremonies, id)
	}
	id := newToken()
	c.expires = t.Add(ceremonyLasts)
	k.ceremonies[id] = c
	return id
}

// finish returns a ceremony once, of this site and in its time.
func (k *passkeys) finish(id string, site Site, t time.Time) (ceremony, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.ceremonies[id]
	delete(k.ceremonies, id)
	return c, ok && c.site == site && t.Before(c.expires)
}

// holder is a person as go-webauthn sees them, with the passkeys of one relying party.
type holder struct {
	p           Person
	credentials []webauthn.Credential
}

func (h holder) WebAuthnID() []byte                         { return h.p.Handle }
func (h holder) WebAuthnName() string                       { return h.p.Subject }
func (h holder) WebAuthnDisplayName() string                { return h.p.Name }
func (h holder) WebAuthnCredentials() []webauthn.Credential { return h.credentials }

func holderOf(p Person, rpID string) (holder, error) {
	h := holder{p: p}
	for _, kept := range p.Passkeys {
		var c webauthn.Credential
		if err := json.Unmarshal(kept.Record, &c); err != nil {
			return h, fmt.Errorf("read passkey: %w", err)
		}
		if kept.RPID == rpID {
			h.credentials = append(h.credentials, c)
		}
	}
	return h, nil
}

// Begin starts a sign-in. Nobody is named: the authenticator knows whom it has passkeys of.
func (k *passkeys) Begin(site Site, t time.Time) (id string, options any, err error) {
	rp := k.sites[site]
	if rp == nil {
		return "", nil, ErrUnavailable
	}
	options, data, err := rp.BeginDiscoverableLogin()
	if err != nil {
		return "", nil, fmt.Errorf("begin sign-in: %w", err)
	}
	return k.keep(ceremony{site: site, data: *data}, t), options, nil
}

// Authenticate implements Authenticator: {"ceremony","response"}, response being the text of the browser's
// PublicKeyCredential.toJSON().
func (k *passkeys) Authenticate(ctx context.Context, a Attempt) (Identity, error) {
	var req struct {
		Ceremony string `json:"ceremony"`
		Response string `json:"response"`
	}
	if err := document.Decode(a.Body, &req); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	rp := k.sites[a.Site]
	if rp == nil {
		return Identity{}, ErrUnavailable
	}
	c, ok := k.finish(req.Ceremony, a.Site, a.Now)
	if !ok || c.subject != "" {
		return Identity{}, ErrNoMatch
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(req.Response))
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var failed error // of ours, which go-webauthn does not hand through
	user, credential, err := rp.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
		var p Person
		if p, failed = k.s.store.PersonByHandle(ctx, handle); failed != nil {
			return nil, failed
		}
		var h holder
		h, failed = holderOf(p, rp.Config.RPID)
		return h, failed
	}, c.data, parsed)
	if failed != nil && !errors.Is(failed, ErrNotFound) {
		return Identity{}, failed
	}
	// A counter that does not rise tells of a copy of the authenticator (WebAuthn, 6.1.1).
	if err != nil || credential.Authenticator.CloneWarning {
		return Identity{}, ErrNoMatch
	}
	record, err := json.Marshal(credential)
	if err != nil {
		return Identity{}, fmt.Errorf("encode passkey: %w", err)
	}
	if err := k.s.store.UpdatePasskey(ctx, credential.ID, record); err != nil {
		return Identity{}, err
	}
	return k.s.identity(ctx, user.WebAuthnName(), ByPasskey, a.Now)
}

// BeginRegistration starts the registration of a passkey.
func (k *passkeys) BeginRegistration(ctx context.Context, registration string, site Site, t time.Time) (id string, options any, err error) {
	rp := k.sites[site]
	if rp == nil {
		return "", nil, ErrUnavailable
	}
	p, err := k.registrant(ctx, registration, t)
	if err != nil {
		return "", nil, err
	}
	h, err := holderOf(p, rp.Config.RPID)
	if err != nil {
		return "", nil, err
	}
	options, data, err := rp.BeginRegistration(h,
		webauthn.WithExclusions(webauthn.Credentials(h.credentials).CredentialDescriptors()))
	if err != nil {
		return "", nil, fmt.Errorf("begin registration: %w", err)
	}
	return k.keep(ceremony{site: site, data: *data, subject: p.Subject}, t), options, nil
}

func (k *passkeys) registrant(ctx context.Context, registration string, t time.Time) (Person, error) {
	subject, err := k.s.store.Registration(ctx, HashOf(registration), t)
	if errors.Is(err, ErrNotFound) {
		return Person{}, ErrNoMatch
	}
	if err != nil {
		return Person{}, err
	}
	return k.s.store.Person(ctx, subject)
}

// Finish stores the passkey that the browser made, and uses the registration up.
func (k *passkeys) Finish(ctx context.Context, registration, id, response string, site Site, t time.Time) (Passkey, error) {
	rp := k.sites[site]
	if rp == nil {
		return Passkey{}, ErrUnavailable
	}
	c, ok := k.finish(id, site, t)
	if !ok || c.subject == "" {
		return Passkey{}, ErrNoMatch
	}
	p, err := k.registrant(ctx, registration, t)
	if err != nil {
		return Passkey{}, err
	}
	if p.Subject != c.subject {
		return Passkey{}, ErrNoMatch
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes([]byte(response))
	if err != nil {
		return Passkey{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	credential, err := rp.CreateCredential(holder{p: p}, c.data, parsed)
	if err != nil {
		return Passkey{}, ErrNoMatch
	}
	record, err := json.Marshal(credential)
	if err != nil {
		return Passkey{}, fmt.Errorf("encode passkey: %w", err)
	}
	made := Passkey{ID: credential.ID, RPID: rp.Config.RPID, Record: record, Created: t}
	err = k.s.store.AddPasskey(ctx, HashOf(registration), made, t)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) {
		return Passkey{}, ErrNoMatch
	}
	return made, err
}

// Prove returns options for an assertion over a challenge that the caller brings: the room's, over an endpoint
// document. The hub passes bytes on and judges nothing; an answer to them signs nobody in here.
func (k *passkeys) Prove(ctx context.Context, subject string, challenge []byte, site Site) (any, error) {
	rp := k.sites[site]
	if rp == nil {
		return nil, ErrUnavailable
	}
	p, err := k.s.store.Person(ctx, subject)
	if err != nil {
		return nil, err
	}
	h, err := holderOf(p, rp.Config.RPID)
	if err != nil {
		return nil, err
	}
	if len(h.credentials) == 0 {
		return nil, ErrNoMatch
	}
	options, _, err := rp.BeginLogin(h, webauthn.WithChallenge(challenge))
	if err != nil {
		return nil, fmt.Errorf("begin proof: %w", err)
	}
	return options, nil
}

// Public is what the clinic's people document says of a passkey, and Check is 8 letters that both ends of a
// registration can compare: 40 bits over the credential and its key.
type Public struct {
	PublicKey []byte // COSE_Key
	AAGUID    []byte
	Check     string
}

// Public reads a passkey's record.
func (k Passkey) Public() (Public, error) {
	var c webauthn.Credential
	if err := json.Unmarshal(k.Record, &c); err != nil {
		return Public{}, fmt.Errorf("read passkey: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "alcove/passkey-check/v1 %d %d ", len(k.ID), len(c.PublicKey))
	h.Write(k.ID)
	h.Write(c.PublicKey)
	letters := base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").EncodeToString(h.Sum(nil)[:5])
	return Public{PublicKey: c.PublicKey, AAGUID: c.Authenticator.AAGUID, Check: letters[:4] + "-" + letters[4:]}, nil
}
