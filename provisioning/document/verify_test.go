package document

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"
)

func TestHonestDocuments(t *testing.T) {
	c := newClinic(t)
	trust := c.trust()
	if trust.Clinic() != c.chain[0].PayloadHash() || trust.RootHash() != trust.Clinic() || !trust.Root().Pins(Hash{1}) {
		t.Error("trust does not say what the root says")
	}
	r := c.roster(1)
	e := c.sign(r, c.keys[RoleRoster][0])
	got, err := Verify[Roster](e, trust, State{Device: "d-1"}, start)
	if err != nil {
		t.Fatal(err)
	}
	state := State{Device: "d-1"}.After(e, got)
	if _, err := Verify[Roster](e, trust, state, start); err != nil {
		t.Error("the same document again:", err)
	}
	d := r.Devices[0]
	for _, find := range []func(*Roster, time.Time) (*Device, bool){
		func(r *Roster, at time.Time) (*Device, bool) { return r.ByTLS(d.TLSSPKI, at) },
		func(r *Roster, at time.Time) (*Device, bool) { return r.BySign(d.SignSPKI, at) },
		func(r *Roster, at time.Time) (*Device, bool) { return r.ByID(d.ID, at) },
	} {
		if found, ok := find(got, start); !ok || found.Label != "Room 1" {
			t.Error("device is not found")
		}
		if _, ok := find(got, d.NotAfter); ok {
			t.Error("device is found after its end")
		}
	}
	if _, ok := got.ByTLS(d.SignSPKI, start); ok {
		t.Error("a signing key opens a connection")
	}
	people, err := Verify[People](c.sign(c.people(1), c.keys[RolePeople]...), trust, State{}, start)
	if err != nil {
		t.Fatal(err)
	}
	if p, _, ok := people.ByCredential([]byte("id"), start); !ok || p.Pseudonym != "p-1" {
		t.Error("credential is not found")
	}
	if _, _, ok := people.ByCredential([]byte("id"), start.AddDate(1, 0, 0)); ok {
		t.Error("credential is found after its end")
	}
	config, err := Verify[Config](c.sign(c.config(1), c.keys[RoleConfig]...), trust, State{}, start)
	if err != nil {
		t.Fatal(err)
	}
	if p := config.Policy; p.Assurance("patient") != 1 || p.Assurance("guest") != 3 {
		t.Error("a role that is not named must need the highest level")
	}
}

// attack is one way to get a document believed, and the error that answers it.
type attack struct {
	name string
	want error
	try  func() error
}

func verifyRoster(e *Envelope, t *Trust, s State, now time.Time) error {
	_, err := Verify[Roster](e, t, s, now)
	return err
}

func TestAttacksOnDocuments(t *testing.T) {
	c, other := newClinic(t), newClinic(t)
	trust, key := c.trust(), c.keys[RoleRoster][0]
	honest := c.sign(c.roster(5), key)
	inForce := State{}.After(honest, c.roster(5))
	against := func(e *Envelope) func() error {
		return func() error { return verifyRoster(e, trust, State{}, start) }
	}
	rosterType := TypeRoster.PayloadType()
	changed := func(change func(*Header)) *Envelope {
		r := c.roster(6)
		change(&r.Header)
		return c.seal(rosterType, r, key)
	}
	forDevice := c.config(1)
	forDevice.Target = "d-2"

	attacks := []attack{
		{"signed by the server's own key", ErrUnknownKey, against(c.seal(rosterType, c.roster(6), newKey(t)))},
		{"signed by the server and by the clinic", ErrUnknownKey, against(c.seal(rosterType, c.roster(6), newKey(t), key))},
		{"not signed", ErrThreshold, against(&Envelope{PayloadType: rosterType, Payload: honest.Payload})},
		{"payload of one under the signature of another", ErrSignature, against(&Envelope{rosterType, c.sign(c.roster(6), key).Payload, honest.Signatures})},
		{"server's signature under the clinic's key id", ErrSignature, func() error {
			e := c.seal(rosterType, c.roster(6), newKey(t))
			e.Signatures[0].KeyID = key.Public().ID()
			return against(e)()
		}},
		{"config as roster", ErrPayloadType, against(c.sign(c.config(1), c.keys[RoleConfig]...))},
		{"config under the name of a roster", ErrWrongRole, against(c.seal(rosterType, c.config(1), c.keys[RoleConfig]...))},
		{"type exchanged after signing", ErrSignature, func() error {
			e := c.seal(TypePeople.PayloadType(), c.roster(6), key)
			e.PayloadType = rosterType
			return against(e)()
		}},
		{"unknown type", ErrPayloadType, against(c.seal("application/json", c.roster(6), key))},
		{"older serial", ErrReplay, func() error {
			return verifyRoster(c.sign(c.roster(4), key), trust, inForce, start)
		}},
		{"another one with the same serial", ErrConflict, func() error {
			return verifyRoster(c.sign(c.roster(5), key), trust, inForce, start)
		}},
		{"another clinic", ErrUnknownKey, against(other.sign(other.roster(6), other.keys[RoleRoster][0]))},
		{"another clinic with the same keys", ErrOtherClinic, against(changed(func(h *Header) { h.Owner = other.name() }))},
		{"expired", ErrExpired, func() error { return verifyRoster(honest, trust, State{}, start.AddDate(0, 0, 30)) }},
		{"dated in the future", ErrNotYet, against(changed(func(h *Header) {
			h.Issued, h.Expires = start.Add(maxSkew+time.Second), start.AddDate(50, 0, 0)
		}))},
		{"under a root that nobody has seen", ErrRootVersion, against(changed(func(h *Header) { h.RootVersion = 2 }))},
		{"one key's signature twice", ErrDuplicateKey, func() error {
			e := c.sign(c.roster(6), key)
			e.Signatures = append(e.Signatures, e.Signatures[0])
			return against(e)()
		}},
		{"key of another role", ErrWrongRole, against(c.seal(rosterType, c.roster(6), c.keys[RolePeople]...))},
		{"root key in place of the roster's", ErrWrongRole, against(c.seal(rosterType, c.roster(6), c.keys[RoleRoot]...))},
		{"for another device", ErrTarget, func() error {
			_, err := Verify[Config](c.sign(forDevice, c.keys[RoleConfig]...), trust, State{Device: "d-1"}, start)
			return err
		}},
		{"roster for one device only", ErrInvalid, against(changed(func(h *Header) { h.Target = "d-1" }))},
		{"no serial", ErrInvalid, against(changed(func(h *Header) { h.Serial = 0 }))},
		{"serial beyond what a page can read", ErrInvalid, against(changed(func(h *Header) { h.Serial = math.MaxUint64 }))},
		{"name twice", ErrDuplicateName, against(c.seal(rosterType, inject(t, c.roster(6), `"serial":9`), key))},
		{"name in capitals", ErrNameCase, against(c.seal(rosterType, inject(t, c.roster(6), `"Serial":9`), key))},
		{"unknown name", ErrUnknownName, against(c.seal(rosterType, inject(t, c.roster(6), `"wipe":true`), key))},
		{"missing name", ErrMissingName, against(c.seal(rosterType, map[string]any{"owner": c.name()}, key))},
		{"too many signatures", ErrThreshold, against(&Envelope{rosterType, honest.Payload, make([]Signature, maxSignatures+1)})},
	}
	seen := make(map[string]int)
	for _, a := range attacks {
		wants(t, a.name, a.try(), a.want)
		seen[a.want.Error()]++
	}
	t.Logf("%d attacks, %d kinds: %v", len(attacks), len(seen), seen)
	if err := against(honest)(); err != nil {
		t.Error("the honest one:", err)
	}
}

// inject puts a member in front of a document's own.
func inject(t *testing.T, d Document, member string) []byte {
	t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("{"+member+","), b[1:]...)
}

// A stolen roster key signs the highest serial; the clinic takes the key away.
func TestFastForward(t *testing.T) {
	c := newClinic(t)
	stolen := c.keys[RoleRoster][0]
	last := c.roster(maxSerial)
	e := c.sign(last, stolen)
	if err := verifyRoster(e, c.trust(), State{}, start); err != nil {
		t.Fatal(err)
	}
	state := State{}.After(e, last)
	early := c.roster(1)
	early.RootVersion = 2 // signed ahead, for the root that will come
	ahead := c.sign(early, stolen)
	wants(t, "signed ahead", verifyRoster(ahead, c.trust(), state, start), ErrRootVersion)

	c.keys[RoleRoster] = c.keys[RoleRoster][1:]
	c.next(nil)
	wants(t, "stolen key after the new root", verifyRoster(ahead, c.trust(), state, start), ErrUnknownKey)
	wants(t, "what it had signed", verifyRoster(e, c.trust(), State{}, start), ErrUnknownKey)
	if err := verifyRoster(c.sign(c.roster(1), c.keys[RoleRoster][0]), c.trust(), state, start); err != nil {
		t.Error("serial 1 under root 2 does not supersede serial 2⁵³−1 under root 1:", err)
	}
}

// A document that is older than the root stays in force while its key does.
func TestNewRootKeepsDocuments(t *testing.T) {
	c := newClinic(t)
	r := c.roster(3)
	e := c.sign(r, c.keys[RoleRoster][1])
	c.next(nil)
	if err := verifyRoster(e, c.trust(), State{}.After(e, r), start); err != nil {
		t.Error(err)
	}
}

func TestThresholdCountsKeys(t *testing.T) {
	c := newClinic(t)
	c.next(func(r *OwnerRoot) {
		role := r.Roles[RoleRoster]
		role.Threshold = 2
		r.Roles[RoleRoster] = role
	})
	keys := c.keys[RoleRoster]
	wants(t, "one of two", verifyRoster(c.sign(c.roster(1), keys[0]), c.trust(), State{}, start), ErrThreshold)
	if err := verifyRoster(c.sign(c.roster(1), keys...), c.trust(), State{}, start); err != nil {
		t.Error(err)
	}
	e := c.sign(c.roster(1), keys[0])
	wants(t, "signing twice", e.Sign(keys[0]), ErrDuplicateKey)
}

func TestAttacksOnOwnerRoots(t *testing.T) {
	c := newClinic(t)
	old := slices.Clone(c.keys[RoleRoot])
	one := c.trust()
	rootType := TypeOwnerRoot.PayloadType()
	c.keys[RoleRoot] = []*PrivateKey{newKey(t), newKey(t), old[2]}
	fresh := c.keys[RoleRoot]
	next := func(change func(*OwnerRoot), keys ...*PrivateKey) func() error {
		r := c.draft()
		if change != nil {
			change(r)
		}
		e := c.seal(rootType, r, keys...)
		return func() error {
			_, err := one.Next(e, start)
			_, chained := VerifyOwnerRoot(c.name(), []*Envelope{c.chain[0], e}, start)
			if (err == nil) != (chained == nil) {
				t.Errorf("Next says %v, the chain says %v", err, chained)
			}
			return err
		}
	}
	both := []*PrivateKey{old[0], old[1], fresh[0], fresh[1]}
	attacks := []attack{
		{"new keys alone", ErrThreshold, next(nil, fresh[0], fresh[1])},
		{"old keys alone", ErrThreshold, next(nil, old[0], old[1])},
		{"one old key and all new", ErrThreshold, next(nil, old[0], fresh[0], fresh[1])},
		{"a server's key beside all", ErrUnknownKey, next(nil, append([]*PrivateKey{newKey(t)}, both...)...)},
		{"a roster key as root", ErrWrongRole, next(nil, append([]*PrivateKey{c.keys[RoleRoster][0]}, both...)...)},
		{"version left out", ErrBroken, next(func(r *OwnerRoot) { r.Version = 3 }, both...)},
		{"another clinic", ErrOtherClinic, next(func(r *OwnerRoot) { r.Owner = Hash{9} }, both...)},
		{"becomes a demonstration", ErrInvalid, next(func(r *OwnerRoot) { r.Demo = true }, both...)},
		{"same version, other content", ErrConflict, next(func(r *OwnerRoot) { r.Version, r.Owner = 1, Hash{} }, both...)},
		{"expired", ErrExpired, next(func(r *OwnerRoot) { r.Issued, r.Expires = start.AddDate(-1, 0, 0), start }, both...)},
		{"from the future", ErrNotYet, next(func(r *OwnerRoot) { r.Issued = start.AddDate(0, 1, 0) }, both...)},
		{"key twice in a role", ErrDuplicateKey, next(func(r *OwnerRoot) {
			k := fresh[0].Public()
			r.Roles[RoleRoot] = Role{Threshold: 2, Keys: []PublicKey{k, k}}
		}, old[0], old[1], fresh[0])},
		{"key in two roles", ErrDuplicateKey, next(func(r *OwnerRoot) {
			r.Roles[RoleConfig] = Role{Threshold: 1, Keys: []PublicKey{fresh[0].Public()}}
		}, both...)},
		{"threshold nobody can reach", ErrInvalid, next(func(r *OwnerRoot) {
			r.Roles[RoleConfig] = Role{Threshold: 2, Keys: r.Roles[RoleConfig].Keys}
		}, both...)},
		{"threshold of nobody", ErrInvalid, next(func(r *OwnerRoot) {
			r.Roles[RoleConfig] = Role{Threshold: 0, Keys: r.Roles[RoleConfig].Keys}
		}, both...)},
		{"role missing", ErrInvalid, next(func(r *OwnerRoot) { delete(r.Roles, RolePeople) }, both...)},
		{"another document as root", ErrPayloadType, func() error {
			_, err := one.Next(c.sign(c.roster(1), c.keys[RoleRoster][0]), start)
			return err
		}},
		{"chain of another clinic", ErrOtherClinic, func() error {
			_, err := VerifyOwnerRoot(c.name(), newClinic(t).chain, start)
			return err
		}},
		{"empty chain", ErrBroken, func() error {
			_, err := VerifyOwnerRoot(c.name(), nil, start)
			return err
		}},
		{"first root signed by one", ErrThreshold, func() error {
			d := newClinic(t)
			e := d.seal(rootType, d.roots[0], d.keys[RoleRoot][0])
			_, err := VerifyOwnerRoot(e.PayloadHash(), []*Envelope{e}, start)
			return err
		}},
	}
	seen := make(map[string]int)
	for _, a := range attacks {
		wants(t, a.name, a.try(), a.want)
		seen[a.want.Error()]++
	}
	t.Logf("%d attacks, %d kinds: %v", len(attacks), len(seen), seen)
	if err := next(nil, both...)(); err != nil {
		t.Error("the honest one:", err)
	}
	two, err := one.Next(c.seal(rootType, c.draft(), both...), start)
	if err != nil {
		t.Fatal(err)
	}
	_, err = two.Next(c.chain[0], start)
	wants(t, "back to the old root", err, ErrReplay)
	if again, err := one.Next(c.chain[0], start); err != nil || again != one {
		t.Error("the same root again:", err)
	}
}

// Links of a chain may have expired, its end may not.
func TestChainThroughExpiredRoots(t *testing.T) {
	c := newClinic(t)
	later := start.AddDate(3, 0, 0)
	_, err := VerifyOwnerRoot(c.name(), c.chain, later)
	wants(t, "alone", err, ErrExpired)
	c.next(func(r *OwnerRoot) { r.Issued, r.Expires = later, later.AddDate(1, 0, 0) })
	if _, err := VerifyOwnerRoot(c.name(), c.chain, later); err != nil {
		t.Error(err)
	}
}

// No change of one byte of an envelope is believed.
func TestEveryByteCounts(t *testing.T) {
	c := newClinic(t)
	trust := c.trust()
	e := c.sign(&Roster{Header: c.header(1), Devices: []Device{}}, c.keys[RoleRoster][0])
	tried := map[string]int{}
	flip := func(part string, b Bytes, step int) {
		for i := 0; i < len(b); i += step {
			b[i] ^= 1
			if verifyRoster(e, trust, State{}, start) == nil {
				t.Errorf("%s byte %d changed and believed", part, i)
			}
			b[i] ^= 1
			tried[part]++
		}
		if err := verifyRoster(e, trust, State{}, start); err != nil {
			t.Errorf("%s put back: %v", part, err)
		}
	}
	flip("payload", e.Payload, 1)
	flip("signature", e.Signatures[0].Sig, 7)
	flip("key id", e.Signatures[0].KeyID[:], 1)
	sig := e.Signatures[0].Sig
	for part, s := range map[string]Bytes{"cut": sig[:len(sig)-1], "longer": append(slices.Clone(sig), 0), "none": nil} {
		e.Signatures[0].Sig = s
		wants(t, part, verifyRoster(e, trust, State{}, start), ErrSignature)
	}
	t.Log(tried)
}

func TestSizes(t *testing.T) {
	k := newKey(t)
	e := &Envelope{PayloadType: "x", Payload: Bytes("y")}
	if err := e.Sign(k); err != nil {
		t.Fatal(err)
	}
	if len(k.Public()) != KeySize || len(e.Signatures[0].Sig) != SignatureSize {
		t.Errorf("key %d, signature %d bytes", len(k.Public()), len(e.Signatures[0].Sig))
	}
	again, err := PrivateKeyFromHandle(k.Handle())
	if err != nil || again.Public().ID() != k.Public().ID() {
		t.Error("key from its handle:", err)
	}
}

func TestOrder(t *testing.T) {
	list := []Order{{1, 1}, {1, 2}, {1, maxSerial}, {2, 1}, {3, 0}}
	for i, a := range list {
		for j, b := range list {
			if a.Less(b) != (i < j) {
				t.Errorf("%s < %s: %v", a, b, a.Less(b))
			}
		}
		if got, err := ParseOrder(a.String()); err != nil || got != a {
			t.Errorf("%s: %v %v", a, got, err)
		}
	}
	for _, s := range []string{"", "1", "1.", ".1", "1.1.1", "1.1 ", "+1.1", "01.1", "1.-1", "99999999999.1"} {
		if o, err := ParseOrder(s); err == nil {
			t.Errorf("%q read as %v", s, o)
		}
	}
}

func BenchmarkVerifyRoster(b *testing.B) {
	c := newClinic(b)
	trust := c.trust()
	e := c.sign(c.roster(1), c.keys[RoleRoster][0])
	for b.Loop() {
		if err := verifyRoster(e, trust, State{}, start); err != nil {
			b.Fatal(err)
		}
	}
}
