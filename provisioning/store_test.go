package provisioning

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alcove-room/alcove/provisioning/document"
)

// clinic signs documents for tests.
type clinic struct {
	t     testing.TB
	keys  map[string]*document.PrivateKey
	roots []*document.Envelope
	pins  []document.Hash
}

func newClinic(t testing.TB, pins ...document.Hash) *clinic {
	t.Helper()
	c := &clinic{t: t, keys: make(map[string]*document.PrivateKey), pins: pins}
	for _, role := range []string{document.RoleRoot, document.RoleRoster, document.RolePeople, document.RoleConfig} {
		k, err := document.NewPrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		c.keys[role] = k
	}
	c.root(now().AddDate(1, 0, 0))
	return c
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// root signs the next owner root.
func (c *clinic) root(expires time.Time) *document.Envelope {
	c.t.Helper()
	r := &document.OwnerRoot{Version: uint32(len(c.roots) + 1), Clinic: "Clinic", Roles: make(map[string]document.Role), HubPins: c.pins,
		RecoveryKeys: []document.Bytes{}, Issued: now().Add(-time.Hour), Expires: expires}
	if r.Version > 1 {
		r.Owner = c.name()
	}
	for role, k := range c.keys {
		r.Roles[role] = document.Role{Threshold: 1, Keys: []document.PublicKey{k.Public()}}
	}
	e, err := document.Sign(r, c.keys[document.RoleRoot])
	if err != nil {
		c.t.Fatal(err)
	}
	c.roots = append(c.roots, e)
	return e
}

func (c *clinic) name() document.Hash { return c.roots[0].PayloadHash() }

func (c *clinic) header(serial uint64) document.Header {
	return document.Header{Owner: c.name(), RootVersion: uint32(len(c.roots)), Serial: serial, Issued: now().Add(-time.Minute),
		Expires: now().AddDate(0, 0, 20), Target: document.TargetAll}
}

func (c *clinic) sign(d document.Document, role string) *document.Envelope {
	c.t.Helper()
	e, err := document.Sign(d, c.keys[role])
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

func (c *clinic) roster(h document.Header, spkis ...[]byte) *document.Envelope {
	r := &document.Roster{Header: h, Devices: []document.Device{}}
	for i, spki := range spkis {
		r.Devices = append(r.Devices, document.Device{ID: fmt.Sprintf("d-%d", i), Room: fmt.Sprintf("room-%d", i), Label: "Room", TLSSPKI: spki,
			SignSPKI: newIdentity(c.t).spki, KeyProtection: document.ProtectionHost, NotAfter: now().AddDate(1, 0, 0)})
	}
	return c.sign(r, document.RoleRoster)
}

func (c *clinic) claim(hub string) *document.Claim {
	token := make([]byte, document.JoinTokenSize)
	_, _ = rand.Read(token)
	return &document.Claim{Version: 1, ClaimID: "c-1", Hub: hub, HubPins: c.pins, OwnerRoots: slices.Clone(c.roots), JoinToken: token,
		Expires: now().AddDate(0, 0, 1)}
}

func (c *clinic) store(t testing.TB, spki []byte) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir(), spki, now())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(c.claim("https://127.0.0.1:1"), now()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	box, pin := newIdentity(t), document.Hash{7}
	c := newClinic(t, pin)
	empty, err := OpenStore(t.TempDir(), box.spki, now())
	if err != nil || empty.Current(now()).Trust != nil || len(empty.Have()) != 0 {
		t.Fatal("an empty store is not empty: ", err)
	}
	if _, err := empty.Apply([]*document.Envelope{c.roster(c.header(1), box.spki)}, now()); !errors.Is(err, ErrNotEnrolled) {
		t.Fatal(err)
	}
	s := c.store(t, box.spki)
	first := c.roster(c.header(1), box.spki)
	if changed, err := s.Apply([]*document.Envelope{nil, first}, now()); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if changed, err := s.Apply([]*document.Envelope{first}, now()); changed || err != nil {
		t.Fatal("the same again: ", changed, err)
	}
	if d := s.Current(now()); d.Device == nil || d.Device.ID != "d-0" || d.Claim != "c-1" || len(d.Nonce) != document.JoinTokenSize {
		t.Fatalf("%+v", d)
	}
	other := newClinic(t, pin)
	late := c.header(9)
	late.Expires = now().Add(-time.Second)
	late.Issued = now().Add(-time.Hour)
	third := c.roster(c.header(3), box.spki)
	if _, err := s.Apply([]*document.Envelope{third}, now()); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]struct {
		e    *document.Envelope
		want error
	}{
		"replay":         {c.roster(c.header(2), box.spki), document.ErrReplay},
		"another with 3": {c.roster(c.header(3), box.spki), document.ErrConflict},
		"expired":        {c.roster(late, box.spki), document.ErrExpired},
		"other clinic":   {other.roster(other.header(9), box.spki), document.ErrUnknownKey},
		"other root":     {other.roots[0], nil},
	} {
		changed, err := s.Apply([]*document.Envelope{try.e}, now())
		if changed || err == nil || try.want != nil && !errors.Is(err, try.want) {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
	}
	// One bad document does not keep a good one out.
	gone := c.roster(c.header(4), newIdentity(t).spki)
	if changed, err := s.Apply([]*document.Envelope{c.roster(c.header(2), box.spki), gone}, now()); !changed || err == nil {
		t.Fatal(changed, err)
	}
	if d := s.Current(now()); d.Device != nil || d.Roster == nil {
		t.Fatal("a roster without this box still lists it")
	}
	if err := s.Adopt(other.claim("https://127.0.0.1:1"), now()); !errors.Is(err, document.ErrOtherClinic) {
		t.Fatal(err)
	}
}

// A configuration for another box is not ours, least of all before the roster has said which one we are.
func TestConfigOfAnotherBox(t *testing.T) {
	box := newIdentity(t)
	c := newClinic(t, document.Hash{7})
	config := func(serial uint64, target string) *document.Envelope {
		h := c.header(serial)
		h.Target = target
		return c.sign(&document.Config{Header: h, CallOrigin: "https://call.clinic.example", Video: document.Video{Codecs: []string{"vp8"}, Width: 640,
			Height: 360, FPS: 15, MaxBitrate: 600_000}, Audio: document.Audio{Bitrate: 32_000},
			Policy: document.Policy{MinAssurance: map[string]int{"therapist": 2}}}, document.RoleConfig)
	}
	s := c.store(t, box.spki)
	if changed, err := s.Apply([]*document.Envelope{config(1, "d-1")}, now()); changed || !errors.Is(err, document.ErrTarget) {
		t.Fatal("before the roster: ", changed, err)
	}
	roster := c.roster(c.header(1), box.spki, newIdentity(t).spki)
	if changed, err := s.Apply([]*document.Envelope{config(1, "d-1"), roster}, now()); !changed || !errors.Is(err, document.ErrTarget) {
		t.Fatal("with the roster: ", changed, err)
	}
	if s.Current(now()).Config != nil {
		t.Fatal("another box's configuration is in force")
	}
	if changed, err := s.Apply([]*document.Envelope{config(2, "d-0")}, now()); !changed || err != nil {
		t.Fatal("our own: ", changed, err)
	}
	if d := s.Current(now()); d.Config == nil || d.Config.Target != "d-0" {
		t.Fatalf("%+v", d)
	}
	// Both at once, as a box that has just been enrolled gets them.
	fresh := c.store(t, box.spki)
	if changed, err := fresh.Apply([]*document.Envelope{config(2, "d-0"), roster}, now()); !changed || err != nil || fresh.Current(now()).Config == nil {
		t.Fatal(changed, err)
	}
}

func TestStoreOutlivesARestart(t *testing.T) {
	box, dir := newIdentity(t), t.TempDir()
	c := newClinic(t, document.Hash{7})
	s, err := OpenStore(dir, box.spki, now())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(c.claim("https://127.0.0.1:1"), now()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply([]*document.Envelope{c.roster(c.header(5), box.spki)}, now()); err != nil {
		t.Fatal(err)
	}
	reopen := func(at time.Time) *Store {
		t.Helper()
		s, err := OpenStore(dir, box.spki, at)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if d := reopen(now()).Current(now()); d.Device == nil || d.Hub != "https://127.0.0.1:1" {
		t.Fatalf("%+v", d)
	}
	if _, err := reopen(now()).Apply([]*document.Envelope{c.roster(c.header(4), box.spki)}, now()); !errors.Is(err, document.ErrReplay) {
		t.Fatal("the order was forgotten: ", err)
	}
	month := now().AddDate(0, 0, 21)
	if d := reopen(month).Current(month); d.Device != nil || d.Trust == nil {
		t.Fatal("an expired roster is in force")
	}
	year := now().AddDate(1, 0, 1)
	if d := reopen(year).Current(year); d.Device != nil || d.Trust == nil {
		t.Fatal("without its trust the box could never follow the next root")
	}
	path := filepath.Join(dir, "documents.json")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatal(st, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"cut": whole[:len(whole)/2], "empty": {}, "zeros": make([]byte, 100), "one bit": flip(whole, strings.Index(string(whole), `"payload":"`)+40),
		"another clinic": []byte(strings.Replace(string(whole), c.name().String(), document.Hash{1}.String(), 1)),
	} {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := OpenStore(dir, box.spki, now()); err == nil && s.Current(now()).Device != nil && name != "one bit" {
			t.Errorf("%s: opened as if nothing were wrong", name)
		} else if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = slices.Clone(b)
	if b[i]++; b[i] > 'z' {
		b[i] = 'a'
	}
	return b
}

// An owner root that has run out, a clock that goes back and an old claim bring nothing into force.
func TestStoreAndTime(t *testing.T) {
	box := newIdentity(t)
	c := newClinic(t, document.Hash{7})
	old := c.claim("https://127.0.0.1:1")
	s := c.store(t, box.spki)
	soon := now().Add(time.Hour)
	c.pins = []document.Hash{{8}}
	if _, err := s.Apply([]*document.Envelope{c.root(soon), c.roster(c.header(1), box.spki)}, now()); err != nil {
		t.Fatal(err)
	}
	if d := s.Current(now()); d.Device == nil || d.Trust.Root().Version != 2 {
		t.Fatalf("%+v", d)
	}
	if d := s.Current(soon); d.Device != nil || d.Roster != nil {
		t.Fatal("something is in force under an owner root that has expired")
	}
	if err := s.Adopt(old, now()); err != nil {
		t.Fatal(err)
	}
	if v := s.Current(now()).Trust.Root().Version; v != 2 {
		t.Fatalf("an old claim brought root %d back", v)
	}
	short := c.header(2)
	short.Issued, short.Expires = now().Add(-40*time.Minute), now().Add(-30*time.Minute)
	past := now().Add(-35 * time.Minute) // a clock that went back to when it was valid
	if _, err := s.Apply([]*document.Envelope{c.roster(short, box.spki)}, past); !errors.Is(err, document.ErrExpired) {
		t.Fatalf("taken on a clock that went back: %v", err)
	}
}
