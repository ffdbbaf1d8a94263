package session

import (
	"encoding/json"
	"time"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
	"github.com/alcove-room/alcove/provisioning/document"
)

// What comes from the relay. All of it is the hub's word or passes through its hands.

// Connected says that the relay stands (again): the session is opened, or taken up, by the same document.
func (s *Session) Connected() {
	s.post(func() {
		s.relayUp = true
		if s.lineRunning && !s.lineUp {
			s.line.redial() // what kept the relay away has ended: do not wait for the next attempt
		}
		s.do(s.agree.Online(s.now(), true))
		s.tell("open", s.conf.Relay.Open(s.ctx, s.conf.SID, s.agree.D().String()))
	})
}

// Disconnected says that the relay is gone for now.
func (s *Session) Disconnected() {
	s.post(func() {
		s.relayUp = false
		s.do(s.agree.Online(s.now(), false))
	})
}

// Opened says that the hub has opened the session; with it comes the first ticket for the SFU.
func (s *Session) Opened(t Ticket) {
	s.post(func() {
		s.firstTicket = &t
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
func (s *Session) Ticket(t Ticket) {
	select {
	case s.tickets <- t:
	default:
	}
}

// Knock says that somebody waits with the document d. A new knock of the same person replaces the former.
func (s *Session) Knock(d agreement.D, id, name string, role agreement.Role) {
	s.post(func() {
		for other, k := range s.people {
			if k.id == id && other != d {
				s.do(s.agree.Left(s.now(), other))
				delete(s.people, other)
			}
		}
		k := s.people[d]
		k.id, k.name, k.role, k.gone = id, name, role, false
		s.people[d] = k
	})
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
	s.post(func() {
		s.do(s.agree.End(s.now()))
		s.finish(Outcome{Reason: "cancelled"})
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

// sendReports tells each member what has arrived from it.
func (s *Session) sendReports() {
	for _, m := range *s.members.Load() {
		r := &m.received
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
		if err := s.line.sendData(sealed); err != nil {
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
