package agreement

import (
	"fmt"
	"testing"
)

func TestTwoToFive(t *testing.T) {
	for n := 1; n < MaxMembers; n++ {
		for seed := range uint64(10) {
			w := newWorld(t, seed)
			roles := []Role{RoleTherapist, RolePatient, RoleGuest, RoleGuest}[:n]
			nodes := w.call(roles...)
			if nodes[0].epoch.Number != uint32(n) {
				t.Fatalf("%d members: epoch %d", n+1, nodes[0].epoch.Number)
			}
			w.run(60_000)
			w.settled(nodes...)
		}
	}
}

func TestOneTooMany(t *testing.T) {
	w := newWorld(t, 1)
	nodes := w.call(RoleTherapist, RolePatient, RoleGuest, RoleGuest)
	sixth := w.add(RoleGuest, "Six")
	nodes[0].do(nodes[0].e.Admit(w.now, sixth.e.D(), RoleGuest))
	w.run(30_000)
	w.settled(nodes...)
	nodes[3].take(nodes[3].e.Leave(w.now))
	w.run(3000)
	w.settled(nodes[0], nodes[1], nodes[2], nodes[4], sixth)
}

func TestJoinKeepsTheLine(t *testing.T) {
	w := newWorld(t, 2)
	nodes := w.call(RoleTherapist)
	s, a := nodes[0], nodes[1]
	b := w.add(RolePatient, "B")
	old := s.key.Gen
	s.do(s.e.Admit(w.now, b.e.D(), RolePatient))
	for range 3000 {
		w.run(1)
		if !s.allowed || !a.allowed {
			t.Fatalf("at %d: the line was cut by a join", w.now)
		}
		if _, ok := a.recv[s.e.D()][s.key.Gen]; !ok {
			t.Fatalf("at %d: a cannot read s", w.now)
		}
	}
	w.settled(s, a, b)
	if s.key.Gen == old {
		t.Fatal("no new key after a join")
	}
	if len(b.recv[s.e.D()]) != 1 {
		t.Fatal("the newcomer has an old key")
	}
	w.run(5000)
	if len(a.recv[s.e.D()]) != 1 {
		t.Fatalf("%d receive keys after the drain", len(a.recv[s.e.D()]))
	}
}

// One member's confirmation is late: the newcomer gets its key frame with the switch, not before it.
func TestJoinWithLateConfirmation(t *testing.T) {
	w := newWorld(t, 2)
	nodes := w.call(RoleTherapist)
	s, th := nodes[0], nodes[1]
	b := w.add(RolePatient, "B")
	w.lie = func(from, to *node, msg []byte) [][]byte {
		if from == th && peekLabel(msg) == labelReady {
			return nil
		}
		return [][]byte{msg}
	}
	gen := s.key.Gen
	s.frames = nil
	s.do(s.e.Admit(w.now, b.e.D(), RolePatient))
	start := w.now
	for s.key.Gen == gen {
		w.run(1)
		if s.key.Gen == gen && len(s.frames) > 0 {
			t.Fatal("a key frame before the switch")
		}
	}
	if d := w.now - start; d < switchLimit || d > switchLimit+500 {
		t.Fatalf("switched after %d ms", d)
	}
	if len(s.frames) != 1 || s.frames[0] != b.e.D() || !s.allowed {
		t.Fatalf("key frames: %v", s.frames)
	}
}

func TestLeaveStopsAtOnce(t *testing.T) {
	w := newWorld(t, 3)
	nodes := w.call(RoleTherapist, RolePatient)
	s, a, b := nodes[0], nodes[1], nodes[2]
	gen := s.key.Gen
	b.take(b.e.Leave(w.now))
	if b.ended == nil || b.ended.Reason != ReasonLeft || len(b.recv[s.e.D()]) != 0 || b.key != nil {
		t.Fatal("the leaver keeps keys")
	}
	for s.key != nil && s.key.Gen == gen && w.now < 100_000 {
		w.run(1)
	}
	if s.allowed || len(s.recv[a.e.D()]) != 0 || len(s.recv[b.e.D()]) != 0 || s.reason != ReasonChanging {
		t.Fatalf("s goes on after the leave: %v %v", s.allowed, s.reason)
	}
	w.run(2000)
	w.settled(s, a)
	if len(s.frames) == 0 || s.frames[0] != a.e.D() {
		t.Fatal("no key frame for the one who stays")
	}
	if s.dropped[b.e.D()] != ReasonLeft {
		t.Fatalf("dropped: %v", s.dropped)
	}
	if _, err := s.e.Admit(w.now, b.e.D(), RolePatient); err == nil {
		t.Fatal("a removed document was admitted again")
	}
}

func TestRemoveByTherapistAndRoom(t *testing.T) {
	w := newWorld(t, 4)
	nodes := w.call(RoleTherapist, RolePatient, RoleGuest)
	s, th, pat, g := nodes[0], nodes[1], nodes[2], nodes[3]
	th.do(th.e.Remove(w.now, g.e.D()))
	if th.allowed || th.key != nil {
		t.Fatal("the remover goes on")
	}
	w.run(3000)
	w.settled(s, th, pat)
	if g.ended == nil || g.ended.Reason != ReasonRemoved {
		t.Fatalf("guest: %v %v", g.ended, g.failed)
	}
	if _, err := pat.e.Remove(w.now, th.e.D()); err == nil {
		t.Fatal("a patient removes")
	}
	s.do(s.e.Remove(w.now, pat.e.D()))
	w.run(3000)
	w.settled(s, th)
	s.do(s.e.Remove(w.now, th.e.D()))
	w.run(100)
	if s.allowed || s.key != nil || s.reason != ReasonNoEpoch || th.ended == nil {
		t.Fatalf("alone: %v %v", s.allowed, s.reason)
	}
	again := w.add(RoleTherapist, "again")
	s.do(s.e.AdmitTherapist(w.now, again.e.D()))
	w.run(3000)
	w.settled(s, again)
}

func TestRotation(t *testing.T) {
	w := newWorld(t, 5)
	nodes := w.call(RoleTherapist, RolePatient)
	code, gen := nodes[0].epoch.Code, nodes[0].key.Gen
	for i := range 40 {
		nodes[0].do(nodes[0].e.Rekey(w.now))
		for range 50 {
			w.run(10)
			if !nodes[0].allowed || !nodes[1].allowed {
				t.Fatal("rotation cuts the line")
			}
			if _, ok := nodes[1].recv[nodes[0].e.D()][nodes[0].key.Gen]; !ok {
				t.Fatal("switched before the others had the key")
			}
		}
		if nodes[0].key.Gen != gen+uint32(i)+1 {
			t.Fatalf("gen %d", nodes[0].key.Gen)
		}
	}
	before := nodes[1].key.Gen
	w.run(700_000)
	w.settled(nodes...)
	if nodes[1].key.Gen != before+1 || nodes[0].epoch.Code != code {
		t.Fatalf("gen %d after %d; code %v", nodes[1].key.Gen, before, nodes[0].epoch.Code == code)
	}
}

func TestCheckRound(t *testing.T) {
	w := newWorld(t, 6)
	nodes := w.call(RoleTherapist, RolePatient)
	s, th, pat := nodes[0], nodes[1], nodes[2]
	code := s.epoch.Code
	th.do(th.e.Check(w.now))
	w.run(3000)
	w.settled(nodes...)
	if s.epoch.Code == code || !pat.epoch.Check || pat.epoch.Pictures != th.epoch.Pictures {
		t.Fatal("no fresh round for the comparison")
	}
	for _, m := range th.e.Resend() { // the request again: same T, already served
		s.take(s.e.Handle(w.now, m))
	}
	number := s.epoch.Number
	w.run(3000)
	if s.epoch.Number != number {
		t.Fatal("an old request made another round")
	}
	if _, err := pat.e.Check(w.now); err == nil {
		t.Fatal("a patient asks for a check")
	}
}

func TestComparedIsTakenOver(t *testing.T) {
	w := newWorld(t, 7)
	nodes := w.call(RoleTherapist, RolePatient, RoleGuest)
	s, th, pat, g := nodes[0], nodes[1], nodes[2], nodes[3]
	pat.do(pat.e.MarkEqual(w.now, pat.epoch.T))
	if len(pat.inV) != 3 {
		t.Fatalf("V has %d", len(pat.inV))
	}
	late := w.add(RoleGuest, "late")
	g.take(g.e.Leave(w.now))
	w.run(3000)
	s.do(s.e.Admit(w.now, late.e.D(), RoleGuest))
	w.run(3000)
	w.settled(s, th, pat, late)
	if m := memberOf(pat, late.e.D()); m.Compared {
		t.Fatal("a newcomer counts as compared")
	}
	if m := memberOf(pat, th.e.D()); !m.Compared {
		t.Fatal("a comparison was forgotten by a join")
	}
	th.do(th.e.MarkEqual(w.now, th.epoch.T))
	w.run(100)
	if by, ok := pat.inV[late.e.D()]; !ok || by != th.e.D() {
		t.Fatal("the therapist's word was not taken over")
	}
	if _, ok := s.inV[late.e.D()]; ok {
		t.Fatal("the room believes a therapist whom it has not compared")
	}
	s.do(s.e.MarkEqual(w.now, s.epoch.T))
	if _, ok := s.inV[late.e.D()]; !ok {
		t.Fatal("not compared")
	}
	if _, err := pat.e.MarkEqual(w.now, T{1}); err == nil {
		t.Fatal("another T was marked")
	}
}

func memberOf(n *node, d D) Member {
	for _, m := range n.e.describe().Members {
		if m.D == d {
			return m
		}
	}
	return Member{}
}

func TestGuestNeedsThePatient(t *testing.T) {
	for _, policy := range []GuestPolicy{GuestAgree, GuestAnnounce} {
		for _, answer := range []int{-1, 0, 1} {
			t.Run(fmt.Sprint(policy, answer), func(t *testing.T) { guest(t, policy, answer) })
		}
	}
}

func guest(t *testing.T, policy GuestPolicy, answer int) {
	w := newWorld(t, 8)
	cfg := w.config(RoleDevice, "Room 1")
	cfg.Guests = policy
	s, th, pat := w.addConfig(cfg), w.add(RoleTherapist, "Dr Lee"), w.add(RolePatient, "Maria")
	s.do(s.e.Admit(w.now, th.e.D(), RoleTherapist))
	s.do(s.e.Admit(w.now, pat.e.D(), RolePatient))
	w.run(5000)
	w.settled(s, th, pat)
	g := w.add(RoleGuest, "Sam")
	th.do(th.e.Admit(w.now, g.e.D(), RoleGuest))
	w.run(1000)
	if len(pat.asked) != 1 || len(s.asked) != 1 || g.epoch != nil {
		t.Fatalf("asked %d %d", len(pat.asked), len(s.asked))
	}
	if answer >= 0 {
		pat.do(pat.e.AgreeGuest(w.now, g.e.D(), answer == 1))
	}
	w.run(10_000)
	in := answer == 1
	if (g.epoch != nil) != in {
		t.Fatalf("after the answer: in %v", g.epoch != nil)
	}
	w.run(20_000)
	in = in || (answer < 0 && policy == GuestAnnounce)
	if (g.epoch != nil) != in {
		t.Fatalf("at the end: in %v, want %v", g.epoch != nil, in)
	}
	if in {
		w.settled(s, th, pat, g)
	} else {
		w.settled(s, th, pat)
	}
}

func TestTherapistAdmitsAcrossEpochs(t *testing.T) {
	w := newWorld(t, 9)
	nodes := w.call(RoleTherapist)
	s, th := nodes[0], nodes[1]
	pat, g := w.add(RolePatient, "Maria"), w.add(RoleGuest, "Sam")
	th.do(th.e.Check(w.now)) // the T changes under the admit
	th.do(th.e.Admit(w.now, pat.e.D(), RolePatient))
	th.do(th.e.Admit(w.now, g.e.D(), RoleGuest))
	w.run(4000)
	w.settled(s, th, pat)
	pat.do(pat.e.AgreeGuest(w.now, g.e.D(), true))
	w.run(4000)
	w.settled(s, th, pat, g)
	if _, err := pat.e.Admit(w.now, D{9}, RoleGuest); err == nil {
		t.Fatal("a patient admits")
	}
}

func TestNetworkCut(t *testing.T) {
	w := newWorld(t, 10)
	nodes := w.call(RoleTherapist, RolePatient)
	s, th, pat := nodes[0], nodes[1], nodes[2]
	T, gen := s.epoch.T, pat.key.Gen
	pat.off = true
	var lost [][]byte
	w.lie = func(from, to *node, msg []byte) [][]byte {
		if from == pat && pat.off {
			lost = append(lost, msg)
			return nil
		}
		return [][]byte{msg}
	}
	s.take(s.e.Gone(w.now, pat.e.D()))
	pat.take(pat.e.Online(w.now, false))
	w.run(20_000)
	if pat.allowed || pat.reason != ReasonNoAlive {
		t.Fatalf("sends without alive: %v", pat.reason)
	}
	if !s.allowed || !th.allowed {
		t.Fatal("the others stopped")
	}
	pat.off = false
	pat.take(pat.e.Online(w.now, true))
	s.take(s.e.Back(w.now, pat.e.D()))
	for _, n := range nodes {
		for _, m := range n.e.Resend() {
			w.relay(n, m)
		}
	}
	w.run(6000)
	w.settled(nodes...)
	if s.epoch.T != T || pat.key.Gen != gen {
		t.Fatal("a cut changed the code or the keys")
	}
	s.take(s.e.Gone(w.now, pat.e.D()))
	pat.off = true
	w.run(61_000)
	w.settled(s, th)
	if s.dropped[pat.e.D()] != ReasonGone {
		t.Fatalf("dropped %v", s.dropped)
	}
}

// A cut in the middle of a round: what was lost comes again, and the round ends well.
func TestLossDuringRound(t *testing.T) {
	for seed := range uint64(60) {
		w := newWorld(t, seed)
		s, th := w.add(RoleDevice, "Room 1"), w.add(RoleTherapist, "Dr Lee")
		w.lie = func(_, _ *node, msg []byte) [][]byte {
			if w.rng.IntN(3) == 0 {
				w.lied++
				return nil
			}
			return [][]byte{msg, msg}
		}
		s.do(s.e.Admit(w.now, th.e.D(), RoleTherapist))
		w.run(400)
		w.lie = nil
		for range 2 {
			for _, n := range w.nodes {
				for _, m := range n.e.Resend() {
					w.relay(n, m)
				}
			}
			w.run(400)
		}
		w.settled(s, th)
	}
}

func TestSilentNewcomer(t *testing.T) {
	w := newWorld(t, 11)
	nodes := w.call(RoleTherapist)
	silent := w.add(RolePatient, "silent")
	silent.off = true
	nodes[0].do(nodes[0].e.Admit(w.now, silent.e.D(), RolePatient))
	w.run(9000)
	w.settled(nodes...)
	w.run(3000)
	w.settled(nodes...)
	if nodes[0].dropped[silent.e.D()] != ReasonSilent {
		t.Fatalf("dropped %v", nodes[0].dropped)
	}
	silent.off = false
	nodes[0].do(nodes[0].e.Admit(w.now, silent.e.D(), RolePatient))
	w.run(3000)
	w.settled(append(nodes, silent)...)
}

func TestEnd(t *testing.T) {
	w := newWorld(t, 12)
	nodes := w.call(RoleTherapist, RolePatient)
	nodes[0].take(nodes[0].e.End(w.now))
	w.run(100)
	for _, n := range nodes {
		if n.ended == nil || n.ended.Reason != ReasonEnded || n.key != nil || n.allowed {
			t.Fatalf("node %d: %v", n.i, n.ended)
		}
		for _, keys := range n.recv {
			if len(keys) != 0 {
				t.Fatal("keys after the end")
			}
		}
		if n.e.Tick(w.now+1) != nil || n.e.Resend() != nil {
			t.Fatal("acts after the end")
		}
	}
}

func TestDifferent(t *testing.T) {
	w := newWorld(t, 13)
	nodes := w.call(RoleTherapist, RolePatient)
	nodes[1].take(nodes[1].e.MarkDifferent(w.now))
	w.run(100)
	for _, n := range nodes {
		if n.failed == nil || n.failed.Reason != ReasonDifferent || n.key != nil {
			t.Fatalf("node %d: %v", n.i, n.failed)
		}
	}
	if nodes[2].failed.From != nodes[1].e.D() {
		t.Fatal("who said so?")
	}
}

func TestPolicy(t *testing.T) {
	w := newWorld(t, 14)
	cfg := w.config(RoleDevice, "Room 1")
	cfg.MinLevel = nil // a therapist needs level 2
	s, th := w.addConfig(cfg), w.add(RoleTherapist, "Dr Lee")
	s.do(s.e.Admit(w.now, th.e.D(), RoleTherapist))
	w.run(3000)
	if s.failed == nil || s.failed.Reason != ReasonLevel || th.failed == nil {
		t.Fatalf("s %v th %v", s.failed, th.failed)
	}
}

// A proof that S has no verifier for is refused; with one, S's challenge reaches it once.
func TestChallengedProof(t *testing.T) {
	for _, installed := range []bool{false, true} {
		w := newWorld(t, 15)
		cfg := w.config(RoleDevice, "Room 1")
		var got, want [32]byte
		if installed {
			p := Proofs{Passkey: func(c Claim) error {
				got = *c.Challenge
				return nil
			}}
			cfg.Verify = p.Verify
		}
		s := w.addConfig(cfg)
		thCfg := w.config(RoleTherapist, "Dr Lee")
		thCfg.Prove = func(r ProofRequest) (Proof, error) {
			want = *r.Challenge
			c := PasskeyChallenge(r.D, *r.Challenge)
			return Proof{Kind: KindPasskey, Level: LevelClinic, Body: c[:]}, nil
		}
		th := w.addConfig(thCfg)
		s.do(s.e.Challenge(w.now, th.e.D()))
		w.run(100)
		s.do(s.e.Admit(w.now, th.e.D(), RoleTherapist))
		w.run(3000)
		if !installed {
			if s.failed == nil || s.failed.Reason != ReasonProof {
				t.Fatalf("accepted without a verifier: %v", s.failed)
			}
			continue
		}
		w.settled(s, th)
		if got != want || len(s.e.seq.challenges) != 0 {
			t.Fatal("challenge not used, or not used up")
		}
		if m := memberOf(s, th.e.D()); m.Level != LevelClinic || m.Verified != LevelClinic {
			t.Fatalf("%+v", m)
		}
	}
}
