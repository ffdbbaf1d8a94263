package document

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"
)

func (c *clinic) claim() (*Claim, *Trust) {
	return &Claim{
		Version: 1, ClaimID: "c-1", Hub: "https://hub.example:8443", HubPins: []Hash{{1}},
		OwnerRoots: c.chain, JoinToken: make(Bytes, JoinTokenSize), Expires: start.AddDate(0, 0, 7),
	}, c.trust()
}

func TestClaim(t *testing.T) {
	c := newClinic(t)
	c.next(nil)
	claim, trust := c.claim()
	b, err := json.Marshal(claim)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseClaim(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read.Verify(start)
	if err != nil {
		t.Fatal(err)
	}
	if got.Clinic() != trust.Clinic() || got.RootHash() != trust.RootHash() || got.Clinic() == got.RootHash() {
		t.Error("the claim brings another root")
	}
	_, err = read.Verify(read.Expires)
	wants(t, "too late", err, ErrExpired)
	read.HubPins = append(read.HubPins, Hash{2})
	_, err = read.Verify(start)
	wants(t, "pin that the clinic does not vouch for", err, ErrInvalid)
	read.OwnerRoots = read.OwnerRoots[1:]
	if _, err := read.Verify(start); err == nil {
		t.Error("a chain without its beginning")
	}
	for name, change := range map[string]func(*Claim){
		"version": func(c *Claim) { c.Version = 2 }, "id": func(c *Claim) { c.ClaimID = "../x" },
		"token": func(c *Claim) { c.JoinToken = c.JoinToken[1:] }, "clear hub": func(c *Claim) { c.Hub = "http://hub.example" },
		"pins": func(c *Claim) { c.HubPins = nil }, "roots": func(c *Claim) { c.OwnerRoots = nil },
	} {
		bad, _ := c.claim()
		change(bad)
		b, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseClaim(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnrolmentProof(t *testing.T) {
	c := newClinic(t)
	claim, trust := c.claim()
	nonce := make([]byte, JoinTokenSize)
	e := claim.Enrol(spki(t), spki(t), nonce, trust.RootHash(), Hash{1})
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	if !e.Prove(claim.JoinToken, trust.RootHash(), Hash{1}) {
		t.Error("honest proof refused")
	}
	token := append(Bytes{1}, claim.JoinToken[1:]...)
	lies := map[string]bool{
		"another token":    e.Prove(token, trust.RootHash(), Hash{1}),
		"no token":         e.Prove(nil, trust.RootHash(), Hash{1}),
		"another root":     e.Prove(claim.JoinToken, Hash{9}, Hash{1}),
		"another hub":      e.Prove(claim.JoinToken, trust.RootHash(), Hash{2}),
		"another TLS key":  change(e, func(e *Enrolment) { e.TLSSPKI = spki(t) }).Prove(claim.JoinToken, trust.RootHash(), Hash{1}),
		"another sign key": change(e, func(e *Enrolment) { e.SignSPKI = spki(t) }).Prove(claim.JoinToken, trust.RootHash(), Hash{1}),
		"keys exchanged": change(e, func(e *Enrolment) { e.TLSSPKI, e.SignSPKI = e.SignSPKI, e.TLSSPKI }).
			Prove(claim.JoinToken, trust.RootHash(), Hash{1}),
		"another claim": change(e, func(e *Enrolment) { e.ClaimID = "c-2" }).Prove(claim.JoinToken, trust.RootHash(), Hash{1}),
		"another nonce": change(e, func(e *Enrolment) { e.Nonce = append(Bytes{1}, e.Nonce[1:]...) }).
			Prove(claim.JoinToken, trust.RootHash(), Hash{1}),
		"empty proof": change(e, func(e *Enrolment) { e.Proof = nil }).Prove(claim.JoinToken, trust.RootHash(), Hash{1}),
	}
	for lie, believed := range lies {
		if believed {
			t.Errorf("%s: believed", lie)
		}
	}
}

func change(e *Enrolment, f func(*Enrolment)) *Enrolment {
	c := *e
	f(&c)
	return &c
}

// Made with Python's hashlib and hmac, for whoever writes another end:
//
//	lp = lambda b: len(b).to_bytes(4, "big") + b
//	h = sha256(b"".join(map(lp, [b"alcove/claim/v1", b"c-1", b"tls", b"sign", bytes(32), b"\1"*32, b"\2"*32]))).digest()
//	hmac.new(b"\3"*32, h, "sha256").hexdigest()
func TestProofVector(t *testing.T) {
	pin, nonce, token := Hash{}, make(Bytes, 32), make(Bytes, 32)
	for i := range 32 {
		pin[i], nonce[i], token[i] = 1, 2, 3
	}
	e := &Enrolment{ClaimID: "c-1", TLSSPKI: Bytes("tls"), SignSPKI: Bytes("sign"), Nonce: nonce}
	const want = "b086bc20bf218f9244cb5d3237b9cc765a75fd8bf94c16f0fd9be008ba61ec5f"
	if got := hex.EncodeToString(e.proof(token, Hash{}, pin)); got != want {
		t.Errorf("proof %s, want %s", got, want)
	}
}
