package liar

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// The formats of daemon/e2ee/agreement as somebody reads them who was given nothing but its package comment.

const signatureSize = 64

// Message is one message of the key agreement, taken apart; the pieces lie in Raw.
type Message struct {
	Kind string // propose, commit, reveal, keys, ready, alive, challenge, end; or a statement: admit, remove, …
	SID  [16]byte
	E    uint32
	From agreement.D
	Body []byte
	Sig  []byte
	Raw  []byte
}

func isStatement(kind string) bool {
	return slices.Contains([]string{"admit", "remove", "check", "compared", "agree"}, kind)
}

// read takes raw apart; a statement has only Kind and Raw.
func read(raw []byte) (m Message, ok bool) {
	if len(raw) < 4 {
		return m, false
	}
	n := int(binary.BigEndian.Uint32(raw))
	if n > 64 || len(raw) < 4+n+52+signatureSize {
		return m, false
	}
	label := string(raw[4 : 4+n])
	m = Message{Kind: strings.TrimSuffix(strings.TrimPrefix(label, "alcove/"), "/v1"), Raw: raw}
	if isStatement(m.Kind) {
		return m, true
	}
	rest := raw[4+n:]
	copy(m.SID[:], rest)
	m.E = binary.BigEndian.Uint32(rest[16:])
	copy(m.From[:], rest[20:])
	m.Body, m.Sig = rest[52:len(rest)-signatureSize], rest[len(rest)-signatureSize:]
	return m, true
}

// write puts m together from its pieces.
func (m Message) write() []byte { return append(m.unsigned(), m.Sig...) }

func (m Message) unsigned() []byte {
	b := lp(nil, []byte("alcove/"+m.Kind+"/v1"))
	b = append(b, m.SID[:]...)
	b = binary.BigEndian.AppendUint32(b, m.E)
	b = append(b, m.From[:]...)
	return append(b, m.Body...)
}

// with is m with another body, under the old signature.
func (m Message) with(body []byte) Message {
	m.Body = body
	return m
}

func lp(b, x []byte) []byte { return append(binary.BigEndian.AppendUint32(b, uint32(len(x))), x...) }

// hash is H of the agreement's package comment.
func hash(label string, xs ...[]byte) [32]byte {
	b := lp(nil, []byte("alcove/"+label+"/v1"))
	for _, x := range xs {
		b = lp(b, x)
	}
	return sha256.Sum256(b)
}

// proposal is the body of propose.
type proposal struct {
	prev   agreement.T
	list   []agreement.D
	admits [][]byte
	flags  uint32
}

const admitSize = 4 + len("alcove/admit/v1") + 16 + 32 + 32 + 2 + 32 + signatureSize

func readProposal(b []byte) (p proposal, ok bool) {
	copy(p.prev[:], b)
	b = b[32:]
	n := int(b[0])
	b = b[1:]
	for range n {
		p.list = append(p.list, agreement.D(b[:32]))
		b = b[32:]
	}
	m := int(b[0])
	b = b[1:]
	for range m {
		p.admits = append(p.admits, b[:admitSize])
		b = b[admitSize:]
	}
	p.flags = binary.BigEndian.Uint32(b)
	return p, len(b) == 4
}

func (p proposal) write() []byte {
	b := append(bytes.Clone(p.prev[:]), byte(len(p.list)))
	for _, d := range p.list {
		b = append(b, d[:]...)
	}
	b = append(b, byte(len(p.admits)))
	for _, a := range p.admits {
		b = append(b, a...)
	}
	return binary.BigEndian.AppendUint32(b, p.flags)
}

// reveal is the body of reveal.
type reveal struct {
	p, k       [32]byte
	doc, proof []byte
	nonce      [32]byte
}

func readReveal(b []byte) (v reveal, ok bool) {
	if len(b) < 64+4 {
		return v, false
	}
	copy(v.p[:], b)
	copy(v.k[:], b[32:])
	b = b[64:]
	for _, field := range []*[]byte{&v.doc, &v.proof} {
		if len(b) < 4 || len(b[4:]) < int(binary.BigEndian.Uint32(b)) {
			return v, false
		}
		n := int(binary.BigEndian.Uint32(b))
		*field, b = b[4:4+n], b[4+n:]
	}
	copy(v.nonce[:], b)
	return v, len(b) == 32
}

func (v reveal) write() []byte {
	b := append(append([]byte(nil), v.p[:]...), v.k[:]...)
	return append(lp(lp(b, v.doc), v.proof), v.nonce[:]...)
}

func ascending(list []agreement.D) []agreement.D {
	out := slices.Clone(list)
	slices.SortFunc(out, func(a, b agreement.D) int { return bytes.Compare(a[:], b[:]) })
	return out
}
