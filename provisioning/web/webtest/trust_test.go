package webtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
	"github.com/alcove-room/alcove/provisioning/document"
)

// trustVector is an answer to GET /v1/trust and what both sides make of it.
type trustVector struct {
	Name string `json:"name"`
	// Clinic is the hash in the link.
	Clinic string `json:"clinic"`
	// Now is the reader's clock, in milliseconds since 1970.
	Now int64 `json:"now"`
	// Parts is the answer with places in the file's list of envelopes instead of envelopes.
	Parts *parts `json:"parts,omitempty"`
	// Answer is set instead of Parts where the answer itself is malformed.
	Answer string `json:"answer,omitempty"`
	// Holds says whether the documents are to be believed.
	Holds bool `json:"holds"`
}

// proofVector is a room's proof.
type proofVector struct {
	D     hexBytes `json:"D"`
	K     hexBytes `json:"K"`
	Body  hexBytes `json:"body"`
	SPKI  hexBytes `json:"spki"`
	Label string   `json:"label"`
}

// parts has nil where the answer has null.
type parts struct {
	OwnerRoots []int `json:"owner_roots"`
	Roster     *int  `json:"roster"`
	People     *int  `json:"people"`
	Config     *int  `json:"config"`
}

type trustFile struct {
	Envelopes []json.RawMessage `json:"envelopes"`
	Trust     []trustVector     `json:"trust"`
	// Proof is made by the device of the first vector's roster.
	Proof proofVector `json:"proof"`
}

// answer is the body of GET /v1/trust.
type answer struct {
	OwnerRoots []*document.Envelope `json:"owner_roots"`
	Roster     *document.Envelope   `json:"roster"`
	People     *document.Envelope   `json:"people"`
	Config     *document.Envelope   `json:"config"`
}

func TestTrustVectors(t *testing.T) {
	path := filepath.FromSlash("../src/trust/testdata/trust.json")
	if *update {
		writeJSON(t, path, newClinic(t).file())
	}
	var file trustFile
	readJSON(t, path, &file)
	if len(file.Trust) < 20 {
		t.Fatalf("%d vectors", len(file.Trust))
	}
	for _, v := range file.Trust {
		err := believe(v, file.answer(t, v))
		if (err == nil) != v.Holds {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

// TestNamesAreCurrent fails when a document has gained or lost a name since the vectors were made: the page knows the
// names of the vectors and refuses others.
func TestNamesAreCurrent(t *testing.T) {
	var file trustFile
	readJSON(t, filepath.FromSlash("../src/trust/testdata/trust.json"), &file)
	var old answer
	if err := document.Decode(file.answer(t, file.Trust[0]), &old); err != nil {
		t.Fatal(err)
	}
	now := newClinic(t).honest()
	for i, pair := range [][2]*document.Envelope{{old.OwnerRoots[0], now.OwnerRoots[0]}, {old.Roster, now.Roster}, {old.People, now.People}, {old.Config, now.Config}} {
		if a, b := names(t, pair[0].Payload), names(t, pair[1].Payload); a != b {
			t.Errorf("document %d has the names\n%s\nthe vectors\n%s", i, b, a)
		}
	}
}

// names lists the paths of all names in a JSON document; names of roles stand for themselves.
func names(t *testing.T, payload []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(payload, &v); err != nil {
		t.Fatal(err)
	}
	// Marshal sorts the names of maps, and values do not matter.
	out, err := json.Marshal(blank(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func blank(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			v[k] = blank(x)
		}
		return v
	case []any:
		if len(v) == 0 {
			return v
		}
		return []any{blank(v[0])}
	}
	return nil
}

// believe judges an answer with the code that hub, room and tools use.
func believe(v trustVector, body []byte) error {
	var a answer
	if err := document.Decode(body, &a); err != nil {
		return err
	}
	if a.Roster == nil {
		return errors.New("no roster")
	}
	clinic, err := document.ParseHash(v.Clinic)
	if err != nil {
		return err
	}
	now := time.UnixMilli(v.Now)
	trust, err := document.VerifyOwnerRoot(clinic, a.OwnerRoots, now)
	if err != nil {
		return err
	}
	if _, err := document.Verify[document.Roster](a.Roster, trust, document.State{}, now); err != nil {
		return err
	}
	if a.Config == nil {
		return nil
	}
	_, err = document.Verify[document.Config](a.Config, trust, document.State{}, now)
	return err
}

// answer puts an answer together.
func (f *trustFile) answer(t *testing.T, v trustVector) []byte {
	t.Helper()
	if v.Parts == nil {
		return []byte(v.Answer)
	}
	at := func(i *int) json.RawMessage {
		if i == nil {
			return json.RawMessage("null")
		}
		return f.Envelopes[*i]
	}
	roots := []json.RawMessage{}
	for _, i := range v.Parts.OwnerRoots {
		roots = append(roots, at(&i))
	}
	body, err := json.Marshal(map[string]any{
		"owner_roots": roots, "roster": at(v.Parts.Roster), "people": at(v.Parts.People), "config": at(v.Parts.Config),
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// place is where the list holds e, after adding it if it is new.
func (f *trustFile) place(t *testing.T, e *document.Envelope) *int {
	t.Helper()
	if e == nil {
		return nil
	}
	encoded, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for i, have := range f.Envelopes {
		if string(have) == string(encoded) {
			return &i
		}
	}
	f.Envelopes = append(f.Envelopes, encoded)
	i := len(f.Envelopes) - 1
	return &i
}

// clinic makes documents.
type clinic struct {
	t       *testing.T
	now     time.Time
	roots   []*document.PrivateKey
	newRoot *document.PrivateKey
	roster  *document.PrivateKey
	people  *document.PrivateKey
	config  *document.PrivateKey
	device  *ecdsa.PrivateKey
	hash    document.Hash
	first   *document.Envelope
	signed  answer // the honest one, signed once
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	c := &clinic{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	c.roots = []*document.PrivateKey{c.key(), c.key()}
	c.newRoot, c.roster, c.people, c.config = c.key(), c.key(), c.key(), c.key()
	var err error
	if c.device, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	c.first = c.sign(c.root(1), c.roots...)
	c.hash = c.first.PayloadHash()
	c.signed = answer{
		OwnerRoots: []*document.Envelope{c.first},
		Roster:     c.sign(c.rosterDocument(), c.roster),
		People:     c.sign(c.peopleDocument(), c.people),
		Config:     c.sign(c.configDocument(), c.config),
	}
	return c
}

func (c *clinic) key() *document.PrivateKey {
	c.t.Helper()
	k, err := document.NewPrivateKey()
	if err != nil {
		c.t.Fatal(err)
	}
	return k
}

func (c *clinic) sign(d document.Document, keys ...*document.PrivateKey) *document.Envelope {
	c.t.Helper()
	e, err := document.Sign(d, keys...)
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

// raw signs bytes that document.Sign would not make.
func (c *clinic) raw(payloadType, payload string, keys ...*document.PrivateKey) *document.Envelope {
	c.t.Helper()
	e := &document.Envelope{PayloadType: payloadType, Payload: document.Bytes(payload), Signatures: []document.Signature{}}
	if err := e.Sign(keys...); err != nil {
		c.t.Fatal(err)
	}
	return e
}

func (c *clinic) root(version uint32) *document.OwnerRoot {
	role := func(threshold int, keys ...*document.PrivateKey) document.Role {
		r := document.Role{Threshold: threshold}
		for _, k := range keys {
			r.Keys = append(r.Keys, k.Public())
		}
		return r
	}
	d := &document.OwnerRoot{
		Version: version, Owner: c.hash, Demo: true, Clinic: "Praxis am Fluß",
		Roles: map[string]document.Role{
			document.RoleRoot: role(2, c.roots...), document.RoleRoster: role(1, c.roster),
			document.RolePeople: role(1, c.people), document.RoleConfig: role(1, c.config),
		},
		HubPins: []document.Hash{{1}}, RecoveryKeys: []document.Bytes{make(document.Bytes, 1216)},
		Issued: c.now.Add(-time.Hour), Expires: c.now.Add(365 * 24 * time.Hour),
	}
	if version == 1 {
		d.Owner = document.Hash{}
	}
	return d
}

func (c *clinic) header() document.Header {
	return document.Header{
		Owner: c.hash, RootVersion: 1, Serial: 3, Issued: c.now.Add(-time.Hour),
		Expires: c.now.Add(24 * time.Hour), Target: document.TargetAll,
	}
}

func (c *clinic) rosterDocument() *document.Roster {
	c.t.Helper()
	return &document.Roster{Header: c.header(), Devices: []document.Device{{
		ID: "room-1", Room: "blue", Label: "Blue room", TLSSPKI: c.spki(nil), SignSPKI: c.spki(c.device),
		KeyProtection: document.ProtectionHost, NotAfter: c.now.Add(12 * time.Hour),
	}}}
}

func (c *clinic) spki(k *ecdsa.PrivateKey) document.Bytes {
	c.t.Helper()
	if k == nil {
		var err error
		if k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			c.t.Fatal(err)
		}
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		c.t.Fatal(err)
	}
	return der
}

func (c *clinic) configDocument() *document.Config {
	return &document.Config{
		Header: c.header(), CallOrigin: "https://call.clinic.example",
		Video:  document.Video{Codecs: []string{"vp8"}, Width: 1280, Height: 720, FPS: 30, MaxBitrate: 2_000_000},
		Audio:  document.Audio{Bitrate: 32_000},
		Policy: document.Policy{MinAssurance: map[string]int{"therapist": 1, "patient": 1}},
		Crisis: document.Crisis{Line: "112"},
	}
}

func (c *clinic) peopleDocument() *document.People {
	return &document.People{Header: c.header(), Persons: []document.Person{{
		Pseudonym: "p-1", Roles: []string{"therapist"}, Credentials: []document.Credential{{
			ID: document.Bytes{1}, PublicKey: document.Bytes{2}, RPID: "call.clinic.example",
			AAGUID: make(document.Bytes, 16), NotAfter: c.now.Add(time.Hour),
		}},
	}}}
}

// honest is a copy that a test may change.
func (c *clinic) honest() answer {
	a := c.signed
	for _, e := range []**document.Envelope{&a.Roster, &a.People, &a.Config} {
		changeable := **e
		*e = &changeable
	}
	return a
}

// edit replaces text in a signed document and signs the result.
func (c *clinic) edit(e *document.Envelope, from, to string, keys ...*document.PrivateKey) *document.Envelope {
	c.t.Helper()
	payload := string(e.Payload)
	if !strings.Contains(payload, from) {
		c.t.Fatalf("%q is not in %s", from, payload)
	}
	return c.raw(e.PayloadType, strings.Replace(payload, from, to, 1), keys...)
}

func (c *clinic) file() *trustFile {
	c.t.Helper()
	f := &trustFile{Proof: c.proof()}
	c.vectors(f)
	return f
}

func (c *clinic) proof() proofVector {
	c.t.Helper()
	prove, err := agreement.DeviceProver(c.device)
	if err != nil {
		c.t.Fatal(err)
	}
	request := agreement.ProofRequest{D: agreement.D{7}, K: [32]byte{8}}
	proof, err := prove(request)
	if err != nil {
		c.t.Fatal(err)
	}
	return proofVector{
		D: request.D[:], K: request.K[:], Body: proof.Body, SPKI: hexBytes(c.spki(c.device)), Label: "Blue room",
	}
}

func (c *clinic) vectors(f *trustFile) {
	c.t.Helper()
	add := func(name string, holds bool, change func(*answer, *trustVector)) {
		a, v := c.honest(), trustVector{Name: name, Clinic: c.hash.String(), Now: c.now.UnixMilli(), Holds: holds}
		change(&a, &v)
		if v.Answer == "" {
			p := &parts{OwnerRoots: []int{}, Roster: f.place(c.t, a.Roster), People: f.place(c.t, a.People), Config: f.place(c.t, a.Config)}
			for _, e := range a.OwnerRoots {
				p.OwnerRoots = append(p.OwnerRoots, *f.place(c.t, e))
			}
			v.Parts = p
		}
		f.Trust = append(f.Trust, v)
	}
	add("honest", true, func(*answer, *trustVector) {})
	c.rootVectors(add)
	c.documentVectors(add)
	c.readerVectors(add)
}

type adder func(name string, holds bool, change func(*answer, *trustVector))

// second is a successor of the first root, signed by the given keys.
func (c *clinic) second(change func(*document.OwnerRoot), keys ...*document.PrivateKey) *document.Envelope {
	c.t.Helper()
	r := c.root(2)
	change(r)
	return c.sign(r, keys...)
}

func (c *clinic) rootVectors(add adder) {
	same := func(*document.OwnerRoot) {}
	rotated := func(r *document.OwnerRoot) {
		r.Roles[document.RoleRoot] = document.Role{Threshold: 1, Keys: []document.PublicKey{c.newRoot.Public()}}
	}
	roots := func(e ...*document.Envelope) func(*answer, *trustVector) {
		return func(a *answer, _ *trustVector) { a.OwnerRoots = e }
	}
	both := append([]*document.PrivateKey{c.newRoot}, c.roots...)
	add("no config, no people", true, func(a *answer, _ *trustVector) { a.Config, a.People = nil, nil })
	add("successor", true, roots(c.first, c.second(same, c.roots...)))
	add("successor with new keys", true, roots(c.first, c.second(rotated, both...)))
	add("no root", false, roots())
	add("link of another clinic", false, func(_ *answer, v *trustVector) { v.Clinic = strings.Repeat("ab", 32) })
	add("successor without the old keys", false, roots(c.first, c.second(rotated, c.newRoot)))
	add("successor without the new keys", false, roots(c.first, c.second(rotated, c.roots...)))
	add("successor with one of two signatures", false, roots(c.first, c.second(same, c.roots[0])))
	add("successor also signed by a stranger", false, roots(c.first, c.second(same, append(c.roots, c.key())...)))
	add("successor signed by another role", false, roots(c.first, c.second(same, c.roots[0], c.roster)))
	add("the second root alone", false, roots(c.second(same, c.roots...)))
	add("the first root twice", false, roots(c.first, c.first))
	add("a gap in the chain", false, roots(c.first, c.second(func(r *document.OwnerRoot) { r.Version = 3 }, c.roots...)))
	add("successor of another clinic", false, roots(c.first, c.second(func(r *document.OwnerRoot) { r.Owner = document.Hash{9} }, c.roots...)))
	add("a demonstration becomes a clinic", false, roots(c.first, c.second(func(r *document.OwnerRoot) { r.Demo = false }, c.roots...)))
	add("owner root expired", false, func(_ *answer, v *trustVector) { v.Now += 366 * 24 * 3600 * 1000 })
	add("owner root from the future", false, func(_ *answer, v *trustVector) { v.Now -= 26 * 3600 * 1000 })
	add("successor signed twice by one key", false, func(a *answer, _ *trustVector) {
		e := c.second(same, c.roots[0])
		e.Signatures = append(e.Signatures, e.Signatures[0])
		a.OwnerRoots = []*document.Envelope{c.first, e}
	})
	add("a key in two roles", false, func(a *answer, _ *trustVector) {
		text := func(k *document.PrivateKey) string {
			b, err := k.Public().MarshalText()
			if err != nil {
				c.t.Fatal(err)
			}
			return string(b)
		}
		e := c.edit(c.second(same, c.roots...), text(c.people), text(c.roster), c.roots...)
		a.OwnerRoots = []*document.Envelope{c.first, e}
	})
}

func (c *clinic) documentVectors(add adder) {
	roster := func(change func(*document.Roster), keys ...*document.PrivateKey) func(*answer, *trustVector) {
		return func(a *answer, _ *trustVector) {
			d := c.rosterDocument()
			change(d)
			a.Roster = c.sign(d, keys...)
		}
	}
	same := func(*document.Roster) {}
	add("roster signed by the config key", false, roster(same, c.config))
	add("roster signed by a stranger", false, roster(same, c.key()))
	add("roster without a signature", false, roster(same))
	add("roster of another clinic", false, roster(func(d *document.Roster) { d.Owner = document.Hash{3} }, c.roster))
	add("roster of an unknown root", false, roster(func(d *document.Roster) { d.RootVersion = 2 }, c.roster))
	add("roster expired", false, roster(func(d *document.Roster) { d.Expires = c.now }, c.roster))
	add("roster from the future", false, roster(func(d *document.Roster) {
		d.Issued, d.Expires = c.now.Add(25*time.Hour), c.now.Add(50*time.Hour)
	}, c.roster))
	add("an empty roster", true, roster(func(d *document.Roster) { d.Devices = []document.Device{} }, c.roster))
	add("roster changed after signing", false, func(a *answer, _ *trustVector) {
		a.Roster.Payload = document.Bytes(strings.Replace(string(a.Roster.Payload), "Blue", "Blau", 1))
	})
	add("config in the place of the roster", false, func(a *answer, _ *trustVector) { a.Roster = a.Config })
	add("roster's bytes under the type of a config", false, func(a *answer, _ *trustVector) {
		a.Config = c.raw(document.TypeConfig.PayloadType(), string(a.Roster.Payload), c.config)
	})
	add("config signed by the roster key", false, func(a *answer, _ *trustVector) { a.Config = c.sign(c.configDocument(), c.roster) })
	add("config for one room", true, func(a *answer, _ *trustVector) {
		d := c.configDocument()
		d.Target = "room-1"
		a.Config = c.sign(d, c.config)
	})
	add("no roster", false, func(a *answer, _ *trustVector) { a.Roster = nil })
}

// readerVectors are signed by the right key and spelled in ways in which two readers could differ.
func (c *clinic) readerVectors(add adder) {
	roster := c.signed.Roster
	edits := []struct{ name, from, to string }{
		{"a name twice", `"serial":3`, `"serial":3,"serial":4`},
		{"a name in two spellings", `"serial":3`, `"serial":3,"Serial":4`},
		{"a name in other capitals", `"serial":3`, `"Serial":3`},
		{"a name with an escape, twice", `"serial":3`, `"serial":3,"seri\u0061l":4`},
		{"a name with a long s", `"serial":3`, `"ſerial":3`},
		{"an unknown name", `"serial":3`, `"serial":3,"other":1`},
		{"a missing name", `"serial":3,`, ``},
		{"an unknown name in a device", `"room":"blue"`, `"room":"blue","other":1`},
		{"a device's name in other capitals", `"room":"blue"`, `"Room":"blue"`},
		{"null for a number", `"serial":3`, `"serial":null`},
		{"a fraction", `"serial":3`, `"serial":3.0`},
		{"an exponent", `"serial":3`, `"serial":3e0`},
		{"a negative serial", `"serial":3`, `"serial":-3`},
		{"serial 0", `"serial":3`, `"serial":0`},
		{"text for a number", `"serial":3`, `"serial":"3"`},
		{"something behind the document", `}]}`, `}]} {}`},
		{"a room's name with capitals", `"room":"blue"`, `"room":"Blue"`},
		{"a label that turns the writing direction", `Blue room`, "Blue\u202eroom"},
		{"a time with an offset", `T11:00:00Z`, `T11:00:00+02:00`},
		{"a time that does not exist", `-03-01T11:00:00Z`, `-02-30T11:00:00Z`},
		{"an unknown key protection", `"host"`, `"none"`},
		{"for one device", `"target":"all"`, `"target":"room-1"`},
	}
	for _, edit := range edits {
		add("roster with "+edit.name, false, func(a *answer, _ *trustVector) {
			a.Roster = c.edit(roster, edit.from, edit.to, c.roster)
		})
	}
	for _, edit := range []struct{ name, from, to string }{
		{"an unknown name", `{"owner_roots"`, `{"more":1,"owner_roots"`},
		{"a name twice", `{"owner_roots"`, `{"owner_roots":[],"owner_roots"`},
		{"padded base64", `"}]},"people"`, `="}]},"people"`},
		{"a name in other capitals", `"payloadType"`, `"PayloadType"`},
	} {
		add("answer with "+edit.name, false, func(a *answer, v *trustVector) {
			encoded, err := json.Marshal(a)
			if err != nil {
				c.t.Fatal(err)
			}
			changed := strings.Replace(string(encoded), edit.from, edit.to, 1)
			if changed == string(encoded) {
				c.t.Fatalf("%q is not in the answer", edit.from)
			}
			v.Answer = changed
		})
	}
}
