package agreement

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"os"
	"slices"
	"testing"
)

var updateVectors = flag.Bool("update", false, "write testdata/vectors.json anew")

const vectorFile = "testdata/vectors.json"

// vectors is the shared file of Go and TypeScript. All byte strings are lower-case hex.
type vectors struct {
	Note        string             `json:"note"`
	Hashes      []hashVector       `json:"hashes"`
	Formulas    formulaVectors     `json:"formulas"`
	Compare     []compareVector    `json:"compare"`
	Messages    []messageVector    `json:"messages"`
	Ed25519     signatureVector    `json:"ed25519"`
	XWing       sealVector         `json:"xwing"`
	DeviceProof proofVector        `json:"device_proof"`
	Keys        keyDerivation      `json:"keys"`
	Rounds      []transcriptVector `json:"rounds"`
	Pictures    []string           `json:"pictures"`
}

type hashVector struct {
	Label string   `json:"label"`
	Args  []string `json:"args"`
	Hash  string   `json:"hash"`
}

type formulaVectors struct {
	Clinic      string   `json:"clinic"`
	SID         string   `json:"sid"`
	T0          string   `json:"t0"`
	Documents   []string `json:"documents"`
	D           []string `json:"d"`
	EID         []string `json:"eid"`
	PrevT       string   `json:"prev_t"`
	Proposal    string   `json:"proposal_unsigned"`
	P           string   `json:"p"`
	Nonces      []string `json:"nonces"`
	Commits     []string `json:"commits"`
	K           string   `json:"k"`
	Levels      []uint8  `json:"levels"`
	T           string   `json:"t"`
	SealInfo    string   `json:"seal_info_from_0_to_1"`
	Secret      string   `json:"secret"`
	SecretHash  string   `json:"secret_hash"`
	DataGen     uint32   `json:"data_gen"`
	DataSeq     string   `json:"data_seq"`
	DataAAD     string   `json:"data_aad_from_0"`
	DeviceProof string   `json:"device_proof_digest_0"`
	DCH         string   `json:"dch"`
	Passkey     string   `json:"passkey_challenge_0"`
	OIDC        string   `json:"oidc_nonce_0"`
	AdmitHash   string   `json:"admit_hash"`
}

type compareVector struct {
	T        string `json:"t"`
	Code     string `json:"code"`
	Pictures [4]int `json:"pictures"`
	Digits   string `json:"digits"`
}

type messageVector struct {
	Name  string `json:"name"`
	Bytes string `json:"bytes"`
	Seed  string `json:"signer_seed"`
}

type signatureVector struct {
	Seed      string `json:"seed"`
	Public    string `json:"public"`
	Message   string `json:"message"`
	Signature string `json:"signature"`
}

type sealVector struct {
	Seed   string `json:"seed"`
	Public string `json:"public"`
	Info   string `json:"info"`
	Plain  string `json:"plain"`
	Sealed string `json:"sealed"`
}

type proofVector struct {
	SPKI     string `json:"spki"`
	SPKIHash string `json:"spki_sha256"`
	D        string `json:"d"`
	K        string `json:"k"`
	Proof    string `json:"proof"`
}

type keyDerivation struct {
	Secret  string `json:"secret"`
	Frame   string `json:"frame_aes128"`
	DataKey string `json:"data_aes256"`
}

// transcriptVector is a whole start, message by message in an order in which an end may get them. Every end can be
// replayed: its seeds give its keys, its salt its document, nonces and secrets what it drew.
type transcriptVector struct {
	Name     string       `json:"name"`
	Clinic   string       `json:"clinic"`
	SID      string       `json:"sid"`
	Members  []endVector  `json:"members"`
	Messages []wireVector `json:"messages"`
	Epochs   []epochEnd   `json:"epochs"`
}

type endVector struct {
	Role     uint8  `json:"role"`
	Name     string `json:"name"`
	SigSeed  string `json:"sig_seed"`
	KEMSeed  string `json:"kem_seed"`
	Salt     string `json:"salt"`
	Document string `json:"document"`
	D        string `json:"d"`
	EID      string `json:"eid"`
	// Draws are the 32-byte values drawn after keys and salt, in order: nonces and secrets.
	Draws []string `json:"draws"`
}

type wireVector struct {
	At    int64  `json:"at_ms"`
	From  int    `json:"from"`
	Label string `json:"label"`
	Bytes string `json:"bytes"`
}

type epochEnd struct {
	Number   uint32            `json:"number"`
	PrevT    string            `json:"prev_t"`
	P        string            `json:"p"`
	K        string            `json:"k"`
	T        string            `json:"t"`
	Code     string            `json:"code"`
	Pictures [4]int            `json:"pictures"`
	Digits   string            `json:"digits"`
	D        []string          `json:"d"`
	Secrets  map[string]string `json:"secrets_by_d"`
}

func hx(b []byte) string { return hex.EncodeToString(b) }

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fill(label string) [32]byte { return sha256.Sum256([]byte("alcove vector " + label)) }

// stream is a fixed random source that remembers what was drawn.
type stream struct {
	name  string
	n     uint64
	draws [][]byte
}

func (s *stream) Read(p []byte) (int, error) {
	var out []byte
	for len(out) < len(p) {
		b := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(s.name), s.n))
		out = append(out, b[:]...)
		s.n++
	}
	copy(p, out)
	s.draws = append(s.draws, bytes.Clone(p))
	return len(p), nil
}

func makeVectors(t *testing.T) vectors {
	v := vectors{
		Note:     "Generated by daemon/e2ee/agreement (go test -run TestVectors -update). Formats are released: values of one label never change.",
		Pictures: Pictures[:],
	}
	for _, h := range []struct {
		label string
		args  [][]byte
	}{{"alcove/test/v1", nil}, {"alcove/test/v1", [][]byte{nil}}, {"alcove/test/v1", [][]byte{[]byte("ab"), []byte("c")}}, {"alcove/test/v1", [][]byte{[]byte("a"), []byte("bc")}}} {
		x := hash(h.label, h.args...)
		hv := hashVector{Label: h.label, Hash: hx(x[:]), Args: []string{}}
		for _, a := range h.args {
			hv.Args = append(hv.Args, hx(a))
		}
		v.Hashes = append(v.Hashes, hv)
	}
	two := recordRound(t, "two", RolePatient)
	three := recordRound(t, "three", RoleTherapist, RolePatient)
	v.Rounds = []transcriptVector{two, three}
	v.formulas(t)
	for _, s := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		T := T(fill("T " + s))
		v.Compare = append(v.Compare, compareVector{T: hx(T[:]), Code: Code(T), Pictures: ChoosePictures(T), Digits: Digits(T)})
	}
	v.messages(t)
	v.primitives(t)
	return v
}

// formulas takes documents of the recorded round and fixed values for the rest.
func (v *vectors) formulas(t *testing.T) {
	r := v.Rounds[1]
	f := &v.Formulas
	clinic, nonces := unhex(t, r.Clinic), [][32]byte{fill("nonce 0"), fill("nonce 1")}
	f.Clinic, f.SID = r.Clinic, r.SID
	t0 := firstTranscript([32]byte(clinic), [16]byte(unhex(t, r.SID)))
	prev := T(fill("prev"))
	f.T0, f.PrevT = hx(t0[:]), hx(prev[:])
	var ds []D
	for _, m := range r.Members[:2] {
		d := HashDocument(unhex(t, m.Document))
		ds = append(ds, d)
		f.Documents, f.D, f.EID = append(f.Documents, m.Document), append(f.D, hx(d[:])), append(f.EID, d.EID())
	}
	sorted := slices.Clone(ds)
	slices.SortFunc(sorted, compareD)
	body := proposal{prev: prev, list: sorted}.encode()
	unsigned := encodeMessage(labelPropose, [16]byte(unhex(t, r.SID)), 7, ds[0], body)
	p := proposeHash(unsigned)
	f.Proposal, f.P = hx(unsigned), hx(p[:])
	var cs [][32]byte
	for i, d := range sorted {
		c := commitHash(p, d, nonces[i])
		cs = append(cs, c)
		f.Nonces, f.Commits = append(f.Nonces, hx(nonces[i][:])), append(f.Commits, hx(c[:]))
	}
	k := commitSetHash(p, cs)
	f.K, f.Levels = hx(k[:]), []uint8{3, 1}
	T := transcriptHash(prev, p, k, nonces, f.Levels)
	f.T = hx(T[:])
	f.SealInfo = hx(sealInfo(T, ds[0], ds[1]))
	secret := Secret(fill("secret"))
	sh := secretHash(secret)
	f.Secret, f.SecretHash = hx(secret[:]), hx(sh[:])
	f.DataGen, f.DataSeq, f.DataAAD = 258, "72623859790382856", hx(DataAAD(T, ds[0], 258, 0x0102030405060708))
	digest := DeviceProofDigest(ds[0], k)
	dch := fill("dch")
	pass, oidc := PasskeyChallenge(ds[0], dch), OIDCNonce(ds[0], dch)
	f.DeviceProof, f.DCH, f.Passkey, f.OIDC = hx(digest[:]), hx(dch[:]), hx(pass[:]), hx(oidc[:])
	admit := hash(labelAdmit, encodeStatement(statement{label: labelAdmit, sid: [16]byte(unhex(t, r.SID)), t: prev, d: ds[1], role: RolePatient, local: true}))
	f.AdmitHash = hx(admit[:])
}

// messages encodes one of every kind with a fixed key.
func (v *vectors) messages(t *testing.T) {
	own, err := newOwnKeys(&stream{name: "messages"})
	if err != nil {
		t.Fatal(err)
	}
	first := &stream{name: "messages"}
	seed := make([]byte, 32)
	_, _ = io.ReadFull(first, seed)
	sid := [16]byte(unhex(t, v.Formulas.SID))
	from, other, T := D(unhex(t, v.Formulas.D[0])), D(unhex(t, v.Formulas.D[1])), T(unhex(t, v.Formulas.T))
	sign := func(b []byte) []byte {
		sig, err := own.signer.Sign(b)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	add := func(name string, raw []byte) {
		v.Messages = append(v.Messages, messageVector{Name: name, Bytes: hx(raw), Seed: hx(seed)})
	}
	message := func(label string, number uint32, body []byte) {
		b := encodeMessage(label, sid, number, from, body)
		add(label, append(b, sign(b)...))
	}
	said := func(s statement) []byte {
		s.sid, s.signer = sid, from
		body := encodeStatement(s)
		return append(append(bytes.Clone(body), from[:]...), sign(body)...)
	}
	list := []D{from, other}
	slices.SortFunc(list, compareD)
	admit, err := parseStatement(said(statement{label: labelAdmit, t: T, d: other, role: RolePatient, local: true}))
	if err != nil {
		t.Fatal(err)
	}
	proof := Proof{Kind: KindHub, Level: LevelServer}
	message(labelPropose, 7, proposal{prev: T, list: list, admits: []statement{admit}, flags: flagCheck}.encode())
	message(labelCommit, 7, commit{p: fill("P"), c: fill("c")}.encode())
	message(labelReveal, 7, reveal{p: fill("P"), k: fill("K"), doc: unhex(t, v.Formulas.Documents[0]), proof: proof.encode(), nonce: fill("nonce")}.encode())
	message(labelKeys, 7, keysBody{t: T, gen: 17, idx: 1, secret: fill("h"), boxes: []sealedFor{{to: other, box: bytes.Repeat([]byte{0xA5}, sealedSize)}}}.encode())
	message(labelReady, 7, readyBody{t: T, gens: []uint32{17, 3}}.encode())
	message(labelAlive, 7, aliveBody{t: T, n: 258, time: 1 << 40}.encode())
	message(labelChallenge, 0, challengeBody{d: other, dch: fill("dch"), expiry: 121_000}.encode())
	message(labelEnd, 7, []byte{byte(ReasonDifferent)})
	add(labelAdmit, admit.raw)
	add(labelRemove, said(statement{label: labelRemove, t: T, d: other, role: RolePatient}))
	add(labelCheck, said(statement{label: labelCheck, t: T}))
	add(labelCompared, said(statement{label: labelCompared, t: T, d: other}))
	add(labelAgree, said(statement{label: labelAgree, ref: admit.hash(), answer: true}))
}

func (v *vectors) primitives(t *testing.T) {
	own, err := newOwnKeys(&stream{name: "primitives"})
	if err != nil {
		t.Fatal(err)
	}
	draws := &stream{name: "primitives"}
	var seeds [2][32]byte
	for i := range seeds {
		_, _ = io.ReadFull(draws, seeds[i][:])
	}
	msg := preimage("alcove/test/v1", []byte("signed"))
	sig, err := own.signer.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	v.Ed25519 = signatureVector{Seed: hx(seeds[0][:]), Public: hx(own.sigPub[:]), Message: hx(msg), Signature: hx(sig)}
	peer, err := newPeerKeys(Document{KEMPub: own.kemPub, SigPub: own.sigPub})
	if err != nil {
		t.Fatal(err)
	}
	secret := Secret(fill("secret"))
	plain := append(u32(17), secret[:]...)
	info := unhex(t, v.Formulas.SealInfo)
	box, err := peer.sealer.Encrypt(plain, info)
	if err != nil {
		t.Fatal(err)
	}
	v.XWing = sealVector{Seed: hx(seeds[1][:]), Public: hx(own.kemPub), Info: hx(info), Plain: hx(plain), Sealed: hx(box)}
	prove, err := DeviceProver(testIdentity)
	if err != nil {
		t.Fatal(err)
	}
	d, k := D(unhex(t, v.Formulas.D[0])), [32]byte(unhex(t, v.Formulas.K))
	proof, err := prove(ProofRequest{D: d, K: k})
	if err != nil {
		t.Fatal(err)
	}
	h := spkiHash(t, testIdentity)
	r := &reader{b: proof.Body}
	v.DeviceProof = proofVector{SPKI: hx(r.lp(91)), SPKIHash: hx(h[:]), D: hx(d[:]), K: hx(k[:]), Proof: hx(proof.encode())}
	v.Keys = keyDerivation{
		Secret: hx(secret[:]),
		Frame:  hx(hkdfSHA256(t, secret[:], "LKFrameEncryptionKey", make([]byte, 128), 16)), DataKey: hx(hkdfSHA256(t, secret[:], labelData, nil, 32)),
	}
}

// recordRound starts a session with fixed keys, nonces and secrets and keeps everything that was sent.
func recordRound(t *testing.T, name string, roles ...Role) transcriptVector {
	w := newWorld(t, 1)
	w.clinic = fill("clinic " + name)
	s := fill("sid " + name)
	copy(w.sid[:], s[:16])
	v := transcriptVector{Name: name, Clinic: hx(w.clinic[:]), SID: hx(w.sid[:])}
	var streams []*stream
	for i, role := range append([]Role{RoleDevice}, roles...) {
		src := &stream{name: name + string(rune('0'+i))}
		cfg := w.config(role, []string{"Room 1", "Zoë", "Maria"}[i])
		e, err := newEndpoint(cfg, src)
		if err != nil {
			t.Fatal(err)
		}
		n := &node{w: w, i: i, e: e, recv: map[D]map[uint32]Secret{}, gens: map[D]uint32{}, dropped: map[D]Reason{}, inV: map[D]D{}}
		w.nodes = append(w.nodes, n)
		streams = append(streams, src)
	}
	seen := map[string]bool{}
	var epochs []*epochEnd
	w.lie = func(from, to *node, msg []byte) [][]byte {
		if !seen[string(msg)] {
			seen[string(msg)] = true
			v.Messages = append(v.Messages, wireVector{At: int64(w.now), From: from.i, Label: peekLabel(msg), Bytes: hx(msg)})
			if m, err := parseMessage(msg); err == nil && m.label == labelReveal && from.i == 0 {
				r, _ := parseReveal(m.body)
				epochs = append(epochs, &epochEnd{Number: m.e, P: hx(r.p[:]), K: hx(r.k[:]), Secrets: map[string]string{}})
			}
		}
		return [][]byte{msg}
	}
	for i, role := range roles {
		w.nodes[0].do(w.nodes[0].e.Admit(w.now, w.nodes[i+1].e.D(), role))
		w.run(2500)
		w.settled(w.nodes[:i+2]...)
		x := epochs[i]
		c := w.nodes[0].e.cur
		x.PrevT, x.T, x.Code, x.Pictures, x.Digits = hx(c.prev[:]), hx(c.t[:]), Code(c.t), ChoosePictures(c.t), Digits(c.t)
		for _, d := range c.list {
			x.D = append(x.D, hx(d[:]))
		}
		for _, n := range w.nodes[:i+2] {
			x.Secrets[hx(n.e.self[:])] = hx(n.key.Secret[:])
		}
		v.Epochs = append(v.Epochs, *x)
	}
	for i, n := range w.nodes {
		d := streams[i].draws
		end := endVector{Role: uint8(n.e.cfg.Role), Name: n.e.cfg.Name, SigSeed: hx(d[0]), KEMSeed: hx(d[1]), Salt: hx(d[2]), Document: hx(n.e.doc), D: n.e.self.String(), EID: n.e.EID()}
		for _, x := range d[3:] {
			end.Draws = append(end.Draws, hx(x))
		}
		v.Members = append(v.Members, end)
	}
	return v
}

func TestVectors(t *testing.T) {
	if *updateVectors {
		b, err := json.MarshalIndent(makeVectors(t), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var have vectors
	if err := json.Unmarshal(b, &have); err != nil {
		t.Fatal(err)
	}
	compareFixed(t, have)
	for _, r := range have.Rounds {
		t.Run("round "+r.Name, func(t *testing.T) { replayRound(t, r) })
	}
}

// compareFixed makes again what is the same every time; what is random by nature (sealed boxes, ECDSA) is opened and
// verified instead.
func compareFixed(t *testing.T, have vectors) {
	want := vectors{Rounds: have.Rounds}
	want.formulas(t)
	want.messages(t)
	want.primitives(t)
	fresh := makeVectors(t)
	same := func(what string, a, b any) {
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		if !bytes.Equal(x, y) {
			t.Errorf("%s differ:\n%s\n%s", what, x, y)
		}
	}
	same("hashes", have.Hashes, fresh.Hashes)
	same("formulas", have.Formulas, want.Formulas)
	same("codes", have.Compare, fresh.Compare)
	same("messages", have.Messages, want.Messages)
	same("signatures", have.Ed25519, want.Ed25519)
	same("derived keys", have.Keys, want.Keys)
	same("pictures", have.Pictures, fresh.Pictures)
	own := &ownKeys{}
	if err := own.makeOpener(unhex(t, have.XWing.Seed)); err != nil {
		t.Fatal(err)
	}
	plain, err := own.opener.Decrypt(unhex(t, have.XWing.Sealed), unhex(t, have.XWing.Info))
	if err != nil || hx(plain) != have.XWing.Plain || hx(own.kemPub) != have.XWing.Public {
		t.Errorf("X-Wing box: %v", err)
	}
	proof, err := ParseProof(unhex(t, have.DeviceProof.Proof))
	if err != nil {
		t.Fatal(err)
	}
	h, err := verifyDeviceProof(Claim{D: D(unhex(t, have.DeviceProof.D)), K: [32]byte(unhex(t, have.DeviceProof.K)), Proof: proof})
	if err != nil || hx(h[:]) != have.DeviceProof.SPKIHash {
		t.Errorf("device proof: %v", err)
	}
}

// fixed gives an end the draws that the file says.
type fixed struct{ left []string }

func (f *fixed) Read(p []byte) (int, error) {
	if len(f.left) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	b, err := hex.DecodeString(f.left[0])
	if err != nil || len(b) != len(p) {
		return 0, io.ErrUnexpectedEOF
	}
	f.left = f.left[1:]
	return copy(p, b), nil
}

// replayRound is what a port does: give every end but S the others' messages, in order, and see the same epochs come
// into force, the same messages go out (boxes are random: those are opened) and the same secrets come in.
func replayRound(t *testing.T, r transcriptVector) {
	for i, m := range r.Members[1:] {
		w := newWorld(t, 1)
		copy(w.clinic[:], unhex(t, r.Clinic))
		copy(w.sid[:], unhex(t, r.SID))
		cfg := w.config(Role(m.Role), m.Name)
		cfg.Verify = func(c Claim) (uint8, error) {
			if c.Proof.Kind != KindDevice {
				return LevelServer, nil
			}
			_, err := verifyDeviceProof(c)
			return LevelClinic, err
		}
		e, err := newEndpoint(cfg, &fixed{left: append([]string{m.SigSeed, m.KEMSeed, m.Salt}, m.Draws...)})
		if err != nil || hx(e.Document()) != m.Document || e.D().String() != m.D || e.EID() != m.EID {
			t.Fatalf("member %d: document: %v", i+1, err)
		}
		var sent []string
		var epochs []Epoch
		secrets := map[string]string{}
		take := func(out []Effect) {
			for _, x := range out {
				switch x := x.(type) {
				case Send:
					if l := peekLabel(x.Message); l == labelCommit {
						sent = append(sent, hx(x.Message))
					}
				case Epoch:
					epochs = append(epochs, x)
					secrets = map[string]string{}
				case RecvKey:
					secrets[x.D.String()] = hx(x.Secret[:])
				case Failed:
					t.Fatalf("member %d failed: %v", i+1, x.Reason)
				}
			}
		}
		for _, msg := range r.Messages {
			take(e.Tick(Millis(msg.At)))
			if msg.From != i+1 {
				take(e.Handle(Millis(msg.At), unhex(t, msg.Bytes)))
			} else if msg.Label == labelCommit && !slices.Contains(sent, msg.Bytes) {
				t.Fatalf("member %d: another commit than recorded", i+1)
			}
		}
		last := r.Epochs[len(r.Epochs)-1]
		got := epochs[len(epochs)-1]
		if got.T.String() != last.T || got.Code != last.Code || got.Pictures != last.Pictures || got.Digits != last.Digits {
			t.Fatalf("member %d: T %s, want %s", i+1, got.T, last.T)
		}
		for d, s := range last.Secrets {
			if d != m.D && secrets[d] != s {
				t.Fatalf("member %d: secret of %s: %q, want %q", i+1, d, secrets[d], s)
			}
		}
	}
}
