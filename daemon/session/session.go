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
//	            admit (touch)          round done           start (touch)
//	open ───────────────────▶ agreeing ─────────▶ admitted ──────────────▶ talking
//	  ▲  all others left                              ▲   pause, 2 min alone  │
//	  └───────────────────────────────────────────────┴───────────────────────┘
//	any ── end, cancelled ──▶ ended        any ── wrong value, different code ──▶ failed
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// aloneLimit is how long camera and microphone stay open while nobody can receive them.
const aloneLimit = 2 * time.Minute

// Relay carries control and agreement messages to the hub. Calls may block for as long as a write takes.
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

// Session is one session of this room. Its methods may be called from any goroutine; the state below the
// line is owned by Run's goroutine, which everything else reaches through inbox.
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
	tickets  chan Ticket
	began    time.Time
	snapshot atomic.Pointer[Status]
	members  atomic.Pointer[map[string]*member] // by LiveKit identity; replaced whole, read by the line

	// Owned by Run.
	agree       *agreement.Endpoint
	ctx         context.Context
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
	firstTicket *Ticket
	capturing   bool
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
		inbox: make(chan func(), 64), tickets: make(chan Ticket, 1),
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
	s.keys = newKeys(conf, s.agree.D())
	s.members.Store(&map[string]*member{})
	s.line = &line{
		log: conf.Log, identity: s.agree.EID(), ticket: s.ticket, video: s.video, audio: s.audio,
		firstBPS: conf.VideoBPS + conf.AudioBPS, metrics: conf.Metrics, kick: make(chan struct{}, 1),
		accept:  func(identity string) bool { return s.member(identity) != nil },
		onTrack: s.onTrack,
		onData:  s.onData,
		onRate:  s.onRate,
		onState: func(up bool) { s.post(func() { s.lineUp = up }) },
	}
	s.publish()
	return s, nil
}

// Run runs the session until it ends or ctx does, and says how it ended.
func (s *Session) Run(ctx context.Context) Outcome {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.ctx = ctx
	defer s.keys.forget()
	defer s.conf.Capture(false)
	report := time.NewTicker(time.Second)
	defer report.Stop()
	timer := s.conf.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for s.outcome == nil {
		timer.Reset(s.untilDeadline())
		select {
		case <-ctx.Done():
			s.do(s.agree.End(s.now()))
			return Outcome{Reason: agreement.ReasonEnded.String()}
		case fn := <-s.inbox:
			fn()
		case <-timer.C():
			s.do(s.agree.Tick(s.now()))
		case <-report.C:
			s.sendReports()
		}
		s.settle()
		s.publish()
	}
	return *s.outcome
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

// post runs fn on the owner goroutine, or drops it when the session is over.
func (s *Session) post(fn func()) {
	select {
	case s.inbox <- fn:
	default:
		go func() { // the owner is busy; callers must never wait for it
			select {
			case s.inbox <- fn:
			case <-time.After(5 * time.Second):
			}
		}()
	}
}

// ask runs fn on the owner goroutine and returns its error.
func (s *Session) ask(fn func() error) error {
	done := make(chan error, 1)
	s.post(func() { done <- fn() })
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		return &NotNow{"The session has just ended."}
	}
}

// settle brings the devices in line with the state, after every step.
func (s *Session) settle() {
	others := s.epoch != nil && len(s.epoch.Members) > 1
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

// do carries out the effects of the key agreement, in order.
func (s *Session) do(effects []agreement.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case agreement.Send:
			s.send(e.Message)
		case agreement.Sending:
			s.sending = e
			s.keys.allow(e.Allowed)
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
			s.finish(Outcome{Reason: e.Reason.String()})
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
	s.do(s.agree.End(s.now()))
	s.finish(Outcome{Failed: true, Reason: agreement.ReasonKeys.String()})
}

func (s *Session) finish(o Outcome) {
	if s.outcome != nil {
		return
	}
	s.outcome = &o
	s.keys.forget()
	s.conf.Capture(false)
	s.capturing = false
	s.conf.Ledger.Record(audit.SessionEnd, o.Reason)
	if !o.Failed { // a failed one may be opened again, with new keys
		s.tell("close", s.conf.Relay.Close(s.ctx, o.Reason))
	}
}

// send hands one message of the agreement to the relay. One that is lost is sent again after the reconnection.
func (s *Session) send(raw []byte) { s.tell("send", s.conf.Relay.Message(s.ctx, raw)) }

func (s *Session) tell(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.Info("hub not told", "what", what, "err", err)
	}
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
		next[m.EID] = &member{Member: m, ring: s.keys.ring(m.EID)}
	}
	s.members.Store(&next)
	s.keys.keepOnly(next)
	s.metrics.epoch(e.Number, len(next))
	s.line.review()
	s.conf.Rate(s.conf.VideoBPS)
}

func (s *Session) dropped(e agreement.Dropped) {
	s.conf.Ledger.Record(audit.Remove, e.Reason.String())
	delete(s.people, e.D)
	s.tell("remove", s.conf.Relay.Remove(s.ctx, e.D.String(), e.Reason.String()))
}

func (s *Session) member(identity string) *member { return (*s.members.Load())[identity] }

// onTrack runs on the SDK's goroutine.
func (s *Session) onTrack(in *inTrack) {
	m := s.member(in.identity)
	if m == nil {
		s.metrics.refused("not_a_member")
		return
	}
	codec, err := e2ee.ParseCodec(in.mime)
	if err == nil {
		var dec *e2ee.Receiver
		if dec, err = m.ring.NewReceiver(e2ee.Track{Codec: codec, Encrypted: true}); err == nil {
			go s.receive(s.ctx, in, dec, &m.received)
			return
		}
	}
	s.metrics.refused(e2ee.Reason(err))
}

// ticket gets what it takes to join the SFU: the one that came with the opening, or a fresh one.
func (s *Session) ticket(ctx context.Context) (Ticket, error) {
	select {
	case <-s.tickets: // one from an earlier asking has gone stale
	default:
	}
	first := make(chan *Ticket, 1)
	s.post(func() {
		first <- s.firstTicket
		s.firstTicket = nil
	})
	select {
	case t := <-first:
		if t != nil {
			return *t, nil
		}
	case <-ctx.Done():
		return Ticket{}, ctx.Err()
	}
	if err := s.conf.Relay.Token(ctx); err != nil {
		return Ticket{}, err
	}
	select {
	case t := <-s.tickets:
		return t, nil
	case <-ctx.Done():
		return Ticket{}, fmt.Errorf("no token from the hub: %w", ctx.Err())
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
			s.log.Warn("rekey", "err", err)
		}
		s.do(effects)
	})
}
