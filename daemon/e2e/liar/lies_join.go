package liar

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// Lies in a session of three: the room, the page, and a guest whom the room let in and who is the attacker's.

// guesting lets the session begin in truth and then a guest join it.
type guesting struct {
	truth
	r       *Run
	forged  *Forged  // a guest without rules, or
	foreign *Foreign // one who keeps to them
	phase   int      // 0 two members, 1 the guest knocks
}

func (r *Run) newGuest(forged *Forged) *guesting {
	g := &guesting{r: r, forged: forged}
	if forged == nil {
		g.foreign = r.newForeign(agreement.RoleGuest, "Guest", nil, func(raw []byte) {
			r.pass(HubToRoom, raw)
			r.pass(HubToPage, raw)
		})
		g.foreign.member = true
	}
	return g
}

func (g *guesting) d() agreement.D {
	if g.forged != nil {
		return g.forged.d
	}
	return g.foreign.ep.D()
}

func (g *guesting) Step(s Seen) bool {
	if g.phase == 0 && s.Room.up() && s.Page.up() {
		g.phase = 1
		g.r.knock(knockOf(g.d(), agreement.RoleGuest, "Guest"))
	}
	return g.phase > 0
}

func (g *guesting) Control(way Way, c Control) bool {
	return way != RoomToHub || c.text("d") != g.d().String() // the real hub knows of no guest
}

func (g *guesting) Message(way Way, m Message) bool {
	if g.phase > 0 && (way == RoomToHub || way == PageToHub) {
		if g.forged != nil {
			g.forged.hear(m)
		} else {
			g.foreign.hear(m.Raw)
		}
	}
	return true
}

func (g *guesting) Judge(o Outcome) error {
	if g.phase == 0 {
		return fmt.Errorf("the guest never came: %+v", o.Last)
	}
	return nil
}

// unequalKeys: a member seals different secrets to the others, under one hash.
func unequalKeys() *Lie {
	return &Lie{
		Name: "unequal keys", Does: "seals another secret to one member than to the other, in one signed message each",
		Variants: []string{"to the room", "to the page"}, Ends: refused, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			g := r.newGuest(r.newForged(byte(agreement.RoleGuest), "Guest", HubToRoom, HubToPage))
			victim := map[string]Way{"to the room": HubToRoom, "to the page": HubToPage}[r.Variant]
			g.forged.secret = func(way Way, s [32]byte) [32]byte {
				if way == victim {
					return random32()
				}
				return s
			}
			return g, nil
		},
	}
}

// oldTranscript keeps the page at the transcript before the guest came, by that transcript's own messages.
func oldTranscript() *Lie {
	return &Lie{
		Name: "old transcript", Does: "delivers the former transcript's messages to the page when somebody joins",
		Variants: []string{"propose", "propose, header renewed", "alive", "alive, header renewed", "reveal", "reveal, header renewed"},
		Ends:     refusedOrDifferent, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			kind, renewed, _ := cut(r.Variant)
			return &stale{guesting: r.newGuest(nil), kind: kind, renewed: renewed}, nil
		},
	}
}

type stale struct {
	*guesting
	kind    string
	renewed bool
}

func (s *stale) Message(way Way, m Message) bool {
	s.guesting.Message(way, m)
	if way != HubToPage || m.Kind != s.kind || m.From != s.r.roomD || m.E < 2 {
		return true
	}
	var old *Message
	for i, o := range s.r.heard[RoomToHub] {
		if o.Kind == s.kind && o.E == 1 {
			old = &s.r.heard[RoomToHub][i]
		}
	}
	if old == nil {
		return true
	}
	lie := *old
	if s.renewed {
		lie.E = m.E
		if s.kind == "reveal" {
			lie.Body = append(bytes.Clone(m.Body[:64]), lie.Body[64:]...) // P and K
		}
	}
	s.r.tell(way, lie.write())
	return false
}

// hoard holds alives back and hands them out slowly.
func hoard() *Lie {
	return &Lie{
		Name: "alive hoarding", Does: "hands the room's alives to the page later and later, or never",
		Variants: []string{"twice as slowly", "three times as slowly", "never"},
		Ends:     []Class{StoppedInTime}, Tells: true, Media: true,
		Begin: func(r *Run) (Teller, error) {
			slow := map[string]int{"twice as slowly": 2, "three times as slowly": 3}[r.Variant]
			return &hoarding{leasing: leasing{r: r, slow: slow}}, nil
		},
	}
}

// leasing watches what leaves the page while its lease of alives runs out.
type leasing struct {
	r        *Run
	slow     int
	holds    bool
	since    time.Time // of the hoard, on the clinic's clock
	made     time.Time // when the newest alive was made that the page has
	kept     []alive
	wasFree  bool
	trouble  error
	deadline time.Time // at this machine, for the line to come up
}

type alive struct {
	made time.Time
	raw  []byte
}

const (
	lease = 15 * time.Second // daemon/e2ee/agreement: a member stops when the newest alive is older
	slack = 1500 * time.Millisecond
)

// take is called for each alive on its way to the page.
func (l *leasing) take(m Message) bool {
	now := l.r.clinic.clock.Now()
	if !l.holds {
		l.made = now
		return true
	}
	l.kept = append(l.kept, alive{now, bytes.Clone(m.Raw)})
	return false
}

// sends waits until the page's sound and picture leave it; time flows as it is meanwhile.
func (l *leasing) sends() bool {
	l.r.still = true
	if l.deadline.IsZero() {
		l.deadline = time.Now().Add(15 * time.Second)
	}
	packets, err := l.r.flow()
	if err != nil || time.Now().After(l.deadline) {
		l.trouble = fmt.Errorf("nothing leaves the page before the lie (%v)", err)
	}
	return packets > 0 && err == nil
}

func (l *leasing) start() {
	l.r.still = false
	l.holds, l.since = true, l.r.clinic.clock.Now()
}

// watch hands out what is due and looks at what leaves the page; true when it has been seen to stop.
func (l *leasing) watch() bool {
	now := l.r.clinic.clock.Now()
	age := now.Sub(l.made)
	switch {
	case age < lease-slack:
		if !l.wasFree && age > 8*time.Second {
			packets, err := l.r.flow()
			if err != nil || packets == 0 {
				l.trouble = fmt.Errorf("%v after the newest alive the page does not send (%v)", age, err)
			}
			l.wasFree = true
		}
	case age > lease+slack:
		packets, err := l.r.stopped()
		if err != nil || packets > 0 {
			l.trouble = fmt.Errorf("%v after the newest alive the page sends %d packets (%v)", age, packets, err)
		}
		return l.trouble == nil
	default:
		return false // too close to the limit to judge
	}
	if l.slow > 0 && len(l.kept) > 0 && now.Sub(l.since) >= time.Duration(l.slow)*l.kept[0].made.Sub(l.since) {
		l.r.tell(HubToPage, l.kept[0].raw)
		l.made, l.kept, l.wasFree = l.kept[0].made, l.kept[1:], false
		l.r.vary("handed out", "yes")
	}
	return false
}

type hoarding struct {
	truth
	leasing
}

func (h *hoarding) Message(way Way, m Message) bool {
	return way != HubToPage || m.Kind != "alive" || h.take(m)
}

func (h *hoarding) Step(s Seen) bool {
	switch {
	case h.trouble != nil:
		return true
	case !h.holds:
		if s.Room.up() && s.Page.up() && h.sends() {
			h.start()
		}
		return false
	case h.r.class == "" && h.watch():
		h.r.class = StoppedInTime
	}
	return h.r.class != ""
}

func (h *hoarding) Judge(Outcome) error { return h.trouble }

// suppress keeps the removal of a member from the page.
func suppress() *Lie {
	return &Lie{
		Name: "suppressed removal", Does: "lets the page go on with a guest whom the room has removed",
		Variants: []string{"silence", "alives held back before"},
		Ends:     []Class{StoppedInTime}, Tells: true, Media: true,
		Begin: func(r *Run) (Teller, error) {
			s := &suppressing{guesting: r.newGuest(nil), leasing: leasing{r: r}}
			if r.Variant == "alives held back before" {
				s.slow = 2
			}
			s.wait = time.Duration(r.Rand.IntN(9)) * time.Second
			r.vary("removed after", fmt.Sprintf("%v", s.wait))
			return s, nil
		},
	}
}

type suppressing struct {
	*guesting
	leasing
	wait    time.Duration
	joined  time.Time
	removed bool
	before  int // secrets that the guest had when it was removed
}

func (s *suppressing) Control(way Way, c Control) bool {
	if s.removed && way == HubToPage && slices.Contains([]string{"removed", "ended", "refused"}, c.text("t")) {
		return false
	}
	return s.guesting.Control(way, c)
}

func (s *suppressing) Message(way Way, m Message) bool {
	s.guesting.Message(way, m)
	switch {
	case way == HubToPage && m.Kind == "alive" && !s.removed:
		return s.take(m)
	case way == HubToPage && s.removed:
		return false // all that the room says from now on
	}
	return true
}

func (s *suppressing) Step(seen Seen) bool {
	r := s.guesting.r
	switch {
	case s.trouble != nil:
		return true
	case s.joined.IsZero():
		s.guesting.Step(seen)
		if len(s.foreign.epochs) > 0 && seen.Room.up() && seen.Room.People == 2 && seen.Page.up() && seen.Page.Code == s.foreign.code() && s.sends() {
			s.joined = r.clinic.clock.Now()
			r.still = false
			if s.slow > 0 {
				s.start()
			}
		}
	case !s.removed:
		if r.clinic.clock.Now().Sub(s.joined) < s.wait {
			return false
		}
		s.remove()
	case r.class == "" && s.watch():
		r.class = StoppedInTime
	}
	return r.class != ""
}

// remove is the touch in the room.
func (s *suppressing) remove() {
	r := s.guesting.r
	s.removed, s.before = true, len(s.foreign.secrets)
	if !s.holds {
		s.start()
	}
	r.mu.Unlock()
	err := r.clinic.press("remove", map[string]any{"person": "Guest"})
	r.mu.Lock()
	if err != nil {
		s.trouble = err
	}
}

func (s *suppressing) Judge(o Outcome) error {
	if n := len(s.foreign.secrets); s.trouble == nil && n != s.before {
		return fmt.Errorf("the guest got %d more secrets after its removal", n-s.before)
	}
	return s.trouble
}

// admit is a forged endpoint's own admission of itself.
func (f *Forged) admit(prev agreement.T) []byte {
	sid := parseSID(f.run.sid)
	b := lp(nil, []byte("alcove/admit/v1"))
	b = append(append(b, sid[:]...), prev[:]...)
	b = append(append(b, f.d[:]...), f.doc[4+len("alcove/doc/v1")+32+16+32], 1)
	sig := ed25519.Sign(f.sign, b)
	return append(append(b, f.d[:]...), sig...)
}

func sortAdmits(admits [][]byte) {
	at := 4 + len("alcove/admit/v1") + 16 + 32
	slices.SortFunc(admits, func(a, b []byte) int { return bytes.Compare(a[at:at+32], b[at:at+32]) })
}
