package document

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

var start = time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)

var zone = time.FixedZone("elsewhere", 3600)

// clinic is an owner with keys, for tests.
type clinic struct {
	t     testing.TB
	keys  map[string][]*PrivateKey
	chain []*Envelope
	roots []*OwnerRoot
}

// newClinic has 3 root keys of which 2 must sign, and one key per other role.
func newClinic(t testing.TB) *clinic {
	t.Helper()
	c := &clinic{t: t, keys: make(map[string][]*PrivateKey)}
	for role, n := range map[string]int{RoleRoot: 3, RoleRoster: 2, RolePeople: 1, RoleConfig: 1} {
		for range n {
			c.keys[role] = append(c.keys[role], newKey(t))
		}
	}
	c.next(nil)
	return c
}

func newKey(t testing.TB) *PrivateKey {
	t.Helper()
	k, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// draft is the next root with the clinic's present keys.
func (c *clinic) draft() *OwnerRoot {
	r := &OwnerRoot{
		Version: uint32(len(c.chain) + 1), Clinic: "Example clinic", Roles: make(map[string]Role),
		HubPins: []Hash{{1}}, RecoveryKeys: []Bytes{}, Issued: start, Expires: start.AddDate(2, 0, 0),
	}
	if r.Version > 1 {
		r.Owner = c.name()
	}
	for role, keys := range c.keys {
		listed := Role{Threshold: 1}
		if role == RoleRoot {
			listed.Threshold = 2
		}
		for _, k := range keys {
			listed.Keys = append(listed.Keys, k.Public())
		}
		r.Roles[role] = listed
	}
	return r
}

func (c *clinic) name() Hash { return c.chain[0].PayloadHash() }

// next signs the next root, with further signers besides the present root keys.
func (c *clinic) next(change func(*OwnerRoot), also ...*PrivateKey) *Envelope {
	c.t.Helper()
	r := c.draft()
	if change != nil {
		change(r)
	}
	e := c.sign(r, append(c.keys[RoleRoot][:2:2], also...)...)
	c.chain, c.roots = append(c.chain, e), append(c.roots, r)
	return e
}

func (c *clinic) sign(d Document, keys ...*PrivateKey) *Envelope {
	c.t.Helper()
	e, err := Sign(d, keys...)
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

// seal signs what Sign would refuse.
func (c *clinic) seal(payloadType string, payload any, keys ...*PrivateKey) *Envelope {
	c.t.Helper()
	b, ok := payload.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(payload); err != nil {
			c.t.Fatal(err)
		}
	}
	e := &Envelope{PayloadType: payloadType, Payload: b}
	if err := e.Sign(keys...); err != nil {
		c.t.Fatal(err)
	}
	return e
}

func (c *clinic) trust() *Trust {
	c.t.Helper()
	t, err := VerifyOwnerRoot(c.name(), c.chain, start)
	if err != nil {
		c.t.Fatal(err)
	}
	return t
}

func (c *clinic) header(serial uint64) Header {
	return Header{
		Owner: c.name(), RootVersion: uint32(len(c.chain)), Serial: serial,
		Issued: start, Expires: start.AddDate(0, 0, 30), Target: TargetAll,
	}
}

func (c *clinic) roster(serial uint64) *Roster {
	return &Roster{Header: c.header(serial), Devices: []Device{{
		ID: "d-1", Room: "room-1", Label: "Room 1", TLSSPKI: spki(c.t), SignSPKI: spki(c.t),
		KeyProtection: ProtectionHost, NotAfter: start.AddDate(1, 0, 0),
	}}}
}

func (c *clinic) people(serial uint64) *People {
	return &People{Header: c.header(serial), Persons: []Person{{
		Pseudonym: "p-1", Roles: []string{"therapist"}, Credentials: []Credential{{
			ID: Bytes("id"), PublicKey: Bytes("cose"), RPID: "call.clinic.example", AAGUID: make(Bytes, 16), NotAfter: start.AddDate(1, 0, 0),
		}},
	}}}
}

func (c *clinic) config(serial uint64) *Config {
	return &Config{
		Header: c.header(serial), CallOrigin: "https://call.clinic.example",
		Video: Video{Codecs: []string{"vp8", "h264"}, Width: 1280, Height: 720, FPS: 30, MaxBitrate: 2_000_000},
		Audio: Audio{Bitrate: 32_000}, Policy: Policy{MinAssurance: map[string]int{"therapist": 2, "patient": 1}},
		Crisis: Crisis{Line: "112", Text: "Somebody is there day and night.", Place: "Desk on the ground floor"},
	}
}

func spki(t testing.TB) Bytes {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}
