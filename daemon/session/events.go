package session

import (
	"context"
	"encoding/json"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
	"github.com/alcove-room/alcove/provisioning/document"
)

// What comes from the relay. All of it is the hub's word or passes through its hands.

// Connected says that the relay stands (again): the session is opened, or taken up, by the same document.
func (s *Session) Connected() {
	s.post(func() {
		s.relayUp = true
		s.outbox.setUp(true)
		s.outbox.put(letter{what: "open", send: func(ctx context.Context) error {
			return s.conf.Relay.Open(ctx, s.conf.SID, s.agree.D().String())
		}})
		s.do(s.agree.Online(s.now(), true))
	})
}

// Disconnected says that the relay is gone for now.
func (s *Session) Disconnected() {
	s.post(func() {
		s.relayUp = false
		s.outbox.setUp(false)
		s.do(s.agree.Online(s.now(), false))
	})
}

// Opened says that the hub has opened the session; with it comes the first ticket for the SFU.
func (s *Session) Opened(t Ticket) {
	s.post(func() {
		s.tickets.put(t)
		if s.lineRunning && !s.lineUp {
			s.line.redial() // what kept the hub away has ended: do not wait for the next attempt
		}
		s.outbox.settleOwed()
		s.resend()
	})
}

// Resync says that somebody's connection is new.
func (s *Session) Resync() { s.post(s.resend) }

func (s *Session) resend() {
	for _, m := range s.agree.Resend() {
		s.send(m)
	}
}

// Ticket is a fresh ticket for the SFU.
func (s *Session) Ticket(t Ticket) { s.tickets.put(t) }

// Knock says that somebody waits with the document d. A new knock of the same person replaces the former. More
// people than a session can have use for are not listed. A name is shown to people, so it is made printable.
func (s *Session) Knock(d agreement.D, id, name string, role agreement.Role) {
	id, name = printable(id), printable(name)
	s.post(func() {
		for other, k := range s.people {
			if k.id == id && other != d {
				s.do(s.agree.Left(s.now(), other))
				delete(s.people, other)
			}
		}
		k, known := s.people[d]
		if !known && len(s.people) >= maxPeople || d == s.agree.D() {
			s.metrics.refused("knock")
			return
		}
		k.gone = false
		if !k.admitted { // after that the document says who it is
			k.id, k.name, k.role = id, name, role
		}
		s.people[d] = k
	})
}

// maxShown is how much of the hub's words about a person is shown, as much as a document can say.
const maxShown = 64

// printable makes a string of the hub's fit for a screen or a terminal: control and direction characters become
// spaces, the rest is cut.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	for i, r := range s {
		if i+utf8.RuneLen(r) > maxShown {
			return s[:i]
		}
	}
	return s
}

// Gone, Back and Left are the hub's hints about somebody's connection.
func (s *Session) Gone(d agreement.D) {
	s.post(func() { s.setGone(d, true); s.do(s.agree.Gone(s.now(), d)) })
}

// Back is Gone's opposite.
func (s *Session) Back(d agreement.D) {
	s.post(func() { s.setGone(d, false); s.do(s.agree.Back(s.now(), d)) })
}

// Left says that somebody has gone for good.
func (s *Session) Left(d agreement.D) {
	s.post(func() {
		delete(s.people, d)
		s.do(s.agree.Left(s.now(), d))
	})
}

func (s *Session) setGone(d agreement.D, gone bool) {
	if k, ok := s.people[d]; ok {
		k.gone = gone
		s.people[d] = k
	}
}

// Message is one message of the key agreement.
func (s *Session) Message(raw []byte) {
	s.post(func() { s.do(s.agree.Handle(s.now(), raw)) })
}

// Cancelled says that the desk has cancelled the session.
func (s *Session) Cancelled() {
	s.post(func() { s.end("cancelled") })
}

// Revoked says that this room's box is not the clinic's any more: nothing goes on.
func (s *Session) Revoked() {
	s.post(func() { s.end("revoked") })
}

// Yield ends a session that nobody has come to: another one is due.
func (s *Session) Yield() {
	s.post(func() {
		if s.state() == stateOpen {
			s.end("nobody_came")
		}
	})
}

// What comes from members, sealed, over the SFU.

// dataMessage is the body of a data message (PROTOCOL.md, last section).
type dataMessage struct {
	T     string       `json:"t"`
	Video *videoReport `json:"video,omitempty"`
	Audio *audioReport `json:"audio,omitempty"`
	BPS   int          `json:"bps,omitempty"`
}

type videoReport struct {
	Frames uint64 `json:"frames"`
	Width  uint32 `json:"width"`
	Height uint32 `json:"height"`
}

type audioReport struct {
	Packets uint64  `json:"packets"`
	Level   float64 `json:"level"`
}

// onData runs on the SDK's goroutine.
func (s *Session) onData(identity string, sealed []byte) {
	raw, err := s.keys.open(identity, sealed)
	var m dataMessage
	if err == nil {
		err = document.Decode(raw, &m)
	}
	if err != nil {
		s.metrics.refused("data")
		return
	}
	if m.T == "keyframe" {
		s.metrics.keyFrameAsked()
		s.conf.KeyFrame()
	}
}

// report tells each member once a second what has arrived from it. It has a goroutine of its own: the SDK may
// wait for a transport.
func (s *Session) report(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.sendReports()
		}
	}
}

func (s *Session) sendReports() {
	for identity, m := range *s.members.Load() {
		r := &m.received
		r.fade()
		raw, err := json.Marshal(dataMessage{
			T:     "report",
			Video: &videoReport{r.VideoFrames.Load(), r.Width.Load(), r.Height.Load()},
			Audio: &audioReport{r.AudioPackets.Load(), r.Level()},
			BPS:   r.bitsSinceLast(time.Now()),
		})
		if err != nil {
			s.log.Error("encode report", "err", err)
			return
		}
		sealed, err := s.keys.seal(raw)
		if err != nil {
			return // nothing may be sent now
		}
		if err := s.line.sendData(identity, sealed); err != nil {
			s.log.Debug("report not sent", "err", err)
		}
	}
}

// onRate runs on the estimator's goroutine.
func (s *Session) onRate(bps int) {
	// A part is left for retransmissions and for the estimate being late; sound comes first.
	const share = 85
	video := bps*share/100 - s.conf.AudioBPS
	s.metrics.estimate(bps)
	s.conf.Rate(min(max(video, minVideoBPS), s.conf.VideoBPS))
}

// minVideoBPS is below what any rung of picture can use.
const minVideoBPS = 60_000
