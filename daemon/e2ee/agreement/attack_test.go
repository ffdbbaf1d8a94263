package agreement

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"testing"
)

// Each lie is told a hundred times, every time with other latencies and in another of its forms. A lie must have
// arrived; the call then refuses to start or stops, or the codes differ.
func repeat(t *testing.T, forms int, attack func(t *testing.T, w *world, form int)) {
	n := 100
	if testing.Short() {
		n = 10
	}
	told := make([]int, forms)
	for i := range n {
		w := newWorld(t, uint64(1000+i))
		attack(t, w, i%forms)
		if w.lied > 0 {
			told[i%forms]++
		} else {
			t.Fatalf("run %d: the lie of form %d did not arrive", i, i%forms)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("arrived per form: %v", told)
}

// forge signs a message with n's own key.
func (n *node) forge(label string, number uint32, body []byte) []byte {
	return n.sign(encodeMessage(label, n.e.cfg.SID, number, n.e.self, body))
}

func (n *node) sign(unsigned []byte) []byte {
	sig, err := n.e.own.signer.Sign(unsigned)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return append(bytes.Clone(unsigned), sig...)
}

// tell gives one message to everybody else, as a lie.
func (w *world) tell(from *node, msg []byte) {
	for _, n := range w.nodes {
		if n != from {
			w.lied++
			w.post(from, n, msg, 1)
		}
	}
}

// lines lets messages through only between the given pairs.
func (w *world) lines(pairs ...[2]*node) {
	w.lie = func(from, to *node, msg []byte) [][]byte {
		if slices.Contains(pairs, [2]*node{from, to}) || slices.Contains(pairs, [2]*node{to, from}) {
			return [][]byte{msg}
		}
		w.lied++
		return nil
	}
}

func anotherIdentity(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// middle is a call with a liar in the middle: s talks to b2, b to s2. With gullible, b's page believes the liar's room.
func (w *world) middle(gullible bool) (s, b, s2, b2 *node) {
	evil := anotherIdentity(w.t)
	s = w.add(RoleDevice, "Room 1")
	bCfg := w.config(RolePatient, "Maria")
	if gullible {
		bCfg = w.config(RolePatient, "Maria", evil)
	}
	b = w.addConfig(bCfg)
	sCfg := w.config(RoleDevice, "Room 1")
	prove, err := DeviceProver(evil)
	if err != nil {
		w.t.Fatal(err)
	}
	sCfg.Prove = prove
	s2 = w.addConfig(sCfg)
	b2 = w.add(RolePatient, "Maria")
	s2.evil, b2.evil = true, true
	w.lines([2]*node{s, b2}, [2]*node{s2, b})
	s.do(s.e.Admit(w.now, b2.e.D(), RolePatient))
	s2.do(s2.e.Admit(w.now, b.e.D(), RolePatient))
	w.run(3000)
	return s, b, s2, b2
}

func TestLieSwap(t *testing.T) {
	repeat(t, 2, func(t *testing.T, w *world, form int) {
		s, b, _, _ := w.middle(form == 1)
		if form == 0 {
			if b.epoch != nil || b.allowed || b.failed == nil || b.failed.Reason != ReasonProof {
				t.Fatalf("b believes a room that is not in the roster: %+v", b.failed)
			}
			return
		}
		if s.epoch == nil || b.epoch == nil || s.epoch.Code == b.epoch.Code || s.epoch.Pictures == b.epoch.Pictures {
			t.Fatal("codes equal through a liar")
		}
	})
}

func TestLieGrindOnJoin(t *testing.T) {
	repeat(t, 3, func(t *testing.T, w *world, form int) {
		s, b, s2, b2 := w.middle(true)
		c1, c2 := w.add(RoleGuest, "C"), w.add(RoleGuest, "C")
		c1.evil, c2.evil = true, true
		try := 0
		pairs := [][2]*node{{s, b2}, {s, c1}, {b2, c1}, {s2, b}, {s2, c2}, {b, c2}}
		w.lie = func(from, to *node, msg []byte) [][]byte {
			if !slices.Contains(pairs, [2]*node{from, to}) && !slices.Contains(pairs, [2]*node{to, from}) {
				return nil
			}
			w.lied++
			if peekLabel(msg) != labelReveal || !from.evil || to.evil {
				return [][]byte{msg}
			}
			switch form {
			case 0: // a nonce chosen after the honest one was seen
				m, _ := parseMessage(msg)
				v, _ := parseReveal(m.body)
				v.nonce[w.rng.IntN(32)] ^= byte(1 + w.rng.IntN(255))
				return [][]byte{from.forge(labelReveal, m.e, v.encode())}
			case 1: // guess, and stop when it does not fit
				try++
				return nil
			}
			return [][]byte{msg}
		}
		for range 4 {
			for _, x := range []struct{ s, c *node }{{s, c1}, {s2, c2}} {
				if out, err := x.s.e.Admit(w.now, x.c.e.D(), RoleGuest); err == nil {
					x.s.take(out)
				}
			}
			w.run(12_000)
			if s.allowed && b.allowed && s.epoch.Code == b.epoch.Code {
				t.Fatal("ground to equal codes")
			}
		}
		switch form {
		case 0:
			if s.failed == nil || s.failed.Reason != ReasonCommit || b.failed == nil || b.failed.Reason != ReasonCommit {
				t.Fatalf("s %v b %v", s.failed, b.failed)
			}
		case 1:
			if s.failed == nil || s.failed.Reason != ReasonGuesses || s.rounds != maxFailed {
				// The liar's b2 is silent too and is removed, after which there is nobody to guess with.
				if len(s.e.cur0()) > 0 {
					t.Fatalf("s goes on: %v, %d failed rounds", s.failed, s.rounds)
				}
			}
		}
	})
}

// cur0 is the list in force, empty when there is none.
func (e *Endpoint) cur0() []D {
	if e.cur == nil || e.dead {
		return nil
	}
	return e.cur.list
}

// Newcomers that commit and never reveal: three of them end the session.
func TestLieGuesses(t *testing.T) {
	repeat(t, 1, func(t *testing.T, w *world, _ int) {
		nodes := w.call(RoleTherapist)
		s, th := nodes[0], nodes[1]
		var evil *node
		w.lie = func(from, to *node, msg []byte) [][]byte {
			if from == evil && peekLabel(msg) == labelReveal {
				w.lied++
				return nil
			}
			return [][]byte{msg}
		}
		for i := range maxFailed {
			if s.failed != nil {
				t.Fatalf("ended after %d guesses", i)
			}
			evil = w.add(RoleGuest, "C")
			evil.evil = true
			s.do(s.e.Admit(w.now, evil.e.D(), RoleGuest))
			w.run(12_000)
		}
		if s.failed == nil || s.failed.Reason != ReasonGuesses || th.failed == nil || th.allowed {
			t.Fatalf("guessing goes on: %v %v", s.failed, th.failed)
		}
	})
}

func TestLieReplay(t *testing.T) {
	repeat(t, 1, func(t *testing.T, w *world, _ int) {
		nodes := w.call(RoleTherapist, RolePatient)
		s, th, pat := nodes[0], nodes[1], nodes[2]
		var old [][]byte
		for _, n := range nodes {
			old = append(old, n.all...)
		}
		w.lie = func(from, to *node, msg []byte) [][]byte {
			out := [][]byte{msg}
			for range 4 {
				w.lied++
				out = append(out, old[w.rng.IntN(len(old))])
			}
			old = append(old, msg)
			return out
		}
		th.do(th.e.Check(w.now))
		w.run(3000)
		w.settled(nodes...)
		s.do(s.e.Rekey(w.now))
		w.run(3000)
		w.settled(nodes...)
		pat.take(pat.e.Leave(w.now))
		w.run(20_000)
		w.settled(s, th)
		if s.lists(pat.e.D()) || len(s.recv[pat.e.D()]) != 0 || len(th.recv[pat.e.D()]) != 0 {
			t.Fatal("a replay brought somebody back")
		}
	})
}

func TestLieWithhold(t *testing.T) {
	fromRoom := []string{labelPropose, labelCommit, labelReveal, labelAlive, labelKeys, labelReady}
	labels := append(fromRoom, labelCommit, labelReveal, labelKeys, labelReady)
	repeat(t, len(labels), func(t *testing.T, w *world, form int) {
		s, b := w.add(RoleDevice, "Room 1"), w.add(RolePatient, "Maria")
		label, fromS := labels[form], form < len(fromRoom)
		w.lie = func(from, to *node, msg []byte) [][]byte {
			if peekLabel(msg) == label && (from == s) == fromS {
				w.lied++
				return nil
			}
			return [][]byte{msg}
		}
		s.do(s.e.Admit(w.now, b.e.D(), RolePatient))
		for range 100 {
			w.run(600)
			if s.allowed && b.allowed {
				t.Fatalf("both may send without %s", label)
			}
		}
	})
}

// A removal is kept from one member, and S's alives are hoarded and handed out slowly: it must not send for longer than
// 15 s after the removal, whoever holds the keys.
func TestLieWithholdRemoval(t *testing.T) {
	repeat(t, 2, func(t *testing.T, w *world, form int) {
		nodes := w.call(RoleTherapist, RolePatient, RoleGuest)
		s, th, pat, g := nodes[0], nodes[1], nodes[2], nodes[3]
		var hoard [][]byte
		cut := false
		w.lie = func(from, to *node, msg []byte) [][]byte {
			switch {
			case to != pat:
				return [][]byte{msg}
			case form == 1 && peekLabel(msg) == labelAlive:
				hoard = append(hoard, msg)
				return nil
			case cut && from != g:
				w.lied++
				return nil
			}
			return [][]byte{msg}
		}
		give := func() {
			if len(hoard) > 0 {
				w.lied++
				w.post(s, pat, hoard[0], 1)
				hoard = hoard[1:]
			}
		}
		for range 2 {
			w.run(Millis(8000 + w.rng.IntN(6000)))
			give()
		}
		w.run(100)
		cut = true
		if form == 0 {
			th.do(th.e.Remove(w.now, g.e.D()))
		} else {
			s.do(s.e.Remove(w.now, g.e.D()))
		}
		removed := w.now
		for w.now < removed+60_000 {
			w.run(500)
			if w.now%7000 < 500 {
				give()
			}
			if pat.allowed && w.now > removed+aliveLimit+1000 {
				t.Fatalf("still sending %d ms after the removal", w.now-removed)
			}
		}
		w.settled(s, th)
	})
}

func TestLieSplit(t *testing.T) {
	repeat(t, 2, func(t *testing.T, w *world, form int) {
		nodes := w.call(RoleTherapist)
		s, th := nodes[0], nodes[1]
		b := w.add(RolePatient, "Maria")
		w.lie = func(from, to *node, msg []byte) [][]byte {
			if from != b || peekLabel(msg) != labelCommit || (to == s) != (form == 0) {
				return [][]byte{msg}
			}
			w.lied++
			m, _ := parseMessage(msg)
			c, _ := parseCommit(m.body)
			c.c = b.e.random32()
			return [][]byte{append(encodeMessage(labelCommit, m.sid, m.e, m.from, c.encode()), m.sig...)}
		}
		s.do(s.e.Admit(w.now, b.e.D(), RolePatient))
		w.run(15_000)
		if b.epoch != nil || s.lists(b.e.D()) || th.lists(b.e.D()) || s.allowed && b.allowed {
			t.Fatal("in force over different commit sets")
		}
		if s.failed == nil && th.failed == nil {
			t.Fatal("nobody noticed")
		}
	})
}

func TestLieGhost(t *testing.T) {
	repeat(t, 4, func(t *testing.T, w *world, form int) {
		nodes := w.call(RoleTherapist)
		s, th := nodes[0], nodes[1]
		g := w.add(RoleGuest, "ghost")
		g.evil = true
		withGhost := func(prev T) []byte {
			list := []D{s.e.D(), th.e.D(), g.e.D()}
			slices.SortFunc(list, compareD)
			a, _ := g.e.signStatement(statement{label: labelAdmit, t: prev, d: g.e.D(), role: RoleGuest, local: true})
			return proposal{prev: prev, list: list, admits: []statement{a}}.encode()
		}
		switch form {
		case 0: // the hub adds the ghost to S's proposal
			w.lie = func(from, to *node, msg []byte) [][]byte {
				if m, err := parseMessage(msg); err == nil && m.label == labelPropose {
					w.lied++
					p, _ := parseProposal(m.body, w.sid)
					return [][]byte{append(encodeMessage(labelPropose, m.sid, m.e, m.from, withGhost(p.prev)), m.sig...), msg}
				}
				return [][]byte{msg}
			}
			th.do(th.e.Check(w.now))
		case 1: // the ghost proposes in S's name, and in its own
			body := withGhost(s.epoch.T)
			w.tell(g, g.sign(encodeMessage(labelPropose, w.sid, 9, s.e.D(), body)))
			w.tell(g, g.forge(labelPropose, 9, body))
		case 2: // the ghost announces keys and readiness
			k := keysBody{t: s.epoch.T, gen: 1, idx: 1}
			for _, n := range []*node{s, th} {
				k.boxes = append(k.boxes, sealedFor{to: n.e.D(), box: make([]byte, sealedSize)})
			}
			slices.SortFunc(k.boxes, func(a, b sealedFor) int { return compareD(a.to, b.to) })
			w.tell(g, g.forge(labelKeys, s.epoch.Number, k.encode()))
			w.tell(g, g.forge(labelReady, s.epoch.Number, readyBody{t: s.epoch.T, gens: []uint32{9, 9}}.encode()))
			w.tell(g, g.forge(labelEnd, s.epoch.Number, []byte{byte(ReasonKeys)}))
			// and in the members' names
			for _, n := range []*node{s, th} {
				as := func(label string, body []byte) {
					w.tell(g, g.sign(encodeMessage(label, w.sid, s.epoch.Number, n.e.D(), body)))
				}
				as(labelKeys, k.encode())
				as(labelReady, readyBody{t: s.epoch.T, gens: []uint32{9, 9}}.encode())
				as(labelReady, readyBody{t: T{1}, gens: []uint32{9, 9}}.encode())
				as(labelAlive, aliveBody{t: s.epoch.T, n: 1 << 40, time: 1 << 40}.encode())
				as(labelEnd, []byte{byte(ReasonKeys)})
				as(labelEnd, []byte{byte(ReasonEnded)})
			}
		case 3: // the ghost signs its own admit as if it were a therapist
			a, _ := g.e.signStatement(statement{label: labelAdmit, t: s.epoch.T, d: g.e.D(), role: RoleGuest})
			w.tell(g, a.raw)
			r, _ := g.e.signStatement(statement{label: labelRemove, t: s.epoch.T, d: th.e.D(), role: RoleTherapist})
			w.tell(g, r.raw)
			for _, st := range []statement{
				{label: labelAdmit, t: s.epoch.T, d: g.e.D(), role: RoleGuest},
				{label: labelRemove, t: s.epoch.T, d: th.e.D(), role: RoleTherapist},
				{label: labelCheck, t: s.epoch.T},
			} { // signed by the ghost, said to be the therapist's
				st.sid, st.signer = w.sid, th.e.D()
				body := encodeStatement(st)
				w.tell(g, append(append(bytes.Clone(body), st.signer[:]...), g.sign(body)[len(body):]...))
			}
		}
		w.run(5000)
		w.settled(s, th)
		if g.epoch != nil || len(g.recv) != 0 || len(s.recv[g.e.D()])+len(th.recv[g.e.D()]) != 0 {
			t.Fatal("the ghost is in")
		}
	})
}

func TestLieWrongRole(t *testing.T) {
	repeat(t, 3, func(t *testing.T, w *world, form int) {
		nodes := w.call(RoleTherapist)
		s, th := nodes[0], nodes[1]
		w.lied++
		switch form {
		case 0: // the hub says therapist of a patient's page
			pat := w.add(RolePatient, "Maria")
			s.do(s.e.Admit(w.now, pat.e.D(), RoleTherapist))
			w.run(15_000)
			if pat.epoch != nil || s.lists(pat.e.D()) || s.dropped[pat.e.D()] != ReasonSilent {
				t.Fatal("in with another role than admitted")
			}
			w.settled(s, th)
		case 1, 2: // a page whose document says more than its admit
			role := []Role{RoleTherapist, RoleDevice}[form-1]
			evil := w.add(role, "Maria")
			evil.evil = true
			evil.e.seq, evil.e.sequencer, evil.e.cfg.Role, evil.e.cfg.Prove = nil, D{}, RolePatient, HubProver
			s.do(s.e.Admit(w.now, evil.e.D(), RolePatient))
			w.run(15_000)
			if s.lists(evil.e.D()) || s.failed == nil || s.failed.Reason != ReasonRole || th.allowed {
				t.Fatalf("in with a role that was not admitted: %v %v", s.failed, th.failed)
			}
		}
	})
}

// Somebody without a room's key plays the room: with a document of another role there is no device proof to ask for.
func TestLieNoRoom(t *testing.T) {
	repeat(t, 2, func(t *testing.T, w *world, form int) {
		pat := w.add(RolePatient, "Maria")
		evil := w.addConfig(w.config([]Role{RoleTherapist, RoleGuest}[form], "Room 1"))
		evil.evil = true
		evil.e.seq, evil.e.sequencer = newSequencing(), evil.e.self
		list := []D{pat.e.D(), evil.e.D()}
		slices.SortFunc(list, compareD)
		a, _ := evil.e.signStatement(statement{label: labelAdmit, t: evil.e.chain, d: pat.e.D(), role: RolePatient, local: true})
		prop := proposal{prev: evil.e.chain, list: list, admits: []statement{a}}
		m, err := parseMessage(evil.forge(labelPropose, 1, prop.encode()))
		if err != nil {
			t.Fatal(err)
		}
		w.tell(evil, m.raw)
		evil.take(evil.e.run(w.now, func() { evil.e.takeProposal(m, prop) }))
		w.run(5000)
		if pat.epoch != nil || pat.failed == nil || pat.failed.Reason != ReasonRole {
			t.Fatalf("a call without a room: %v", pat.failed)
		}
	})
}

// The removal reaches the members but not S, which proposes a list with the removed one still in it: nobody who knows
// better seals to them.
func TestLieRemovalKeptFromRoom(t *testing.T) {
	repeat(t, 1, func(t *testing.T, w *world, _ int) {
		nodes := w.call(RoleTherapist, RolePatient, RoleGuest)
		s, th, pat, g := nodes[0], nodes[1], nodes[2], nodes[3]
		w.lie = func(from, to *node, msg []byte) [][]byte {
			if peekLabel(msg) == labelRemove && (to == s || to == g) {
				w.lied++
				return nil
			}
			return [][]byte{msg}
		}
		th.do(th.e.Remove(w.now, g.e.D()))
		w.run(500)
		s.do(s.e.Check(w.now))
		for range 40 {
			w.run(1000)
			for _, n := range []*node{th, pat} {
				if n.allowed && n.lists(g.e.D()) {
					t.Fatalf("node %d sends to somebody who was removed", n.i)
				}
			}
		}
	})
}

func TestLieOldTranscript(t *testing.T) {
	repeat(t, 2, func(t *testing.T, w *world, form int) {
		nodes := w.call(RoleTherapist, RolePatient)
		s, th, pat := nodes[0], nodes[1], nodes[2]
		T, number := s.epoch.T, s.epoch.Number
		old := slices.Concat(s.all, th.all, pat.all)
		th.do(th.e.Check(w.now))
		w.run(3000)
		w.settled(nodes...)
		if form == 0 { // the hub repeats all of the former epochs
			for _, m := range old {
				w.tell(s, m)
			}
			w.run(3000)
			w.settled(nodes...)
			if s.epoch.T == T || s.epoch.Number != number+1 {
				t.Fatal("back in an old epoch")
			}
			return
		}
		// A room that goes back to an old history, with its own signature.
		s.evil = true
		list := slices.Clone(s.ds())
		w.tell(s, s.forge(labelPropose, number+5, proposal{prev: T, list: list}.encode()))
		w.run(1000)
		for _, n := range []*node{th, pat} {
			if n.failed == nil || n.failed.Reason != ReasonTranscript || n.allowed {
				t.Fatalf("node %d: %v", n.i, n.failed)
			}
		}
	})
}

func TestLieTwoCommits(t *testing.T) {
	repeat(t, 2, func(t *testing.T, w *world, form int) {
		nodes := w.call(RoleTherapist)
		s, th := nodes[0], nodes[1]
		evil := w.add(RolePatient, "Maria")
		evil.evil = true
		w.lie = func(from, to *node, msg []byte) [][]byte {
			if from != evil || peekLabel(msg) != labelCommit {
				return [][]byte{msg}
			}
			w.lied++
			m, _ := parseMessage(msg)
			c, _ := parseCommit(m.body)
			c.c = commitHash(c.p, evil.e.self, evil.e.random32())
			second := evil.forge(labelCommit, m.e, c.encode())
			if form == 0 {
				return [][]byte{msg, second}
			}
			if to == s {
				return [][]byte{msg}
			}
			return [][]byte{second}
		}
		s.do(s.e.Admit(w.now, evil.e.D(), RolePatient))
		w.run(15_000)
		if s.lists(evil.e.D()) || th.lists(evil.e.D()) || (s.failed == nil && th.failed == nil) || s.allowed && th.allowed {
			t.Fatalf("two commits: %v %v", s.failed, th.failed)
		}
		if form == 0 && s.failed.Reason != ReasonCommit {
			t.Fatalf("reason %v", s.failed.Reason)
		}
	})
}

func TestLieMergedSessions(t *testing.T) {
	repeat(t, 2, func(t *testing.T, w *world, form int) {
		s1, p1 := w.add(RoleDevice, "Room 1"), w.add(RolePatient, "Maria")
		w.sid[0] ^= 1
		s2, p2 := w.add(RoleDevice, "Room 1"), w.add(RolePatient, "Eve")
		if form == 1 { // Eve's page frames its messages for session 1; its document says session 2
			p2.evil = true
			p2.e.cfg.SID = s1.e.cfg.SID
		}
		w.lied++
		s1.do(s1.e.Admit(w.now, p2.e.D(), RolePatient))
		s2.do(s2.e.Admit(w.now, p1.e.D(), RolePatient))
		w.run(15_000)
		for _, n := range w.nodes {
			if n.epoch != nil && !n.evil {
				t.Fatalf("node %d is in a session of two halves", n.i)
			}
		}
		if form == 1 && (s1.failed == nil || s1.failed.Reason != ReasonDocument) {
			t.Fatalf("s1: %v", s1.failed)
		}
	})
}

// Somebody else's document under one's own name; somebody else's keys in one's own document.
func TestLieBorrowed(t *testing.T) {
	repeat(t, 3, func(t *testing.T, w *world, form int) {
		nodes := w.call(RoleTherapist)
		s, th := nodes[0], nodes[1]
		evil := w.add(RolePatient, "Maria")
		evil.evil = true
		doc, err := ParseDocument(evil.e.doc)
		if err != nil {
			t.Fatal(err)
		}
		switch form {
		case 0:
			w.lie = func(from, to *node, msg []byte) [][]byte {
				m, err := parseMessage(msg)
				if from != evil || err != nil || m.label != labelReveal {
					return [][]byte{msg}
				}
				w.lied++
				v, _ := parseReveal(m.body)
				v.doc = th.e.doc
				return [][]byte{evil.forge(labelReveal, m.e, v.encode())}
			}
		case 1:
			doc.KEMPub = th.e.own.kemPub
		case 2:
			doc.SigPub = th.e.own.sigPub
		}
		if form > 0 {
			w.lied++
			evil.e.doc = doc.encode()
			evil.e.self = HashDocument(evil.e.doc)
		}
		s.do(s.e.Admit(w.now, evil.e.D(), RolePatient))
		w.run(25_000)
		if s.lists(evil.e.D()) || th.lists(evil.e.D()) || len(s.recv[evil.e.D()]) != 0 {
			t.Fatal("in with borrowed keys")
		}
		if form == 1 && (s.failed == nil || s.failed.Reason != ReasonDuplicate) {
			t.Fatalf("copied key: %v", s.failed)
		}
	})
}

func TestLieProposals(t *testing.T) {
	repeat(t, 5, func(t *testing.T, w *world, form int) {
		nodes := w.call(RoleTherapist)
		s, th := nodes[0], nodes[1]
		s.evil = true
		g := w.add(RoleGuest, "Sam")
		list := []D{s.e.D(), th.e.D(), g.e.D()}
		slices.SortFunc(list, compareD)
		prop := proposal{prev: s.epoch.T, list: list}
		want := ReasonAdmit
		switch form {
		case 0: // no admit
		case 1: // an admit without a touch
			a, _ := s.e.signStatement(statement{label: labelAdmit, t: prop.prev, d: g.e.D(), role: RoleGuest})
			prop.admits = []statement{a}
		case 2: // an admit by the newcomer itself
			a, _ := g.e.signStatement(statement{label: labelAdmit, t: prop.prev, d: g.e.D(), role: RoleGuest})
			prop.admits = []statement{a}
		case 3: // one D twice
			prop.list = []D{list[0], list[1], list[1]}
			want = ReasonProposal
		case 4: // unknown flags
			prop.flags = 2
			want = ReasonProposal
		}
		w.tell(s, s.forge(labelPropose, 9, prop.encode()))
		w.run(100)
		if th.failed == nil || th.failed.Reason != want || th.allowed || g.epoch != nil {
			t.Fatalf("form %d: %v", form, th.failed)
		}
	})
}

func TestLieKeys(t *testing.T) {
	repeat(t, 7, func(t *testing.T, w *world, form int) {
		nodes := w.call(RoleTherapist, RolePatient)
		s, th, evil := nodes[0], nodes[1], nodes[2]
		evil.evil = true
		oldT, oldKeys := s.epoch.T, bytes.Clone(evil.e.keys.message)
		th.do(th.e.Check(w.now))
		w.run(3000)
		w.settled(nodes...)
		// A correct key message of the evil member, to be spoilt.
		secret := Secret(evil.e.random32())
		if form == 3 {
			secret = th.key.Secret // reflection: the victim's own secret as somebody else's
		}
		k := keysBody{t: s.epoch.T, gen: evil.e.keys.gen + 1, secret: secretHash(secret)}
		k.idx = index(k.gen)
		seal := func(d D, s Secret, t T) []byte {
			box, err := evil.e.cur.members[d].keys.sealer.Encrypt(append(u32(k.gen), s[:]...), sealInfo(t, evil.e.self, d))
			if err != nil {
				w.t.Fatal(err)
			}
			return box
		}
		want := ReasonKeys
		infoT := k.t
		if form == 0 { // an old key message, signed for the new epoch
			k.t, want = oldT, ReasonTranscript
		}
		if form == 4 { // sealed for another T
			infoT = oldT
		}
		for _, d := range s.ds() {
			if d == evil.e.D() {
				continue
			}
			mine := secret
			if form == 1 && d == th.e.D() { // another secret for one of the two
				mine = Secret(evil.e.random32())
			}
			k.boxes = append(k.boxes, sealedFor{to: d, box: seal(d, mine, infoT)})
		}
		if form == 5 {
			k.idx ^= 1
		}
		msg := evil.forge(labelKeys, evil.epoch.Number, k.encode())
		if form == 6 { // the very message of the old epoch: no effect
			w.tell(evil, oldKeys)
			w.run(100)
			w.settled(nodes...)
			return
		}
		w.tell(evil, msg)
		if form == 2 { // the same generation twice, with two secrets
			other := Secret(evil.e.random32())
			k.secret = secretHash(other)
			for i := range k.boxes {
				k.boxes[i].box = seal(k.boxes[i].to, other, infoT)
			}
			w.run(100)
			if th.failed != nil {
				t.Fatalf("the first one: %v", th.failed)
			}
			w.tell(evil, evil.forge(labelKeys, evil.epoch.Number, k.encode()))
		}
		w.run(100)
		if th.failed == nil || th.failed.Reason != want || th.allowed {
			t.Fatalf("form %d: %v", form, th.failed)
		}
	})
}

// Whatever single bit of whatever message the relay turns: no two ends end up with one code over different lists, and
// nobody takes a key that was not sealed to it (the invariant), for every message of a start and a join.
func TestLieBits(t *testing.T) {
	repeat(t, 1, func(t *testing.T, w *world, _ int) {
		s, th, pat := w.add(RoleDevice, "Room 1"), w.add(RoleTherapist, "Dr Lee"), w.add(RolePatient, "Maria")
		victim := w.rng.IntN(40)
		count := 0
		w.lie = func(from, to *node, msg []byte) [][]byte {
			count++
			if count < victim {
				return [][]byte{msg}
			}
			w.lied++
			bad := bytes.Clone(msg)
			bad[w.rng.IntN(len(bad))] ^= 1 << w.rng.IntN(8)
			return [][]byte{bad}
		}
		s.do(s.e.Admit(w.now, th.e.D(), RoleTherapist))
		w.run(3000)
		s.do2(s.e.Admit(w.now, pat.e.D(), RolePatient))
		w.run(20_000)
	})
}

// do2 is do for calls that may be out of place.
func (n *node) do2(out []Effect, _ error) { n.take(out) }
