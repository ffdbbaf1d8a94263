package document

import (
	"crypto/hmac"
	"fmt"
	"net/url"
	"time"
)

// Claim brings a factory-new box to its clinic. It is believed because IT put it
// there by hand; it is used once, and is a secret because of the join token.
type Claim struct {
	Version    int         `json:"version"` // 1
	ClaimID    string      `json:"claim_id"`
	Hub        string      `json:"hub"`         // URL of the hub's devices listener
	HubPins    []Hash      `json:"hub_pins"`    // among those of the owner root
	OwnerRoots []*Envelope `json:"owner_roots"` // from the first to the newest
	JoinToken  Bytes       `json:"join_token"`  // 32 random bytes
	Expires    time.Time   `json:"expires"`
}

// JoinTokenSize is the length of a join token and of an enrolment's nonce.
const JoinTokenSize = 32

// ParseClaim reads a claim and checks its form.
func ParseClaim(data []byte) (*Claim, error) {
	var c Claim
	if err := Decode(data, &c); err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	u, err := url.Parse(c.Hub)
	switch {
	case c.Version != 1:
		return nil, fmt.Errorf("claim: %w", invalid("version %d, this program reads 1", c.Version))
	case !isName(c.ClaimID) || len(c.JoinToken) != JoinTokenSize:
		return nil, fmt.Errorf("claim: %w", invalid("claim_id or join_token is damaged"))
	case err != nil || u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("claim: %w", invalid("hub is no https URL"))
	case len(c.HubPins) == 0 || len(c.OwnerRoots) == 0 || !isTime(c.Expires):
		return nil, fmt.Errorf("claim: %w", invalid("hub_pins, owner_roots or expires is missing"))
	}
	return &c, nil
}

// Verify gives the owner root that the claim brings. A claim that names a pin
// which the owner root does not vouch for is refused.
func (c *Claim) Verify(now time.Time) (*Trust, error) {
	if !now.Before(c.Expires) {
		return nil, fmt.Errorf("claim %s: %w: on %s; make a new one with alcovectl claim create",
			c.ClaimID, ErrExpired, c.Expires.Format(time.RFC3339))
	}
	if len(c.OwnerRoots) == 0 || c.OwnerRoots[0] == nil {
		return nil, fmt.Errorf("claim %s: %w: no owner root", c.ClaimID, ErrBroken)
	}
	t, err := VerifyOwnerRoot(c.OwnerRoots[0].PayloadHash(), c.OwnerRoots, now)
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", c.ClaimID, err)
	}
	for _, pin := range c.HubPins {
		if !t.root.Pins(pin) {
			return nil, fmt.Errorf("claim %s: %w: hub pin %.16s is not in the owner root", c.ClaimID, ErrInvalid, pin)
		}
	}
	return t, nil
}

// Pins tells whether the owner root vouches for a hub key.
func (r *OwnerRoot) Pins(pin Hash) bool {
	for _, p := range r.HubPins {
		if p == pin {
			return true
		}
	}
	return false
}

// Enrolment is what a box asks of the clinic: POST /v1/enroll. The hub stores
// it and cannot check the proof; the maker of the claim does.
type Enrolment struct {
	ClaimID  string `json:"claim_id"`
	TLSSPKI  Bytes  `json:"tls_spki"`
	SignSPKI Bytes  `json:"sign_spki"`
	Nonce    Bytes  `json:"nonce"` // JoinTokenSize random bytes
	Proof    Bytes  `json:"proof"`
}

// Validate checks everything that the request shows by itself.
func (e *Enrolment) Validate() error {
	if !isName(e.ClaimID) || len(e.Nonce) != JoinTokenSize || len(e.Proof) != len(Hash{}) {
		return fmt.Errorf("enrolment: %w", invalid("claim_id, nonce or proof is damaged"))
	}
	for _, spki := range []Bytes{e.TLSSPKI, e.SignSPKI} {
		if err := validSPKI(spki); err != nil {
			return fmt.Errorf("enrolment: %w", invalid("%v", err))
		}
	}
	return nil
}

// Enrol makes the request of a box that has connected to a hub whose key has
// the hash pin. rootHash is Trust.RootHash of the claim.
func (c *Claim) Enrol(tlsSPKI, signSPKI, nonce []byte, rootHash, pin Hash) *Enrolment {
	e := &Enrolment{ClaimID: c.ClaimID, TLSSPKI: tlsSPKI, SignSPKI: signSPKI, Nonce: nonce}
	e.Proof = e.proof(c.JoinToken, rootHash, pin)
	return e
}

// Prove tells whether the request was made by the box that holds the claim: it
// knew the join token, and it saw this owner root and this hub.
func (e *Enrolment) Prove(joinToken []byte, rootHash, pin Hash) bool {
	return len(joinToken) == JoinTokenSize && hmac.Equal(e.Proof, e.proof(joinToken, rootHash, pin))
}

// proof is HMAC-SHA-256(join token, H("alcove/claim/v1", claim id, TLS SPKI,
// sign SPKI, owner root hash, server pin, nonce)).
func (e *Enrolment) proof(joinToken []byte, rootHash, pin Hash) []byte {
	h := LabelledHash("alcove/claim/v1", []byte(e.ClaimID), e.TLSSPKI, e.SignSPKI, rootHash[:], pin[:], e.Nonce)
	return hmacSHA256(joinToken, h[:])
}
