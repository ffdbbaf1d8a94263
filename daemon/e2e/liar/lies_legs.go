package liar

import (
	"fmt"
	"math/bits"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// Lies about who is at the other end.

// split runs two sessions, one with each end, and looks to each like the other.
func split() *Lie {
	return &Lie{
		Name: "split", Does: "agrees with each end in the other's place",
		Variants: []string{"a stranger's device key", "the room's stolen device key"},
		Ends:     []Class{RefusedByPage, CodesDiffer}, Tells: true,
		Begin: func(r *Run) (Teller, error) { return newSplitting(r, r.Variant == "the room's stolen device key") },
	}
}

// splitting is the attacker between the ends: a person towards the room, the room towards the page.
type splitting struct {
	truth
	r      *Run
	person *Foreign
	device *Foreign
	stolen bool
}

func newSplitting(r *Run, stolen bool) (*splitting, error) {
	key, err := strangerKey()
	if stolen {
		key, err = r.stolenKey()
	}
	if err != nil {
		return nil, err
	}
	s := &splitting{r: r, stolen: stolen}
	s.person = r.newForeign(r.Role, "Ada Byron", nil, func(raw []byte) { r.tell(HubToRoom, raw) })
	s.device = r.newForeign(agreement.RoleDevice, "Room 1", key, func(raw []byte) { r.tell(HubToPage, raw) })
	return s, nil
}

func (s *splitting) Control(way Way, c Control) bool {
	stand(s.r, way, c, s.person.ep.D())
	if way == HubToPage && c.text("t") == "admitted" && len(s.device.epochs) == 0 {
		effects, err := s.device.ep.Admit(s.r.now(), s.r.pageD, s.r.Role)
		if err == nil {
			s.device.do(effects)
		}
	}
	return true
}

// stand puts d in the page's place towards the room.
func stand(r *Run, way Way, c Control, d agreement.D) {
	switch {
	case way == HubToRoom && c.text("d") == r.pageD.String():
		c["d"] = d.String()
	case way == RoomToHub && c.text("d") == d.String():
		c["d"] = r.pageD.String()
	}
}

func (s *splitting) Message(way Way, m Message) bool {
	switch way {
	case RoomToHub:
		s.person.hear(m.Raw)
	case PageToHub:
		s.device.hear(m.Raw)
	}
	return false
}

func (s *splitting) Judge(o Outcome) error {
	want := RefusedByPage
	if s.stolen {
		want = CodesDiffer
	}
	if o.Class != want {
		return fmt.Errorf("%s, not %s", o.Class, want)
	}
	return nil
}

// grind brings one more endpoint to each leg of a split and looks for one that makes the codes equal.
func grind() *Lie {
	return &Lie{
		Name: "grind on join", Does: "splits with the room's stolen key, lets one more join each leg, and searches for a nonce that makes the codes equal",
		Variants: []string{"before its commitment", "after the others' nonces", "again until it fits"},
		Ends:     []Class{CodesDiffer, RefusedByPage}, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			s, err := newSplitting(r, true)
			if err != nil {
				return nil, err
			}
			return newGrinding(r, s), nil
		},
	}
}

// tries is how many nonces are searched through, as in the time that a person takes to compare.
const tries = 20_000

type grinding struct {
	*splitting
	first  *Foreign // joins the room's leg, which is completed first
	second *Forged  // joins the page's leg and grinds
	phase  int
	best   int
}

func newGrinding(r *Run, s *splitting) *grinding {
	g := &grinding{splitting: s}
	g.first = r.newForeign(agreement.RoleGuest, "Guest", nil, func(raw []byte) {
		r.tell(HubToRoom, raw)
		r.post(func() { s.person.hear(raw) })
	})
	s.person.say = func(raw []byte) {
		r.tell(HubToRoom, raw)
		r.post(func() { g.first.hear(raw) })
	}
	g.second = r.newForged(byte(agreement.RoleGuest), "Guest", HubToPage)
	g.second.also = func(raw []byte) { r.post(func() { s.device.hear(raw) }) }
	s.device.say = func(raw []byte) {
		r.tell(HubToPage, raw)
		if m, ok := read(raw); ok {
			r.post(func() { g.second.hear(m) })
		}
	}
	switch r.Variant {
	case "before its commitment":
		g.second.draw = g.guess
	case "after the others' nonces":
		g.second.nonce = func(_ *Forged, own [32]byte) [32]byte { return g.search() }
	default:
		g.second.nonce = func(_ *Forged, own [32]byte) [32]byte {
			if g.fits(own) == 40 {
				return own
			}
			return [32]byte{} // it does not fit: say nothing, try again
		}
	}
	return g
}

func (g *grinding) Message(way Way, m Message) bool {
	g.splitting.Message(way, m)
	switch way {
	case RoomToHub:
		g.first.hear(m.Raw)
	case PageToHub:
		g.second.hear(m)
	}
	return false
}

func (g *grinding) Control(way Way, c Control) bool {
	if way == RoomToHub && c.text("d") == g.first.ep.D().String() {
		return false // the real hub knows of no such person
	}
	return g.splitting.Control(way, c)
}

func (g *grinding) Step(s Seen) bool {
	switch g.phase {
	case 0:
		if s.Room.up() && s.Page.up() {
			g.phase = 1
			g.r.tellControl(HubToRoom, knockOf(g.first.ep.D(), agreement.RoleGuest, "Guest"))
		}
	case 1:
		if len(g.person.epochs) == 2 && s.Room.Code == g.person.code() {
			g.phase = 2
			g.admit()
		}
	case 2:
		// Left out for its silence, it is let in again.
		if g.r.Variant != "again until it fits" || s.Page.Screen == "notice" || g.device.ended != "" {
			return true
		}
		g.admit()
	}
	return false
}

func (g *grinding) admit() {
	effects, err := g.device.ep.Admit(g.r.now(), g.second.d, agreement.RoleGuest)
	if err == nil {
		g.device.do(effects)
	}
}

// fits counts the leading bits in which the page's code, with this nonce, would be the room's.
func (g *grinding) fits(nonce [32]byte) int {
	f := g.second
	a := hash("code", raw(g.person.epochs[1].T))
	b := hash("code", raw(f.transcript(HubToPage, nonce, f.level)))
	n := 0
	for i := 0; i < 5; i++ {
		if x := a[i] ^ b[i]; x != 0 {
			n += bits.LeadingZeros8(x)
			break
		}
		n += 8
	}
	g.best = max(g.best, n)
	return n
}

func raw(t agreement.T) []byte { return t[:] }

func (g *grinding) search() (best [32]byte) {
	most := -1
	for range tries {
		candidate := random32()
		if n := g.fits(candidate); n > most {
			most, best = n, candidate
		}
	}
	return best
}

// guess searches with guessed nonces of the others, which is all that is known before commitments are opened.
func (g *grinding) guess(f *Forged) (best [32]byte) {
	most := -1
	target := hash("code", raw(g.person.epochs[1].T))
	for range tries {
		candidate, theirs, ours, k := random32(), random32(), random32(), random32()
		t := hash("transcript", f.prev[:], f.p[:], k[:], candidate[:], theirs[:], ours[:], []byte{1}, []byte{1}, []byte{3})
		code := hash("code", t[:])
		n := bits.LeadingZeros8(code[0]^target[0]) + bits.LeadingZeros8(code[1]^target[1])
		if n > most {
			most, best = n, candidate
		}
	}
	return best
}

func (g *grinding) Judge(o Outcome) error {
	if g.phase < 2 {
		return fmt.Errorf("it never came to grinding: %+v", o.Last)
	}
	want := RefusedByPage
	if g.r.Variant == "before its commitment" {
		want = CodesDiffer
	}
	if o.Class != want || len(o.Codes) > 0 {
		return fmt.Errorf("%s with common codes %v, not %s", o.Class, o.Codes, want)
	}
	return nil
}

func knockOf(d agreement.D, role agreement.Role, name string) Control {
	return Control{"t": "knock", "d": d.String(), "participant": map[string]any{"id": "p-" + d.String()[:8], "role": role.String(), "name": name}}
}

// ghost adds an endpoint that the room did not let in, or not as what it is.
func ghost() *Lie {
	return &Lie{
		Name: "ghost endpoint", Does: "brings in an endpoint that nobody let in",
		Variants: []string{"in the page's place", "listed in the proposal", "listed at a join", "given a box of the keys"},
		Ends:     refused, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			if r.Variant == "listed at a join" {
				return &ghosting{guesting: r.newGuest(nil), ghost: r.newForged(byte(r.Role), "Ghost", HubToPage)}, nil
			}
			g := &ghosting{guesting: &guesting{r: r}, ghost: r.newForged(byte(r.Role), "Ghost", HubToPage), way: r.victim()}
			if r.Variant == "in the page's place" {
				g.foreign = r.newForeign(r.Role, "Ada Byron", nil, func(raw []byte) { r.tell(HubToRoom, raw) })
			}
			return g, nil
		},
	}
}

type ghosting struct {
	*guesting
	ghost *Forged
	way   Way
}

func (g *ghosting) Step(s Seen) bool {
	if g.r.Variant == "listed at a join" {
		return g.guesting.Step(s)
	}
	return true
}

func (g *ghosting) Control(way Way, c Control) bool {
	switch g.r.Variant {
	case "in the page's place":
		stand(g.r, way, c, g.foreign.ep.D())
	case "listed at a join":
		return g.guesting.Control(way, c)
	}
	return true
}

func (g *ghosting) Message(way Way, m Message) bool {
	switch g.r.Variant {
	case "in the page's place":
		if way == RoomToHub {
			g.foreign.hear(m.Raw)
		}
		return false
	case "listed at a join":
		g.guesting.Message(way, m)
	case "given a box of the keys":
		if way == g.way && m.Kind == "keys" {
			box := lp(append([]byte(nil), g.ghost.d[:]...), g.r.junk(1120+36+16))
			g.r.tell(way, m.with(append(append([]byte(nil), m.Body...), box...)).write())
			return false
		}
		return true
	}
	first := g.r.Variant == "listed in the proposal"
	if way != HubToPage || m.Kind != "propose" || !first && g.phase == 0 {
		return true
	}
	g.r.tell(way, m.with(g.list(m)).write())
	return false
}

func (g *ghosting) Judge(o Outcome) error {
	if g.r.Variant == "listed at a join" {
		return g.guesting.Judge(o)
	}
	return nil
}

// list is the proposal with the ghost in it, admitted by itself.
func (g *ghosting) list(m Message) []byte {
	p, _ := readProposal(m.Body)
	p.list = ascending(append(p.list, g.ghost.d))
	p.admits = append(p.admits, g.ghost.admit(p.prev))
	sortAdmits(p.admits)
	return p.write()
}

// wrongRole lets somebody be something else at one end than at the other.
func wrongRole() *Lie {
	return &Lie{
		Name: "wrong role", Does: "gives somebody another role at one end",
		Variants: []string{"in the knock", "in the page's invitation", "in the admit", "in the document", "as a device"},
		Ends:     refused, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			w := &casting{r: r, role: roles[(int(r.Role)-2+1+r.Rand.IntN(2))%3]}
			r.vary("role told", w.role.String())
			switch r.Variant {
			case "in the document":
				w.ghost = r.newForged(byte(w.role), "Ada Byron", HubToRoom)
			case "as a device":
				w.ghost = r.newForged(byte(agreement.RoleDevice), "Ada Byron", HubToRoom)
			}
			return w, nil
		},
	}
}

type casting struct {
	truth
	r     *Run
	role  agreement.Role
	ghost *Forged
}

func (w *casting) Answer(c Control) {
	if w.r.Variant == "in the page's invitation" {
		c.object("participant")["role"] = w.role.String()
		w.r.noteAnswer(c)
	}
}

func (w *casting) Control(way Way, c Control) bool {
	if w.ghost != nil {
		stand(w.r, way, c, w.ghost.d)
	}
	if way == HubToRoom && c.text("t") == "knock" && w.r.Variant == "in the knock" {
		c.object("participant")["role"] = w.role.String()
	}
	return true
}

func (w *casting) Message(way Way, m Message) bool {
	if w.ghost != nil {
		if way == RoomToHub {
			w.ghost.hear(m)
		}
		return false
	}
	if way != HubToPage || m.Kind != "propose" || w.r.Variant != "in the admit" {
		return true
	}
	p, _ := readProposal(m.Body)
	admit := append([]byte(nil), p.admits[0]...)
	admit[4+len("alcove/admit/v1")+16+32+32] = byte(w.role)
	p.admits[0] = admit
	w.r.tell(way, m.with(p.write()).write())
	return false
}

// merged lets two sessions look like one.
func merged() *Lie {
	return &Lie{
		Name: "merged sessions", Does: "puts room and page, each in a session of its own, into one",
		Variants: []string{"the page in another", "the page in another, relabelled", "the room in another", "the room in another, relabelled"},
		Ends:     refused, Tells: true,
		Begin: func(r *Run) (Teller, error) {
			other, _, _, err := r.clinic.appointment(r.Role, "Grace Hopper")
			if err != nil {
				return nil, err
			}
			r.others = append(r.others, other)
			where, _, relabel := cut(r.Variant)
			m := &merging{r: r, other: other, page: where == "the page in another", relabel: relabel}
			m.roomSID, m.pageSID = parseSID(r.sid), parseSID(other)
			if !m.page {
				m.roomSID, m.pageSID = m.pageSID, m.roomSID
			}
			return m, nil
		},
	}
}

type merging struct {
	truth
	r                *Run
	other            string
	page, relabel    bool
	roomSID, pageSID [16]byte
	p                [2][32]byte // of the room's proposal, as said and as relabelled
}

func (m *merging) Answer(c Control) {
	if m.page {
		c.object("session")["sid"] = m.other
		m.r.noteAnswer(c)
	}
}

func (m *merging) Entry(c Control) {
	if !m.page {
		c["sid"] = m.other
		m.r.noteEntry(c)
	}
}

func (m *merging) Control(way Way, c Control) bool {
	if m.page || c.text("sid") == "" {
		return true
	}
	switch way {
	case RoomToHub:
		c["sid"] = m.r.sid
	case HubToRoom:
		c["sid"] = m.other
	}
	return true
}

func (m *merging) Message(way Way, msg Message) bool {
	if !m.relabel || (way != HubToRoom && way != HubToPage) || isStatement(msg.Kind) {
		return true
	}
	from := 0
	if way == HubToRoom {
		msg.SID, from = m.roomSID, 1
	} else {
		msg.SID = m.pageSID
	}
	switch msg.Kind {
	case "propose":
		m.p[0] = hash("propose", mustRead(msg.Raw).unsigned())
		m.p[1] = hash("propose", msg.unsigned())
	case "commit", "reveal":
		if [32]byte(msg.Body[:32]) == m.p[from] {
			msg.Body = append(append([]byte(nil), m.p[1-from][:]...), msg.Body[32:]...)
		}
	}
	m.r.tell(way, msg.write())
	return false
}

func mustRead(raw []byte) Message {
	m, _ := read(raw)
	return m
}
