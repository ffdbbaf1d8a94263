package agreement

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Sizes of the suite and bounds of the format.
const (
	kemPubSize   = 1216
	signatureLen = 64
	sealedSize   = 1120 + 36 + 16 // enc, u32 gen || secret, tag
	maxName      = 64
	maxProofBody = 16 << 10
	flagCheck    = 1
)

var errMalformed = errors.New("malformed message")

// reader takes fixed pieces from the front; the first shortage sticks.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || len(r.b) < n {
		r.bad = true
		return nil
	}
	x := r.b[:n:n]
	r.b = r.b[n:]
	return x
}

func (r *reader) u8() uint8 {
	if x := r.take(1); x != nil {
		return x[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if x := r.take(4); x != nil {
		return binary.BigEndian.Uint32(x)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if x := r.take(8); x != nil {
		return binary.BigEndian.Uint64(x)
	}
	return 0
}

func (r *reader) b32() (out [32]byte) {
	copy(out[:], r.take(32))
	return out
}

func (r *reader) lp(limit int) []byte {
	n := r.u32()
	if r.bad || int64(n) > int64(limit) {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

// end reports whether everything was there and nothing is left.
func (r *reader) end() error {
	if r.bad || len(r.b) != 0 {
		return errMalformed
	}
	return nil
}

func validName(s string) bool {
	if len(s) > maxName || !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		switch {
		case c < 0x20, c >= 0x7f && c <= 0x9f, c == 0x200e, c == 0x200f, c >= 0x2028 && c <= 0x202e,
			c >= 0x2066 && c <= 0x2069, c == 0xfeff:
			return false
		}
	}
	return true
}

// encode is the document's bytes; it does not judge them.
func (d Document) encode() []byte {
	b := appendLabel(nil, labelDoc)
	b = append(b, d.Clinic[:]...)
	b = append(b, d.SID[:]...)
	b = append(b, d.Salt[:]...)
	b = append(b, byte(d.Role))
	b = appendLP(b, d.KEMPub)
	b = append(b, d.SigPub[:]...)
	return appendLP(b, []byte(d.Display))
}

// ParseDocument reads an endpoint document.
func ParseDocument(b []byte) (Document, error) {
	r := &reader{b: b}
	if string(r.lp(len(labelDoc))) != labelDoc {
		return Document{}, fmt.Errorf("endpoint document: %w", errMalformed)
	}
	d := Document{Clinic: r.b32()}
	copy(d.SID[:], r.take(16))
	d.Salt = r.b32()
	d.Role = Role(r.u8())
	d.KEMPub = append([]byte(nil), r.lp(kemPubSize)...)
	d.SigPub = r.b32()
	d.Display = string(r.lp(maxName))
	if err := r.end(); err != nil || len(d.KEMPub) != kemPubSize || !d.Role.valid() || !validName(d.Display) {
		return Document{}, fmt.Errorf("endpoint document: %w", errMalformed)
	}
	return d, nil
}

func (p Proof) encode() []byte {
	return appendLP([]byte{byte(p.Kind), p.Level}, p.Body)
}

// levelOf is the one level that a proof of this kind claims.
func levelOf(k Kind) (uint8, bool) {
	switch k {
	case KindDevice, KindPasskey:
		return LevelClinic, true
	case KindOIDC:
		return LevelOIDC, true
	case KindHub:
		return LevelServer, true
	}
	return 0, false
}

// ParseProof reads a proof and refuses a level that its kind does not have.
func ParseProof(b []byte) (Proof, error) {
	r := &reader{b: b}
	p := Proof{Kind: Kind(r.u8()), Level: r.u8()}
	p.Body = append([]byte(nil), r.lp(maxProofBody)...)
	level, known := levelOf(p.Kind)
	if err := r.end(); err != nil || !known || level != p.Level || (p.Kind == KindHub && len(p.Body) != 0) {
		return Proof{}, fmt.Errorf("proof: %w", errMalformed)
	}
	return p, nil
}

// message is the frame of everything but statements. raw is as received, unsigned all of it before the signature.
type message struct {
	label    string
	sid      [16]byte
	e        uint32
	from     D
	body     []byte
	raw      []byte
	unsigned []byte
	sig      []byte
}

func isMessageLabel(l string) bool {
	switch l {
	case labelPropose, labelCommit, labelReveal, labelKeys, labelReady, labelAlive, labelChallenge, labelEnd:
		return true
	}
	return false
}

// peekLabel is the label in front of any message or statement.
func peekLabel(b []byte) string {
	r := &reader{b: b}
	return string(r.lp(64))
}

// encodeMessage is everything before the signature.
func encodeMessage(label string, sid [16]byte, e uint32, from D, body []byte) []byte {
	b := appendLabel(make([]byte, 0, 4+len(label)+52+len(body)+signatureLen), label)
	b = append(b, sid[:]...)
	b = binary.BigEndian.AppendUint32(b, e)
	b = append(b, from[:]...)
	return append(b, body...)
}

func parseMessage(b []byte) (message, error) {
	if len(b) > MaxMessage {
		return message{}, errMalformed
	}
	r := &reader{b: b}
	m := message{label: string(r.lp(64)), raw: b}
	copy(m.sid[:], r.take(16))
	m.e = r.u32()
	m.from = D(r.b32())
	if r.bad || len(r.b) < signatureLen || !isMessageLabel(m.label) {
		return message{}, errMalformed
	}
	m.body = r.b[:len(r.b)-signatureLen]
	m.unsigned = b[:len(b)-signatureLen]
	m.sig = b[len(b)-signatureLen:]
	return m, nil
}

type proposal struct {
	prev   T
	list   []D
	admits []statement
	flags  uint32
}

func (p proposal) encode() []byte {
	b := append([]byte(nil), p.prev[:]...)
	b = append(b, byte(len(p.list)))
	for i := range p.list {
		b = append(b, p.list[i][:]...)
	}
	b = append(b, byte(len(p.admits)))
	for _, a := range p.admits {
		b = append(b, a.raw...)
	}
	return binary.BigEndian.AppendUint32(b, p.flags)
}

// parseProposal checks the form: order, bounds, admits that belong. Whether it may be is the receiver's matter.
func parseProposal(b []byte, sid [16]byte) (proposal, error) {
	r := &reader{b: b}
	p := proposal{prev: T(r.b32())}
	n := int(r.u8())
	if n < 2 || n > MaxMembers {
		return proposal{}, errMalformed
	}
	for range n {
		p.list = append(p.list, D(r.b32()))
	}
	m := int(r.u8())
	if r.bad || !ascending(p.list) || m > n {
		return proposal{}, errMalformed
	}
	for i := range m {
		st, err := parseStatement(r.take(admitSize))
		if err != nil || st.label != labelAdmit || st.sid != sid || st.t != p.prev {
			return proposal{}, errMalformed
		}
		if indexOf(p.list, st.d) < 0 || (i > 0 && compareD(p.admits[i-1].d, st.d) >= 0) {
			return proposal{}, errMalformed
		}
		p.admits = append(p.admits, st)
	}
	p.flags = r.u32()
	if p.flags&^flagCheck != 0 {
		r.bad = true
	}
	return p, r.end()
}

func (p proposal) admitOf(d D) *statement {
	for i := range p.admits {
		if p.admits[i].d == d {
			return &p.admits[i]
		}
	}
	return nil
}

type commit struct{ p, c [32]byte }

func (c commit) encode() []byte { return append(append([]byte(nil), c.p[:]...), c.c[:]...) }

func parseCommit(b []byte) (commit, error) {
	r := &reader{b: b}
	c := commit{p: r.b32(), c: r.b32()}
	return c, r.end()
}

type reveal struct {
	p, k  [32]byte
	doc   []byte
	proof []byte
	nonce [32]byte
}

func (v reveal) encode() []byte {
	b := append(append([]byte(nil), v.p[:]...), v.k[:]...)
	b = appendLP(b, v.doc)
	b = appendLP(b, v.proof)
	return append(b, v.nonce[:]...)
}

func parseReveal(b []byte) (reveal, error) {
	r := &reader{b: b}
	v := reveal{p: r.b32(), k: r.b32()}
	v.doc = r.lp(2048)
	v.proof = r.lp(maxProofBody + 6)
	v.nonce = r.b32()
	return v, r.end()
}

type sealedFor struct {
	to  D
	box []byte
}

type keysBody struct {
	t      T
	gen    uint32
	idx    uint8
	secret [32]byte // hash
	boxes  []sealedFor
}

func (k keysBody) encode() []byte {
	b := append([]byte(nil), k.t[:]...)
	b = binary.BigEndian.AppendUint32(b, k.gen)
	b = append(b, k.idx)
	b = append(b, k.secret[:]...)
	for _, s := range k.boxes {
		b = append(b, s.to[:]...)
		b = appendLP(b, s.box)
	}
	return b
}

func parseKeys(b []byte) (keysBody, error) {
	r := &reader{b: b}
	k := keysBody{t: T(r.b32()), gen: r.u32(), idx: r.u8(), secret: r.b32()}
	for !r.bad && len(r.b) > 0 && len(k.boxes) < MaxMembers {
		s := sealedFor{to: D(r.b32()), box: r.lp(sealedSize)}
		if len(s.box) != sealedSize || (len(k.boxes) > 0 && compareD(k.boxes[len(k.boxes)-1].to, s.to) >= 0) {
			r.bad = true
		}
		k.boxes = append(k.boxes, s)
	}
	return k, r.end()
}

type readyBody struct {
	t    T
	gens []uint32
}

func (v readyBody) encode() []byte {
	b := append([]byte(nil), v.t[:]...)
	for _, g := range v.gens {
		b = binary.BigEndian.AppendUint32(b, g)
	}
	return b
}

func parseReady(b []byte) (readyBody, error) {
	r := &reader{b: b}
	v := readyBody{t: T(r.b32())}
	for !r.bad && len(r.b) > 0 && len(v.gens) < MaxMembers {
		v.gens = append(v.gens, r.u32())
	}
	return v, r.end()
}

type aliveBody struct {
	t       T
	n, time uint64
}

func (a aliveBody) encode() []byte {
	b := append([]byte(nil), a.t[:]...)
	b = binary.BigEndian.AppendUint64(b, a.n)
	return binary.BigEndian.AppendUint64(b, a.time)
}

func parseAlive(b []byte) (aliveBody, error) {
	r := &reader{b: b}
	a := aliveBody{t: T(r.b32()), n: r.u64(), time: r.u64()}
	return a, r.end()
}

type challengeBody struct {
	d      D
	dch    [32]byte
	expiry uint64
}

func (c challengeBody) encode() []byte {
	b := append(append([]byte(nil), c.d[:]...), c.dch[:]...)
	return binary.BigEndian.AppendUint64(b, c.expiry)
}

func parseChallenge(b []byte) (challengeBody, error) {
	r := &reader{b: b}
	c := challengeBody{d: D(r.b32()), dch: r.b32(), expiry: r.u64()}
	return c, r.end()
}

func parseEnd(b []byte) (Reason, error) {
	r := &reader{b: b}
	v := Reason(r.u8())
	return v, r.end()
}
