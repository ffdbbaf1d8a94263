// Package session is the room's membership of one session: it admits people by touch, drives the key
// agreement, keeps the line to the SFU up, and gives the media flow what to seal with and where to write.
//
// Who may be in a session comes from the key agreement alone (daemon/e2ee/agreement). What the hub says is
// used for the lobby, where nobody hears or sees anything, and as hints. What the SFU says is used to find
// packets. A track is taken only when its owner stands in the current transcript and it is announced as
// encrypted; a frame counts only when it opens under that member's key.
//
// Nothing of a session is written to disk. When it ends, its keys, names and codes are forgotten with it.
//
// Camera and microphone are open in the state talking alone, and only a press in the room leads there: when all
// others have left, whoever is admitted next finds them closed again.
//
//	            admit (touch)          round done           start (touch)
//	open ───────────────────▶ agreeing ─────────▶ admitted ──────────────▶ talking
//	  ▲  all others left                              ▲   pause, 2 min alone  │
//	  └───────────────────────────────────────────────┴───────────────────────┘
//	any ── end, cancelled ──▶ ended        any ── wrong value, different code ──▶ failed
package session

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// aloneLimit is how long camera and microphone stay open while nobody can receive them.
const aloneLimit = 2 * time.Minute

// maxPeople bounds how many people the hub can make wait; a session has at most four remote ones.
const maxPeople = 32

// Relay carries control and agreement messages to the hub. Calls come from one goroutine, in order, and may block
// for as long as a write takes; they end with their context.
type Relay interface {
	Open(ctx context.Context, sid [16]byte, d string) error
	Admit(ctx context.Context, d string) error
	Refuse(ctx context.Context, d, reason string) error
	Remove(ctx context.Context, d, reason string) error
	Token(ctx context.Context) error
	Close(ctx context.Context, reason string) error
	Message(ctx context.Context, raw []byte) error
}

// Ledger is the audit log as a session needs it.
type Ledger interface {
	// Permit writes the entry of an action that opens something. On an error the action must not happen.
	Permit(action audit.Action, object string) error
	// Record writes the entry of an action that closes something; the action happens in any case.
	Record(action audit.Action, object string)
}

// Config is what a session is made of.
type Config struct {
	SID    [16]byte
	Clinic [32]byte
	Label  string // the room's name, in its document and on screens

	Prove    func(agreement.ProofRequest) (agreement.Proof, error)
	Verify   func(agreement.Claim) (uint8, error)
	MinLevel map[agreement.Role]uint8

	VideoMime     string
	Width, Height int
	VideoBPS      int // the most that the picture may take, bit/s
	AudioBPS      int

	Relay  Relay
	Ledger Ledger
	Sink   Sink
	Log    *slog.Logger
	*Metrics
	Clock Clock // nil: the machine's

	// Capture says whether camera and microphone are to be open. It must not block.
	Capture func(on bool)
	// KeyFrame asks the encoder for a key frame. It must not block.
	KeyFrame func()
	// Rate tells the picture's share of what the line takes, in bit/s. It must not block.
	Rate func(bps int)
}

// NotNow is a press that cannot be followed at the moment; the text says why and what to do.
type NotNow struct{ Why string }

func (e *NotNow) Error() string { return e.Why }

// Session is one session of this room. Its methods may be called from any goroutine but those that Config's
// functions are called on; the state below the line is owned by Run's goroutine, which everything else reaches
// through inbox.
type Session struct {
	conf     Config
	log      *slog.Logger
	metrics  *Metrics
	sink     Sink
	line     *line
	keys     *keys
	video    *OutTrack
	audio    *OutTrack
	inbox    chan func()
	over     chan struct{} // closed when Run returns
	outbox   *outbox
	tickets  *tickets
	began    time.Time
	snapshot atomic.Pointer[Status]
	members  atomic.Pointer[map[string]*member] // by LiveKit identity; replaced whole, read by the line

	ctx    context.Context // set by Run before anything else runs
	claims sync.Mutex      // guards the tracks of members

	// Owned by Run.
	agree       *agreement.Endpoint
	people      map[agreement.D]knock
	epoch       *agreement.Epoch
	started     bool
	whenIn      bool // start as soon as somebody is in
	aloneSince  time.Time
	sending     agreement.Sending
	outcome     *Outcome
	lineRunning bool
	lineUp      bool
	relayUp     bool
	capturing   bool
	touched     bool        // somebody was admitted: the end of the session is worth an entry
	later       []func()    // steps that must not run between the effects of another
	removing    agreement.D // whom a press is taking out
	why         string      // of the end that is under way, where the agreement has no word for it
}

// knock is what the hub says of a person who waits or waited.
type knock struct {
	id, name string
	role     agreement.Role
	admitted bool
	gone     bool
}

// member is one remote endpoint of the current transcript.
type member struct {
	agreement.Member
	ring     *e2ee.Ring
	received Received
	tracks   map[e2ee.Kind]*inTrack // the newest of each kind; guarded by Session.claims
}

func newMember(m agreement.Member, ring *e2ee.Ring) *member {
	n := &member{Member: m, ring: ring, tracks: make(map[e2ee.Kind]*inTrack)}
	n.received.setLevel(silent)
	return n
}

// Outcome is how a session ended.
type Outcome struct {
	Failed bool
	Reason string
}

// New makes a session with fresh keys. Run runs it.
func New(conf Config) (*Session, error) {
	if conf.Clock == nil {
		conf.Clock = machineClock{}
	}
	s := &Session{
		conf: conf, log: conf.Log, metrics: conf.Metrics, sink: conf.Sink,
		inbox: make(chan func(), inboxSize), over: make(chan struct{}), tickets: newTickets(),
		people: make(map[agreement.D]knock), began: conf.Clock.Now(),
		sending: agreement.Sending{Reason: agreement.ReasonNoEpoch},
	}
	var err error
	s.agree, err = agreement.New(agreement.Config{
		Role: agreement.RoleDevice, Clinic: conf.Clinic, SID: conf.SID, Name: conf.Label,
		Prove: conf.Prove, Verify: conf.Verify, MinLevel: conf.MinLevel,
	})
	if err != nil {
		return nil, fmt.Errorf("make session keys: %w", err)
	}
	if s.video, err = newOutTrack(conf.VideoMime, conf.Width, conf.Height, conf.KeyFrame, conf.Metrics); err != nil {
		return nil, err
	}
	if s.audio, err = newOutTrack(mimeOpus, 0, 0, func() {}, conf.Metrics); err != nil {
		return nil, err
	}
	s.outbox = newOutbox(conf.Log, s.Resync)
	s.keys = newKeys(conf, s.agree.D())
	s.members.Store(&map[string]*member{})
	s.line = newLine(&line{
		log: conf.Log, identity: s.agree.EID(), ticket: s.ticket, video: s.video, audio: s.audio,
		firstBPS: conf.VideoBPS + conf.AudioBPS, metrics: conf.Metrics,
		accept:    func(identity string) bool { return s.member(identity) != nil },
		onTrack:   s.onTrack,
		onData:    s.onData,
		onRate:    s.onRate,
		onState:   func(up bool) { s.post(func() { s.lineUp = up }) },
		onTrailer: s.keys.injected,
	})
	s.publish()
	return s, nil
}

// Run runs the session until it ends or ctx does, and says how it ended. Before it returns, what there is to say to
// the hub and to the others has been written, or cannot be: the relay should outlive ctx for a second.
func (s *Session) Run(ctx context.Context) Outcome {
	lineCtx, cancel := context.WithCancel(ctx)
	s.ctx = lineCtx
	closing := s.carryOut(context.WithoutCancel(ctx))
	defer closing()
	defer close(s.over)
	defer cancel()
	defer s.metrics.left()
	defer s.keys.forget()
	defer s.conf.Capture(false)
	go s.report(lineCtx)
	check := time.NewTicker(time.Second) // of how long nobody has been there
	defer check.Stop()
	timer := s.conf.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for s.outcome == nil {
		timer.Reset(s.untilDeadline())
		select {
		case <-ctx.Done():
			s.end(agreement.ReasonEnded.String())
		case fn := <-s.inbox:
			fn()
		case <-timer.C():
			s.do(s.agree.Tick(s.now()))
		case <-check.C:
		}
		s.settle()
		s.publish()
	}
	return *s.outcome
}

// carryOut starts the outbox and returns what ends it: the last words first.
func (s *Session) carryOut(ctx context.Context) (closing func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.outbox.run(ctx)
	}()
	return func() {
		s.outbox.flush(farewell)
		cancel()
		<-done
	}
}

func (s *Session) now() agreement.Millis {
	return agreement.Millis(s.conf.Clock.Now().Sub(s.began).Milliseconds())
}

func (s *Session) untilDeadline() time.Duration {
	at, ok := s.agree.NextDeadline()
	if !ok {
		return time.Hour
	}
	return max(0, time.Duration(at-s.now())*time.Millisecond)
}

// settle brings the devices in line with the state, after every step.
func (s *Session) settle() {
	for len(s.later) > 0 && s.outcome == nil {
		next := s.later[0]
		s.later = s.later[1:]
		next()
	}
	others := s.others()
	if s.whenIn && others {
		s.whenIn = false
		if err := s.begin(); err != nil {
			s.log.Warn("start for me", "err", err)
		}
	}
	if !s.started || s.sending.Allowed {
		s.aloneSince = time.Time{}
	} else if s.aloneSince.IsZero() {
		s.aloneSince = s.conf.Clock.Now()
	} else if s.conf.Clock.Now().Sub(s.aloneSince) > aloneLimit {
		s.started = false
		s.conf.Ledger.Record(audit.Pause, "alone")
	}
	if want := s.started && others && s.outcome == nil; want != s.capturing {
		s.capturing = want
		s.conf.Capture(want)
	}
}

// others says whether somebody else is in.
func (s *Session) others() bool { return s.epoch != nil && len(*s.members.Load()) > 0 }

// do carries out the effects of the key agreement, in order. Once the session is over nothing but its last words
// counts: no effect behind a failure may bring a key back.
func (s *Session) do(effects []agreement.Effect) {
	for _, e := range effects {
		if _, word := e.(agreement.Send); s.outcome != nil && !word {
			continue
		}
		switch e := e.(type) {
		case agreement.Send:
			s.send(e.Message)
		case agreement.Sending:
			s.sending = e
			s.fatal("allow sending", s.keys.allow(e.Allowed))
			if !e.Allowed && e.Reason == agreement.ReasonNoEpoch {
				s.alone()
			}
		case agreement.SendKey:
			s.fatal("send key", s.keys.send(e))
			s.conf.KeyFrame()
		case agreement.DropSendKey:
			s.keys.drop()
		case agreement.RecvKey:
			s.fatal("receive key", s.keys.receive(e))
		case agreement.RetireRecv:
			s.keys.retire(e)
		case agreement.Epoch:
			s.enter(e)
		case agreement.KeyFrame:
			s.conf.KeyFrame()
		case agreement.Dropped:
			s.dropped(e)
		case agreement.RoundFailed:
			s.metrics.roundFailed()
			s.conf.Ledger.Record(audit.RoundFailed, fmt.Sprint(e.Count))
		case agreement.Ended:
			s.finish(Outcome{Reason: cmp.Or(s.why, e.Reason.String())})
		case agreement.Failed:
			s.finish(Outcome{Failed: true, Reason: e.Reason.String()})
		case agreement.Compared, agreement.AskGuest:
			// The state that Status shows comes from the next snapshot.
		}
	}
}

// fatal ends the session when a key cannot be used: going on would mean to guess.
func (s *Session) fatal(what string, err error) {
	if err == nil {
		return
	}
	s.log.Error(what, "err", err)
	s.finish(Outcome{Failed: true, Reason: agreement.ReasonKeys.String()})
	s.do(s.agree.End(s.now()))
}

// end ends the session for everybody: the others hear of it before the hub closes it.
func (s *Session) end(why string) {
	s.why = why
	s.do(s.agree.End(s.now()))
	s.finish(Outcome{Reason: why})
}

func (s *Session) finish(o Outcome) {
	if s.outcome != nil {
		return
	}
	s.outcome = &o
	s.keys.forget()
	s.conf.Capture(false)
	s.capturing = false
	if s.touched { // what nobody was ever admitted to is the hub's noise
		s.conf.Ledger.Record(audit.SessionEnd, o.Reason)
	}
	if !o.Failed { // a failed one may be opened again, with new keys
		s.tell("close", func(ctx context.Context) error { return s.conf.Relay.Close(ctx, o.Reason) })
	}
}

// send hands one message of the agreement to the relay. One that is lost is sent again after the reconnection.
func (s *Session) send(raw []byte) {
	s.outbox.put(letter{what: "message", size: len(raw), send: func(ctx context.Context) error { return s.conf.Relay.Message(ctx, raw) }})
}

// tell hands one decision to the relay; the hub hears of it now or when it is back.
func (s *Session) tell(what string, send func(context.Context) error) {
	s.outbox.put(letter{what: what, keep: true, send: send})
}

// enter takes over a new transcript.
func (s *Session) enter(e agreement.Epoch) {
	s.epoch = &e
	old := *s.members.Load()
	next := make(map[string]*member)
	for _, m := range e.Members {
		if m.Self {
			continue
		}
		if known, ok := old[m.EID]; ok {
			known.Member = m
			next[m.EID] = known
			continue
		}
		next[m.EID] = newMember(m, s.keys.ring(m.EID))
		s.admitted(m)
	}
	s.members.Store(&next)
	s.keys.keepOnly(next)
	s.metrics.epoch(e.Number, len(next))
	s.line.look()
	s.conf.Rate(s.conf.VideoBPS)
}

// admitted takes note of a member. One whom a therapist's signature brought in was not pressed for here: the hub
// does not know, and the log has to take it or the member goes again.
func (s *Session) admitted(m agreement.Member) {
	k := s.people[m.D]
	if k.admitted {
		return
	}
	if err := s.conf.Ledger.Permit(audit.Admit, m.D.String()); err != nil {
		s.log.Error("admission of a therapist's guest not logged, so it is taken back", "err", err)
		s.later = append(s.later, func() {
			effects, err := s.agree.Remove(s.now(), m.D)
			s.fatal("remove", err)
			s.do(effects)
		})
		return
	}
	s.touched = true
	k.admitted, k.role, k.name = true, m.Role, m.Name
	s.people[m.D] = k
	s.tell("admit", func(ctx context.Context) error { return s.conf.Relay.Admit(ctx, m.D.String()) })
	s.startLine()
}

// alone is the state after everybody else has left: open again, and nothing is captured until the next press.
func (s *Session) alone() {
	if s.epoch == nil {
		return
	}
	s.epoch = nil
	s.members.Store(&map[string]*member{})
	s.keys.keepOnly(nil)
	s.metrics.left()
	s.line.look()
	if s.started {
		s.started = false
		s.conf.Ledger.Record(audit.Pause, "alone")
	}
}

// dropped lets go of somebody at once: of the tracks too, and not with the next transcript.
func (s *Session) dropped(e agreement.Dropped) {
	delete(s.people, e.D)
	next := maps.Clone(*s.members.Load())
	delete(next, e.D.EID())
	s.members.Store(&next)
	s.keys.keepOnly(next)
	s.line.look()
	if e.D == s.removing {
		return // the press has said so
	}
	action := audit.Remove
	if e.Reason == agreement.ReasonLeft || e.Reason == agreement.ReasonGone {
		action = audit.SessionLeave
	}
	s.conf.Ledger.Record(action, e.D.String())
	s.tell("remove", func(ctx context.Context) error { return s.conf.Relay.Remove(ctx, e.D.String(), e.Reason.String()) })
}

func (s *Session) member(identity string) *member { return (*s.members.Load())[identity] }

// ticket gets what it takes to join the SFU: the newest that came, or a fresh one.
func (s *Session) ticket(ctx context.Context) (Ticket, error) {
	if t, ok := s.tickets.take(); ok {
		return t, nil
	}
	s.outbox.put(letter{what: "token", send: s.conf.Relay.Token})
	for {
		select {
		case <-s.tickets.came:
		case <-ctx.Done():
			return Ticket{}, fmt.Errorf("no token from the hub: %w", ctx.Err())
		}
		if t, ok := s.tickets.take(); ok {
			return t, nil
		}
	}
}

// Outgoing is one medium's way out: what seals a frame and where it goes.
type Outgoing struct {
	Sender *e2ee.Sender
	Track  *OutTrack
}

// Video is the picture's way out.
func (s *Session) Video() Outgoing { return Outgoing{s.keys.video, s.video} }

// Audio is the sound's way out.
func (s *Session) Audio() Outgoing { return Outgoing{s.keys.audio, s.audio} }

// Rekey asks for a new generation of this room's key, when one has sealed all the frames it may.
func (s *Session) Rekey() {
	s.post(func() {
		effects, err := s.agree.Rekey(s.now())
		if err != nil {
			s.log.Debug("rekey", "err", err) // nobody to have a key with
		}
		s.do(effects)
	})
}
