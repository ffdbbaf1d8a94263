package liar

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// Way is one leg of the relay and a direction on it.
type Way uint8

// The ways.
const (
	RoomToHub Way = iota
	HubToRoom
	PageToHub
	HubToPage
)

func (w Way) String() string {
	return [...]string{"room→hub", "hub→room", "page→hub", "hub→page"}[w]
}

// Control is one text message of the relay, or the answer to an invitation.
type Control map[string]any

func (c Control) text(name string) string {
	s, _ := c[name].(string)
	return s
}

func (c Control) object(name string) Control {
	o, _ := c[name].(map[string]any)
	return o
}

// Teller is a lie at work in one run. Calls come one at a time.
type Teller interface {
	// Answer may change the hub's answer to the page's invitation.
	Answer(Control)
	// Entry may change the appointment that the room is shown.
	Entry(Control)
	// Control judges a text message under way and may change it; false withholds it.
	Control(Way, Control) bool
	// Message judges a message of the key agreement under way; false withholds it.
	Message(Way, Message) bool
	// Step is called again and again with what the ends show; true when the lie has nothing more to do.
	Step(Seen) bool
	// Judge says what is wrong with how it ended, beyond what holds for every run; nil when nothing is.
	Judge(Outcome) error
}

// truth passes everything on. Lies embed it.
type truth struct{}

func (truth) Answer(Control)            {}
func (truth) Entry(Control)             {}
func (truth) Control(Way, Control) bool { return true }
func (truth) Message(Way, Message) bool { return true }
func (truth) Step(Seen) bool            { return true }
func (truth) Judge(Outcome) error       { return nil }

// Told is something that the liar delivered, or withheld, in place of what was said.
type Told struct {
	Way      Way
	Kind     string
	Bytes    int
	SHA256   string
	Withheld bool
	Read     bool // the room has read it
}

// Run is one session under one lie.
type Run struct {
	Lie     *Lie
	Variant string
	Role    agreement.Role
	Rand    *rand.Rand

	clinic      *Clinic
	window      *page
	sid         string
	invitation  string
	link        string
	participant string
	began       time.Time // on the clinic's clock
	over        chan struct{}
	opened      chan struct{}
	withMedia   bool
	leap        time.Duration // below the 3 s after which a page gives a silent relay up
	prepared    time.Duration

	mu             sync.Mutex // guards all below; held while a Teller is called
	teller         Teller
	room           *leg
	page           *leg
	roomD          agreement.D
	pageD          agreement.D
	isOpen         bool
	told           []Told
	late           [][32]byte // digests of truths that the liar delivered by its own hand
	foreign        []*Foreign
	varied         map[string]string
	lastWord       time.Time         // at this machine
	toPage, ofPage int               // messages that the page's present socket was given, and has given
	heard          map[Way][]Message // what the honest ends said
	ends           map[Way]string    // reason that an end gave in its message "end", by the way it came
	mail           []func()          // between foreign endpoints; see post
	still          bool              // time does not leap: something real is waited for
	class          Class             // how it ended, when a Teller found out by itself
	others         []string          // further appointments
}

func (r *Run) media() bool { return r.withMedia }

// vary notes what was drawn, for the histogram.
func (r *Run) vary(what, value string) { r.varied[what] = value }

func (r *Run) connected(l *leg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.page = l
	r.toPage, r.ofPage = 0, 1 // its hello
}

// roomConnected is called for the room's connection, and when it is a new one in the middle of a run.
func (r *Run) roomConnected(l *leg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.room = l
}

// counted is called for every message that a pump carries to or from the page's present connection.
func (r *Run) counted(l *leg, to, of int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l == r.page {
		r.toPage, r.ofPage = r.toPage+to, r.ofPage+of
	}
}

// silent tells whether everybody has heard everything and nobody is about to answer.
func (r *Run) silent(page PageSeen, patience time.Duration) bool {
	r.mu.Lock()
	last, room, of := r.lastWord, r.room, r.page
	waits := r.still || page.Computing > 0 || time.Since(last) < patience
	if of != nil && page.Screen != "notice" {
		waits = waits || page.In != r.toPage || page.Out != r.ofPage
	}
	r.mu.Unlock()
	if waits {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// Whoever answers a ping has read what came before it. A connection that is gone holds nothing back.
	_, _ = room.end.Ping(ctx), room.hub.Ping(ctx)
	if of != nil {
		_ = of.hub.Ping(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastWord.Equal(last)
}

func (r *Run) answer(c Control) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.teller.Answer(c)
	return json.Marshal(c)
}

func (r *Run) entry(e map[string]any) Control {
	c := make(Control)
	for k, v := range e {
		c[k] = v
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.teller.Entry(c)
	return c
}

func (r *Run) control(way Way, c Control, raw []byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := c.text("t")
	if t == "ping" || t == "pong" {
		return raw
	}
	r.lastWord = time.Now()
	switch {
	case way == RoomToHub && t == "token" && !r.withMedia:
		return nil // nobody answers at the SFU, and a hub that is asked again and again hangs up
	case way == RoomToHub && t == "open" && !r.isOpen:
		r.isOpen = true
		r.roomD = parseD(c.text("d"))
		close(r.opened)
	case way == PageToHub && t == "knock":
		r.pageD = parseD(c.text("d"))
	}
	before, err := json.Marshal(c)
	if err != nil {
		return raw
	}
	truthful := r.teller.Control(way, c)
	r.drain()
	if !truthful {
		r.note(Told{Way: way, Kind: t, Withheld: true}, raw)
		return nil
	}
	after, err := json.Marshal(c)
	if err != nil || string(before) == string(after) {
		return raw
	}
	r.note(Told{Way: way, Kind: t}, after)
	return after
}

func (r *Run) message(way Way, raw []byte) []byte {
	m, ok := read(raw)
	if !ok {
		return raw
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastWord = time.Now()
	if way == RoomToHub || way == PageToHub {
		r.hear(way, m)
	}
	before := m.write()
	if isStatement(m.Kind) {
		before = raw
	}
	truthful := r.teller.Message(way, m)
	r.drain()
	if !truthful {
		if way == HubToRoom || way == HubToPage {
			r.note(Told{Way: way, Kind: m.Kind, Withheld: true}, before)
		}
		return nil
	}
	return raw
}

// hear keeps what the honest ends said.
func (r *Run) hear(way Way, m Message) {
	r.heard[way] = append(r.heard[way], m)
	if m.Kind == "end" && len(m.Body) == 1 {
		r.ends[way] = agreement.Reason(m.Body[0]).String()
	}
}

func (r *Run) note(t Told, raw []byte) {
	sum := sha256.Sum256(raw)
	t.Bytes, t.SHA256 = len(raw), hex.EncodeToString(sum[:])
	r.told = append(r.told, t)
}

// post does something after what is going on: foreign endpoints answer one another.
func (r *Run) post(do func()) { r.mail = append(r.mail, do) }

func (r *Run) drain() {
	for len(r.mail) > 0 {
		do := r.mail[0]
		r.mail = r.mail[1:]
		do()
	}
}

// flow counts the packets of sound and picture that leave the page within a moment.
func (r *Run) flow() (packets int, err error) {
	r.mu.Unlock()
	defer r.mu.Lock()
	err = r.window.Eval("liar.flow(120)", &packets)
	return packets, err
}

// stopped tells whether nothing leaves the page any more. What was in the browser's encoders comes out first, and not
// by the clock that leaps.
func (r *Run) stopped() (packets int, err error) {
	for range 10 {
		if packets, err = r.flow(); err != nil || packets == 0 {
			return packets, err
		}
	}
	return packets, nil
}

// tell delivers a lie to the end of a way.
func (r *Run) tell(way Way, raw []byte) {
	m, _ := read(raw)
	r.note(Told{Way: way, Kind: m.Kind}, raw)
	r.deliver(way, websocket.MessageBinary, raw)
	r.confirm(way, len(r.told)-1)
}

// confirm asks the room whether it has read what it was told.
func (r *Run) confirm(way Way, told int) {
	if way != HubToRoom || r.room == nil {
		return
	}
	l := r.room
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if l.end.Ping(ctx) == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told[told].Read = true
		}
	}()
}

// noteAnswer and noteEntry note a lie that stands in the answer to the invitation, or in the room's list.
func (r *Run) noteAnswer(c Control) {
	if raw, err := json.Marshal(c); err == nil {
		r.note(Told{Way: HubToPage, Kind: "join"}, raw)
	}
}

func (r *Run) noteEntry(c Control) {
	if raw, err := json.Marshal(c); err == nil {
		r.note(Told{Way: HubToRoom, Kind: "sessions"}, raw)
	}
}

// knock is somebody at the room's door; by itself it is no lie.
func (r *Run) knock(c Control) {
	if raw, err := json.Marshal(c); err == nil {
		r.deliver(HubToRoom, websocket.MessageText, raw)
	}
}

func (r *Run) tellControl(way Way, c Control) {
	raw, err := json.Marshal(c)
	if err != nil {
		return
	}
	r.note(Told{Way: way, Kind: c.text("t")}, raw)
	r.deliver(way, websocket.MessageText, raw)
	r.confirm(way, len(r.told)-1)
}

// pass delivers the truth by the liar's own hand, as when it comes late.
func (r *Run) pass(way Way, raw []byte) {
	r.late = append(r.late, sha256.Sum256(raw))
	r.deliver(way, websocket.MessageBinary, raw)
}

func (r *Run) deliver(way Way, kind websocket.MessageType, raw []byte) {
	l := r.room
	if way == HubToPage {
		l = r.page
	}
	if l == nil {
		return
	}
	r.lastWord = time.Now()
	if way == HubToPage {
		r.toPage++
	}
	_ = write(l.end, kind, raw) // an end that is gone: the evidence will be missing
}

// evidence checks that each lie that has to arrive did, and that what was withheld did not come by another way.
func (r *Run) evidence(ctx context.Context, page []string) (arrived, bytes int, err error) {
	r.mu.Lock()
	told, late, room := slices.Clone(r.told), slices.Clone(r.late), r.room
	r.mu.Unlock()
	read := false
	if slices.ContainsFunc(told, func(t Told) bool { return t.Way == HubToRoom && !t.Withheld }) {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		read = room.end.Ping(ctx) == nil
		cancel()
	}
	passed := make(map[string]bool)
	for _, t := range told {
		passed[t.SHA256] = passed[t.SHA256] || !t.Withheld
	}
	for _, sum := range late {
		passed[hex.EncodeToString(sum[:])] = true
	}
	for _, t := range told {
		at := slices.Contains(page, t.SHA256)
		switch {
		case t.Withheld && t.Way == HubToPage && at && !passed[t.SHA256]:
			return arrived, bytes, fmt.Errorf("%s was withheld from the page and is there", t.Kind)
		case t.Withheld && (t.Way == HubToRoom || t.Way == HubToPage), !t.Withheld && t.Way == HubToRoom && (t.Read || read),
			!t.Withheld && t.Way == HubToPage && at:
			arrived++
			bytes += t.Bytes
		}
	}
	if arrived == 0 && r.Lie.Tells {
		return 0, 0, fmt.Errorf("no lie arrived: %d were told", len(told))
	}
	return arrived, bytes, nil
}

func parseD(s string) (d agreement.D) {
	raw, err := hex.DecodeString(s)
	if err == nil && len(raw) == len(d) {
		copy(d[:], raw)
	}
	return d
}
