package agreement

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// ErrOutOfPlace is returned for a call that this end may not make, or not now.
var ErrOutOfPlace = errors.New("agreement: not possible for this end now")

// Endpoint is one end of one session, from its document to [Ended] or [Failed]; after those every call returns
// nothing. It is not safe for concurrent use: one goroutine owns it.
//
//	New ── propose ──> round ── complete, alive{T} ──> T in force ──┬── propose ──> round …
//	                     │                              │            └── removal ──> nothing sent until the next T
//	                     └── wrong value ──> Failed     └── end, removed, leave ──> Ended
type Endpoint struct {
	cfg    Config
	random io.Reader
	own    *ownKeys
	doc    []byte
	self   D

	now     Millis
	out     []Effect
	dead    bool
	changed bool // something happened that may let a held message be judged
	held    heldMessages
	offline Millis // since when there is no relay connection; see isOffline
	isOff   bool

	sequencer D      // zero for a newcomer that has no T yet
	cur       *epoch // T in force, nil without one
	chain     T      // prevT of the next round
	lastE     uint32 // highest e proposed (S) or taken
	round     *round
	failed    []Millis // failed rounds of the last ten minutes
	suspended bool     // a removal is under way: nothing is sent, nothing is read
	removed   map[D]bool
	challenge *receivedChallenge

	keys  keyState
	lease lease
	send  Sending

	v        map[D]D // D compared -> by whom, zero for this end itself
	word     []statement
	invited  map[D]*invitation // therapist's end: admits that wait for their round
	asked    map[D]statement   // patient's end: admits to be agreed to
	guests   map[D]bool        // patient's end: answers given
	sentWord [][]byte          // statements to resend within the T in force

	seq *sequencing // S only
}

// epoch is what a completed round left.
type epoch struct {
	e       uint32
	t       T
	prev    T
	list    []D
	members map[D]*member
	fresh   map[D]bool // not in the epoch before
	check   bool
	raws    [][]byte // own messages of its round
	since   Millis
}

// member is an endpoint whose document is known.
type member struct {
	doc      Document
	keys     peerKeys
	level    uint8
	verified uint8
}

type receivedChallenge struct {
	from D
	dch  [32]byte
}

// New makes an endpoint with fresh keys.
func New(cfg Config) (*Endpoint, error) { return newEndpoint(cfg, rand.Reader) }

func newEndpoint(cfg Config, random io.Reader) (*Endpoint, error) {
	if !cfg.Role.valid() || !validName(cfg.Name) {
		return nil, fmt.Errorf("make endpoint: role %d or name not allowed", cfg.Role)
	}
	if cfg.Prove == nil || cfg.Verify == nil {
		return nil, errors.New("make endpoint: Prove and Verify are needed")
	}
	own, err := newOwnKeys(random)
	if err != nil {
		return nil, fmt.Errorf("make endpoint: %w", err)
	}
	doc := Document{Clinic: cfg.Clinic, SID: cfg.SID, Role: cfg.Role, KEMPub: own.kemPub, SigPub: own.sigPub, Display: cfg.Name}
	if _, err := io.ReadFull(random, doc.Salt[:]); err != nil {
		return nil, fmt.Errorf("make endpoint: draw salt: %w", err)
	}
	e := &Endpoint{
		cfg: cfg, random: random, own: own, doc: doc.encode(), chain: firstTranscript(cfg.Clinic, cfg.SID),
		removed: map[D]bool{}, v: map[D]D{}, invited: map[D]*invitation{}, asked: map[D]statement{}, guests: map[D]bool{},
		send: Sending{Reason: ReasonNoEpoch}, keys: newKeyState(),
	}
	e.self = HashDocument(e.doc)
	if cfg.Role == RoleDevice {
		e.seq = newSequencing()
		e.sequencer = e.self
	}
	return e, nil
}

// D is this endpoint's document hash.
func (e *Endpoint) D() D { return e.self }

// EID is this endpoint's LiveKit identity.
func (e *Endpoint) EID() string { return e.self.EID() }

// Document is this endpoint's encoded document.
func (e *Endpoint) Document() []byte { return bytes.Clone(e.doc) }

// Handle takes one message of the relay. Junk, what is not for this end and what comes twice have no effect.
func (e *Endpoint) Handle(now Millis, msg []byte) []Effect {
	return e.run(now, func() {
		if len(msg) > MaxMessage {
			return
		}
		msg = bytes.Clone(msg)
		if e.dispatch(msg) == hold {
			e.held.add(msg)
		}
	})
}

// Tick lets time pass. Call it at NextDeadline, or at any time.
func (e *Endpoint) Tick(now Millis) []Effect { return e.run(now, func() {}) }

// Online tells that the relay connection was lost or is there again; a new endpoint is online. What this end cannot
// hear does not count as the others' silence.
func (e *Endpoint) Online(now Millis, up bool) []Effect {
	return e.run(now, func() {
		switch {
		case !up && !e.isOff:
			e.isOff, e.offline = true, e.now
		case up && e.isOff:
			e.isOff = false
			e.shiftTimers(e.now - e.offline)
		}
	})
}

// run is the frame of every call: act, judge what was held, then let time pass.
func (e *Endpoint) run(now Millis, act func()) []Effect {
	if e.dead {
		return nil
	}
	e.now = max(e.now, now)
	act()
	e.settle()
	e.passTime()
	for e.changed && !e.dead {
		e.settle()
		e.passTime()
	}
	e.update()
	out := e.out
	e.out = nil
	return out
}

func (e *Endpoint) emit(x Effect) { e.out = append(e.out, x) }

// settle gives held messages another try for as long as something changes.
func (e *Endpoint) settle() {
	for e.changed && !e.dead {
		e.changed = false
		held := e.held.takeAll()
		for _, msg := range held {
			if e.dead {
				return
			}
			if e.dispatch(msg) == hold {
				e.held.add(msg)
			}
		}
	}
}

// verdict on one message.
type verdict bool

const (
	done verdict = false
	hold verdict = true // cannot be judged yet
)

func (e *Endpoint) dispatch(raw []byte) verdict {
	if !isMessageLabel(peekLabel(raw)) {
		s, err := parseStatement(raw)
		if err != nil || s.sid != e.cfg.SID || s.signer == e.self {
			return done
		}
		return e.onStatement(s)
	}
	m, err := parseMessage(raw)
	if err != nil || m.sid != e.cfg.SID || m.from == e.self {
		return done
	}
	switch m.label {
	case labelPropose:
		return e.onPropose(m)
	case labelCommit:
		return e.onCommit(m)
	case labelReveal:
		return e.onReveal(m)
	case labelAlive:
		return e.onAlive(m)
	case labelKeys:
		return e.onKeys(m)
	case labelReady:
		return e.onReady(m)
	case labelChallenge:
		return e.onChallenge(m)
	case labelEnd:
		return e.onEnd(m)
	}
	return done
}

// known is the document behind d: of the epoch in force, or revealed in the running round.
func (e *Endpoint) known(d D) *member {
	if e.cur != nil {
		if m := e.cur.members[d]; m != nil {
			return m
		}
	}
	if e.round != nil {
		return e.round.members[d]
	}
	return nil
}

// signedBy reports whether sig over body is of d's document; false also for a document that is not known.
func (e *Endpoint) signedBy(d D, sig, body []byte) bool {
	m := e.known(d)
	return m != nil && m.keys.verifier.Verify(sig, body) == nil
}

// sendMessage signs, hands to the relay and returns the message. A signer that fails ends the session.
func (e *Endpoint) sendMessage(label string, number uint32, body []byte) []byte {
	msg := encodeMessage(label, e.cfg.SID, number, e.self, body)
	sig, err := e.own.signer.Sign(msg)
	if err != nil {
		e.fail(ReasonInternal, D{})
		return nil
	}
	msg = append(msg, sig...)
	e.emit(Send{Message: msg})
	return msg
}

// signStatement completes s with this end's signature.
func (e *Endpoint) signStatement(s statement) (statement, bool) {
	s.sid, s.signer = e.cfg.SID, e.self
	body := encodeStatement(s)
	sig, err := e.own.signer.Sign(body)
	if err != nil {
		e.fail(ReasonInternal, D{})
		return statement{}, false
	}
	raw := append(append(bytes.Clone(body), e.self[:]...), sig...)
	s.raw, s.body, s.sig = raw, raw[:len(body)], sig
	return s, true
}

func (e *Endpoint) sendStatement(s statement) (statement, bool) {
	s, ok := e.signStatement(s)
	if ok {
		e.emit(Send{Message: s.raw})
	}
	return s, ok
}

func (e *Endpoint) random32() (out [32]byte) {
	if _, err := io.ReadFull(e.random, out[:]); err != nil {
		e.fail(ReasonInternal, D{})
	}
	return out
}

// fail ends the session at this end and tells the others why.
func (e *Endpoint) fail(r Reason, from D) {
	if e.dead {
		return
	}
	e.dead = true // before sending: a signer that fails must not bring us back here
	if msg := encodeMessage(labelEnd, e.cfg.SID, e.epochNumber(), e.self, []byte{byte(r)}); msg != nil {
		if sig, err := e.own.signer.Sign(msg); err == nil {
			e.emit(Send{Message: append(msg, sig...)})
		}
	}
	e.forget(r)
	e.emit(Failed{Reason: r, From: from})
}

// finish ends the session at this end in order.
func (e *Endpoint) finish(r Reason) {
	if e.dead {
		return
	}
	e.dead = true
	e.forget(r)
	e.emit(Ended{Reason: r})
}

// forget destroys every key.
func (e *Endpoint) forget(r Reason) {
	e.setSending(Sending{Reason: r})
	e.retireAll()
	e.dropSendKeys()
	e.held, e.round = heldMessages{}, nil
}

func (e *Endpoint) epochNumber() uint32 {
	if e.cur != nil {
		return e.cur.e
	}
	return 0
}

// onEnd takes S's orderly end, or a failure that any member has found: everybody stops.
func (e *Endpoint) onEnd(m message) verdict {
	r, err := parseEnd(m.body)
	if err != nil || (!r.Failure() && r != ReasonEnded) {
		return done
	}
	if e.known(m.from) == nil {
		if e.round != nil && indexOf(e.round.prop.list, m.from) >= 0 {
			return hold
		}
		return done
	}
	if !e.signedBy(m.from, m.sig, m.unsigned) {
		return done
	}
	switch {
	case r.Failure():
		e.dead = true
		e.forget(r)
		e.emit(Failed{Reason: r, From: m.from})
	case e.sequencer == m.from || (e.round != nil && e.round.from == m.from):
		e.finish(r)
	}
	return done
}

func (e *Endpoint) onChallenge(m message) verdict {
	c, err := parseChallenge(m.body)
	if err != nil || m.e != 0 || c.d != e.self || e.seq != nil {
		return done
	}
	if e.known(m.from) != nil && !e.signedBy(m.from, m.sig, m.unsigned) {
		return done
	}
	// A newcomer does not know S yet. A false challenge costs it nothing: S accepts its own only.
	e.challenge = &receivedChallenge{from: m.from, dch: c.dch}
	return done
}

// Resend is this end's current messages, oldest first, for after a reconnection or a resync.
func (e *Endpoint) Resend() [][]byte {
	if e.dead {
		return nil
	}
	var out [][]byte
	if e.cur != nil {
		out = append(out, e.cur.raws...)
		if e.seq != nil && !e.suspended {
			out = append(out, e.seq.aliveRaw)
		}
		out = append(out, e.keys.message, e.keys.readyMessage)
		out = append(out, e.sentWord...)
		for _, d := range sortedKeys(e.invited) {
			out = append(out, e.invited[d].raw)
		}
	}
	if e.round != nil {
		out = append(out, e.round.raws...)
	}
	kept := out[:0]
	for _, m := range out {
		if m != nil {
			kept = append(kept, bytes.Clone(m))
		}
	}
	return kept
}

// heldMessages are those that cannot be judged yet: bounded, oldest dropped first.
type heldMessages struct {
	msgs  [][]byte
	bytes int
}

func (h *heldMessages) add(msg []byte) {
	for _, m := range h.msgs {
		if bytes.Equal(m, msg) {
			return
		}
	}
	h.msgs = append(h.msgs, msg)
	h.bytes += len(msg)
	for len(h.msgs) > maxHeld || h.bytes > maxHeldBytes {
		h.bytes -= len(h.msgs[0])
		h.msgs = h.msgs[1:]
	}
}

func (h *heldMessages) takeAll() [][]byte {
	msgs := h.msgs
	*h = heldMessages{}
	return msgs
}
