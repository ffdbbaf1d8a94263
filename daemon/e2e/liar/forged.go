package liar

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"encoding/binary"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// Forged is an endpoint of the attacker's that does not keep to the rules: a newcomer who may tell each end something
// else, under valid signatures. It is written after the package comment of daemon/e2ee/agreement alone.
type Forged struct {
	run  *Run
	sign ed25519.PrivateKey
	kem  hpke.PrivateKey
	doc  []byte
	d    agreement.D
	ways []Way // to whom it speaks

	// commit, nonce and secret are what an end is told; nil is the same for all.
	commit func(Way, [32]byte) [32]byte
	nonce  func(*Forged, [32]byte) [32]byte // called when all others have revealed: what it reveals in the end
	secret func(Way, [32]byte) [32]byte
	draw   func(*Forged) [32]byte // the nonce that it commits to
	also   func(raw []byte)       // who hears what it says besides

	propose Message
	list    []agreement.D
	p       [32]byte
	prev    agreement.T
	own     [32]byte
	commits map[Way]map[agreement.D][32]byte
	reveals map[agreement.D]reveal
	shown   bool
	t       map[Way]agreement.T
	keyed   bool
	opened  int // boxes of others that it could open
}

// forge makes a newcomer with the given role in its document.
func (r *Run) newForged(role byte, name string, ways ...Way) *Forged {
	f := &Forged{run: r, ways: ways, t: make(map[Way]agreement.T)}
	var err error
	var pub ed25519.PublicKey
	if pub, f.sign, err = ed25519.GenerateKey(rand.Reader); err == nil {
		f.kem, err = hpke.MLKEM768X25519().GenerateKey()
	}
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	sid := parseSID(r.sid)
	doc := lp(nil, []byte("alcove/doc/v1"))
	doc = append(append(doc, r.clinic.hash[:]...), sid[:]...)
	salt := random32()
	doc = append(append(doc, salt[:]...), role)
	doc = append(lp(doc, f.kem.PublicKey().Bytes()), pub...)
	f.doc = lp(doc, []byte(name))
	f.d = agreement.D(hash("dochash", f.doc))
	return f
}

func random32() (b [32]byte) {
	_, _ = rand.Read(b[:]) // it does not fail
	return b
}

func (f *Forged) say(way Way, raw []byte) {
	f.run.tell(way, raw)
	if f.also != nil {
		f.also(raw)
	}
}

func (f *Forged) message(kind string, e uint32, body []byte) []byte {
	m := Message{Kind: kind, SID: parseSID(f.run.sid), E: e, From: f.d, Body: body}
	m.Sig = ed25519.Sign(f.sign, m.unsigned())
	return m.write()
}

// hear takes what came on a way's end: HubToRoom stands for what the room would be told.
func (f *Forged) hear(m Message) {
	switch m.Kind {
	case "propose":
		f.onPropose(m)
	case "commit":
		if f.commits == nil || [32]byte(m.Body[:32]) != f.p {
			return
		}
		for _, way := range f.ways {
			f.commits[way][m.From] = [32]byte(m.Body[32:64])
		}
		f.reveal()
	case "reveal":
		if v, ok := readReveal(m.Body); ok && f.reveals != nil && v.p == f.p {
			f.reveals[m.From] = v
			f.reveal()
			f.finish()
		}
	case "alive":
		f.finish()
		f.sendKeys()
	case "keys":
		f.open(m)
	}
}

func (f *Forged) onPropose(m Message) {
	p, ok := readProposal(m.Body)
	if !ok || !contains(p.list, f.d) || bytes.Equal(m.Raw, f.propose.Raw) {
		return
	}
	f.propose, f.list, f.prev, f.shown, f.keyed = m, p.list, p.prev, false, false
	f.p = hash("propose", m.unsigned())
	f.own = random32()
	if f.draw != nil {
		f.own = f.draw(f)
	}
	f.t = make(map[Way]agreement.T)
	f.commits, f.reveals = make(map[Way]map[agreement.D][32]byte), make(map[agreement.D]reveal)
	for _, way := range f.ways {
		c := hash("commit", f.p[:], f.d[:], f.own[:])
		if f.commit != nil {
			c = f.commit(way, c)
		}
		f.commits[way] = map[agreement.D][32]byte{f.d: c}
		f.say(way, f.message("commit", m.E, append(bytes.Clone(f.p[:]), c[:]...)))
	}
}

func contains(list []agreement.D, d agreement.D) bool {
	for _, x := range list {
		if x == d {
			return true
		}
	}
	return false
}

// k is the hash of the commitments as the end of way has them.
func (f *Forged) k(way Way) (k [32]byte, ok bool) {
	xs := [][]byte{f.p[:]}
	for _, d := range f.list {
		c, ok := f.commits[way][d]
		if !ok {
			return k, false
		}
		xs = append(xs, c[:])
	}
	return hash("commitset", xs...), true
}

// reveal opens the commitment; with a choice of nonces only when all others have shown theirs.
func (f *Forged) reveal() {
	if f.shown || f.reveals == nil || (f.nonce != nil && len(f.reveals) < len(f.list)-1) {
		return
	}
	if _, ok := f.k(f.ways[0]); !ok {
		return
	}
	f.shown = true
	shown := f.own
	if f.nonce != nil {
		shown = f.nonce(f, f.own)
	}
	if shown == [32]byte{} {
		return // it says nothing
	}
	for _, way := range f.ways {
		k, _ := f.k(way)
		v := reveal{p: f.p, k: k, doc: f.doc, proof: lp([]byte{byte(agreement.KindHub), agreement.LevelServer}, nil), nonce: shown}
		f.reveals[f.d] = v
		f.say(way, f.message("reveal", f.propose.E, v.write()))
	}
}

// transcript is T as the end of way would have it with this nonce of ours.
func (f *Forged) transcript(way Way, nonce [32]byte, levels func(agreement.D) byte) agreement.T {
	k, _ := f.k(way)
	xs := [][]byte{f.prev[:], f.p[:], k[:]}
	for _, d := range f.list {
		n := f.reveals[d].nonce
		if d == f.d {
			n = nonce
		}
		xs = append(xs, bytes.Clone(n[:]))
	}
	for _, d := range f.list {
		xs = append(xs, []byte{levels(d)})
	}
	return agreement.T(hash("transcript", xs...))
}

// level is what stands in a member's proof.
func (f *Forged) level(d agreement.D) byte {
	if d == f.d {
		return agreement.LevelServer
	}
	return f.reveals[d].proof[1]
}

func (f *Forged) finish() {
	if f.reveals == nil || len(f.reveals) < len(f.list) || len(f.t) > 0 {
		return
	}
	for _, way := range f.ways {
		f.t[way] = f.transcript(way, f.reveals[f.d].nonce, f.level)
	}
}

// sendKeys makes one generation and tells each end what secret says.
func (f *Forged) sendKeys() {
	if f.keyed || len(f.t) == 0 {
		return
	}
	f.keyed = true
	s := random32()
	h := hash("secret", s[:])
	for _, way := range f.ways {
		own := s
		if f.secret != nil {
			own = f.secret(way, s)
		}
		t := f.t[way]
		body := binary.BigEndian.AppendUint32(bytes.Clone(t[:]), 1)
		body = append(append(body, 1), h[:]...)
		for _, d := range f.list {
			if d == f.d {
				continue
			}
			box := f.seal(t, d, append(binary.BigEndian.AppendUint32(nil, 1), own[:]...))
			body = lp(append(body, d[:]...), box)
		}
		f.say(way, f.message("keys", f.propose.E, body))
	}
}

func (f *Forged) seal(t agreement.T, to agreement.D, plain []byte) []byte {
	doc, err := agreement.ParseDocument(f.reveals[to].doc)
	if err != nil {
		return nil
	}
	pub, err := hpke.MLKEM768X25519().NewPublicKey(doc.KEMPub)
	if err != nil {
		return nil
	}
	info := hash("seal", t[:], f.d[:], to[:])
	box, err := hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), info[:], plain)
	if err != nil {
		return nil
	}
	return box
}

// open tries this endpoint's key on every box of somebody's keys.
func (f *Forged) open(m Message) {
	if len(m.Body) < 69 {
		return
	}
	t, b := agreement.T(m.Body[:32]), m.Body[69:]
	for len(b) > 36 {
		n := int(binary.BigEndian.Uint32(b[32:]))
		if len(b) < 36+n {
			return
		}
		info := hash("seal", t[:], m.From[:], f.d[:])
		if _, err := hpke.Open(f.kem, hpke.HKDFSHA256(), hpke.AES256GCM(), info[:], b[36:36+n]); err == nil {
			f.opened++
		}
		b = b[36+n:]
	}
}
