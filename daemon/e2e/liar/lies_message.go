package liar

import (
	"bytes"
	"strings"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// Lies about single messages.

// swap puts something of the attacker's in the place of one kind of message, each time it passes.
func swap() *Lie {
	return &Lie{
		Name: "swap", Does: "replaces a message, or a part of it, by the attacker's own",
		Variants: []string{"document", "reveal", "nonce", "proof", "commit", "propose", "keys", "alive"},
		Ends:     refused, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			s := &swapping{r: r, way: r.victim(), done: make(map[string][]byte)}
			if r.Variant == "propose" || r.Variant == "alive" {
				s.way = HubToPage // the room alone sends these
				r.vary("victim", s.way.String())
			}
			s.ghost = r.newForged(byte(r.Role), "Ada Byron", s.way)
			return s, nil
		},
	}
}

type swapping struct {
	truth
	r     *Run
	way   Way
	ghost *Forged
	done  map[string][]byte // by what was said: the same lie for the same words
}

func (s *swapping) Message(way Way, m Message) bool {
	kind := map[string]string{"document": "reveal", "nonce": "reveal", "proof": "reveal"}[s.r.Variant]
	if kind == "" {
		kind = s.r.Variant
	}
	if way != s.way || m.Kind != kind {
		return true
	}
	lie := s.done[string(m.Raw)]
	if lie == nil {
		lie = s.lie(m)
		s.done[string(m.Raw)] = lie
	}
	s.r.tell(way, lie)
	return false
}

func (s *swapping) lie(m Message) []byte {
	r, g := s.r, s.ghost
	v, _ := readReveal(m.Body)
	switch r.Variant {
	case "document":
		v.doc = g.doc
		return m.with(v.write()).write()
	case "reveal": // all of it, under the attacker's name and signature
		v.doc, v.nonce = g.doc, random32()
		return g.message("reveal", m.E, v.write())
	case "nonce":
		v.nonce = random32()
		return m.with(v.write()).write()
	case "proof":
		v.proof = r.flip(v.proof, 2, len(v.proof))
		return m.with(v.write()).write()
	case "alive":
		return m.with(r.flip(m.Body, 32, len(m.Body))).write()
	}
	return m.with(r.flip(m.Body, 0, len(m.Body))).write()
}

// replay gives an end, in the place of a fresh message, one of an earlier session.
func replay() *Lie {
	return &Lie{
		Name: "replay", Does: "delivers an earlier session's message in the place of the present one",
		Variants: []string{"propose", "commit", "reveal", "alive", "keys", "propose, header renewed", "commit, header renewed",
			"reveal, header renewed", "alive, header renewed", "keys, header renewed"},
		Ends: refused, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			kind, renewed, _ := cut(r.Variant)
			p := &replaying{r: r, kind: kind, renewed: renewed, way: r.victim()}
			if kind == "propose" || kind == "alive" {
				p.way = HubToPage
				r.vary("victim", p.way.String())
			}
			p.pick = r.Rand.IntN(1 << 30)
			return p, nil
		},
	}
}

func cut(variant string) (kind string, renewed, more bool) {
	kind, rest, more := strings.Cut(variant, ", ")
	return kind, rest == "header renewed", more
}

type replaying struct {
	truth
	r       *Run
	kind    string
	renewed bool
	way     Way
	pick    int
}

func (p *replaying) Message(way Way, m Message) bool {
	if way != p.way || m.Kind != p.kind {
		return true
	}
	var old []Message
	for _, o := range p.r.clinic.bank {
		if o.to == p.way && o.Kind == m.Kind && o.From != m.From {
			old = append(old, o.Message)
		}
	}
	if len(old) == 0 {
		return true // nothing arrives, and the run says so
	}
	lie := old[p.pick%len(old)]
	if p.renewed {
		lie.SID, lie.E, lie.From = m.SID, m.E, m.From
		if m.Kind != "propose" { // P, or T, stands in front
			lie.Body = append(bytes.Clone(m.Body[:32]), lie.Body[32:]...)
		}
	}
	p.r.tell(way, lie.write())
	return false
}

// withhold keeps one kind of message from an end for good.
func withhold() *Lie {
	return &Lie{
		Name: "withhold", Does: "keeps one kind of message from an end for good",
		Variants: []string{"propose", "commit from the page", "commit from the room", "reveal from the page", "reveal from the room",
			"alive", "keys from the page", "keys from the room", "ready"},
		Ends: refused, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			if r.vary("victim", HubToPage.String()); strings.HasSuffix(r.Variant, "from the page") {
				r.vary("victim", HubToRoom.String())
			}
			return &withholding{r: r}, nil
		},
	}
}

type withholding struct {
	truth
	r *Run
}

func (w *withholding) Message(way Way, m Message) bool {
	switch way {
	case HubToRoom:
		return w.r.Variant != m.Kind+" from the page" && w.r.Variant != m.Kind
	case HubToPage:
		return w.r.Variant != m.Kind+" from the room" && w.r.Variant != m.Kind
	}
	return true
}

// twoCommits gives an end a second commitment of the other, before or behind the true one.
func twoCommits() *Lie {
	return &Lie{
		Name: "two commits", Does: "delivers two different commitments of one endpoint",
		Variants: []string{"before", "behind", "before, signed by somebody", "behind, signed by somebody"},
		Ends:     refused, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			t := &twoFaced{r: r, way: r.victim(), c: random32()}
			t.ghost = r.newForged(byte(r.Role), "Ada Byron", t.way)
			return t, nil
		},
	}
}

type twoFaced struct {
	truth
	r     *Run
	way   Way
	c     [32]byte
	ghost *Forged
}

func (t *twoFaced) Message(way Way, m Message) bool {
	if way != t.way || m.Kind != "commit" {
		return true
	}
	lie := m.with(append(bytes.Clone(m.Body[:32]), t.c[:]...))
	where, _, signed := cut(t.r.Variant)
	lie.Sig = t.r.junk(signatureSize)
	if signed {
		other, _ := read(t.ghost.message("commit", m.E, lie.Body))
		lie.Sig = other.Sig
	}
	if where == "before" {
		t.r.tell(way, lie.write())
		return true
	}
	t.r.pass(way, m.Raw)
	t.r.tell(way, lie.write())
	return false
}

// commitSet shows the ends different sets of commitments.
func commitSet() *Lie {
	return &Lie{
		Name: "commit set", Does: "lets the ends freeze different commitments: in flight, in the hash that a reveal names, or by a member who signs two",
		Variants: []string{"commit in flight", "K in flight", "P in flight", "a member's two commitments"},
		Ends:     refused, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			if r.Variant == "a member's two commitments" {
				g := r.newGuest(r.newForged(byte(agreement.RoleGuest), "Guest", HubToRoom, HubToPage))
				other := random32()
				victim := r.victim()
				g.forged.commit = func(way Way, c [32]byte) [32]byte {
					if way == victim {
						return hash("commit", g.forged.p[:], g.forged.d[:], other[:])
					}
					return c
				}
				return g, nil
			}
			return &freezing{r: r, way: r.victim(), done: make(map[string][]byte)}, nil
		},
	}
}

type freezing struct {
	truth
	r    *Run
	way  Way
	done map[string][]byte
}

func (f *freezing) Message(way Way, m Message) bool {
	kind, from, to := "commit", 32, 64
	switch f.r.Variant {
	case "K in flight":
		kind, from, to = "reveal", 32, 64
	case "P in flight":
		kind, from, to = "commit", 0, 32
	}
	if way != f.way || m.Kind != kind {
		return true
	}
	if f.done[string(m.Raw)] == nil {
		f.done[string(m.Raw)] = m.with(f.r.flip(m.Body, from, to)).write()
	}
	f.r.tell(way, f.done[string(m.Raw)])
	return false
}

// banked is what an honest end of an earlier run said, and to whom.
type banked struct {
	Message
	to Way
}

// keep puts what the ends of an honest run said into the bank.
func (c *Clinic) keep(r *Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for way, to := range map[Way]Way{RoomToHub: HubToPage, PageToHub: HubToRoom} {
		for _, m := range r.heard[way] {
			c.bank = append(c.bank, banked{m, to})
		}
	}
}
