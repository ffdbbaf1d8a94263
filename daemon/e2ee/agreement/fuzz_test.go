package agreement

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

func seedFromVectors(f *testing.F) {
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		f.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		f.Fatal(err)
	}
	for _, m := range v.Messages {
		f.Add(unhex(f, m.Bytes))
	}
	for _, m := range v.Rounds[1].Messages {
		f.Add(unhex(f, m.Bytes))
	}
	for _, d := range v.Formulas.Documents {
		f.Add(unhex(f, d))
	}
	f.Add(unhex(f, v.DeviceProof.Proof))
	f.Add([]byte(nil))
}

// What a parser accepts is the only encoding of what it means.
func FuzzParsers(f *testing.F) {
	seedFromVectors(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := ParseDocument(b); err == nil && !bytes.Equal(d.encode(), b) {
			t.Fatal("document")
		}
		if p, err := ParseProof(b); err == nil && !bytes.Equal(p.encode(), b) {
			t.Fatal("proof")
		}
		if s, err := parseStatement(b); err == nil && !bytes.Equal(append(append(encodeStatement(s), s.signer[:]...), s.sig...), b) {
			t.Fatal("statement")
		}
		m, err := parseMessage(b)
		if err != nil {
			return
		}
		if !bytes.Equal(append(encodeMessage(m.label, m.sid, m.e, m.from, m.body), m.sig...), b) {
			t.Fatal("message")
		}
		body, ok := reencode(m)
		if ok && !bytes.Equal(body, m.body) {
			t.Fatalf("body of %s", m.label)
		}
	})
}

// reencode parses a body and encodes what was understood.
func reencode(m message) (body []byte, ok bool) {
	switch m.label {
	case labelPropose:
		x, err := parseProposal(m.body, m.sid)
		return x.encode(), err == nil
	case labelCommit:
		x, err := parseCommit(m.body)
		return x.encode(), err == nil
	case labelReveal:
		x, err := parseReveal(m.body)
		return x.encode(), err == nil
	case labelKeys:
		x, err := parseKeys(m.body)
		return x.encode(), err == nil
	case labelReady:
		x, err := parseReady(m.body)
		return x.encode(), err == nil
	case labelAlive:
		x, err := parseAlive(m.body)
		return x.encode(), err == nil
	case labelChallenge:
		x, err := parseChallenge(m.body)
		return x.encode(), err == nil
	case labelEnd:
		x, err := parseEnd(m.body)
		return []byte{byte(x)}, err == nil
	}
	return nil, false
}

// Whatever comes in from outside, an end in the middle of a call goes on.
func FuzzHandle(f *testing.F) {
	seedFromVectors(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorld(t, 1)
		nodes := w.call(RoleTherapist)
		fresh := w.add(RolePatient, "Maria")
		for _, n := range append(nodes, fresh) {
			n.take(n.e.Handle(w.now, b))
		}
		w.run(1000)
		w.settled(nodes...)
	})
}

func TestDocumentNames(t *testing.T) {
	w := newWorld(t, 1)
	for name, ok := range map[string]bool{
		"": true, "Zoë 李": true, string(bytes.Repeat([]byte("a"), 64)): true, string(bytes.Repeat([]byte("a"), 65)): false,
		"a\nb": false, "\u202eevil": false, "\ufeffx": false, "\x80": false, "a\u2066b": false,
	} {
		_, err := New(w.config(RolePatient, name))
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Floods: what is kept stays within its bounds, and the call goes on.
func TestFlood(t *testing.T) {
	w := newWorld(t, 1)
	nodes := w.call(RoleTherapist)
	s, th := nodes[0], nodes[1]
	stranger := w.add(RoleGuest, "Eve")
	stranger.evil = true
	for i := range 400 {
		junk := stranger.forge(labelCommit, 100+uint32(i), commit{p: fill("P")}.encode())
		reveal := stranger.forge(labelReveal, 100+uint32(i), reveal{doc: stranger.e.doc, proof: make([]byte, 16000)}.encode())
		for _, n := range nodes {
			n.take(n.e.Handle(w.now, junk))
			n.take(n.e.Handle(w.now, reveal))
			n.take(n.e.Handle(w.now, make([]byte, MaxMessage+1)))
			if len(n.e.held.msgs) > maxHeld || n.e.held.bytes > maxHeldBytes {
				t.Fatalf("%d messages, %d bytes held", len(n.e.held.msgs), n.e.held.bytes)
			}
		}
		s.do2(s.e.Admit(w.now, D{1, byte(i), byte(i >> 8)}, RoleGuest))
		if len(s.e.seq.wanted) > maxPending {
			t.Fatal("too many wait")
		}
	}
	for range 200 { // a member that rotates without end
		th.do(th.e.Rekey(w.now))
		w.run(100)
		if n := len(s.recv[th.e.D()]); n > maxRecvKeys {
			t.Fatalf("%d receive keys", n)
		}
	}
	w.settled(nodes...)
}

// A lease's age at its ends, and with clocks that disagree.
func TestLease(t *testing.T) {
	var l lease
	if l.fresh(0) {
		t.Fatal("fresh before the first alive")
	}
	l.begin(1000, aliveBody{n: 1, time: 500_000}, 1200)
	if !l.fresh(1000+aliveLimit) || l.fresh(1000+aliveLimit+1) || l.until() != 1000+aliveLimit+1 {
		t.Fatal("first alive")
	}
	l.renew(aliveBody{n: 2, time: 505_000}, 6100)
	if l.age(6100) != 100 || l.until() != 6000+aliveLimit+1 {
		t.Fatalf("age %d", l.age(6100))
	}
	l.renew(aliveBody{n: 3, time: 600_000}, 7000) // S's clock ran ahead
	if l.age(7000) != 0 || l.fresh(7000+aliveLimit+1) {
		t.Fatal("an alive from the future")
	}
	l.renew(aliveBody{n: 4, time: 605_000}, 30_000) // hoarded for 18 s
	if l.fresh(30_000) {
		t.Fatal("a hoarded alive counts as fresh")
	}
}
