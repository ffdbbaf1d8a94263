package session

import (
	"cmp"
	"slices"
	"time"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// The states of a session, as in the package's drawing.
const (
	stateOpen     = "open"
	stateAgreeing = "agreeing"
	stateAdmitted = "admitted"
	stateTalking  = "talking"
	stateEnded    = "ended"
	stateFailed   = "failed"
)

// Status is a snapshot of a session for the people in the room.
type Status struct {
	State      string   `json:"state"` // open, agreeing, admitted, talking, ended, failed
	Reason     string   `json:"reason,omitempty"`
	Waiting    []Person `json:"waiting"`
	People     []Person `json:"people"`
	Code       string   `json:"code,omitempty"`
	Pictures   []string `json:"pictures,omitempty"`
	Epoch      uint32   `json:"epoch"`
	Sending    bool     `json:"sending"`
	NotSending string   `json:"not_sending_because,omitempty"`
	Started    bool     `json:"started"`
	WhenIn     bool     `json:"start_when_admitted"`
	HubUp      bool     `json:"hub_up"`
	LineUp     bool     `json:"line_up"`
}

// Person is somebody who waits (the hub's word) or is in the session (by document).
type Person struct {
	ID        string  `json:"id"`
	Role      string  `json:"role"`
	Name      string  `json:"name"`
	Confirmed string  `json:"confirmed,omitempty"` // clinic, provider, server
	Compared  bool    `json:"compared,omitempty"`
	Away      bool    `json:"away,omitempty"`
	Received  *Report `json:"received,omitempty"`
}

// Report is what has arrived from one person.
type Report struct {
	VideoFrames  uint64  `json:"video_frames"`
	Width        uint32  `json:"width"`
	Height       uint32  `json:"height"`
	AudioPackets uint64  `json:"audio_packets"`
	Level        float64 `json:"level_dbfs"`
	Rejected     uint64  `json:"rejected_frames"`
}

// Status returns the newest snapshot.
func (s *Session) Status() Status {
	st := *s.snapshot.Load()
	st.People = slices.Clone(st.People)
	for i, p := range st.People {
		if m := s.member(p.ID); m != nil {
			st.People[i].Received = m.received.report()
		}
	}
	return st
}

func (r *Received) report() *Report {
	return &Report{
		VideoFrames: r.VideoFrames.Load(), Width: r.Width.Load(), Height: r.Height.Load(),
		AudioPackets: r.AudioPackets.Load(), Level: r.Level(), Rejected: r.Rejected.Load(),
	}
}

// fade lets the level fall to silence when no sound has come since the call before; called by one goroutine.
func (r *Received) fade() {
	if n := r.AudioPackets.Load(); n != r.lastAudio {
		r.lastAudio = n
		return
	}
	r.setLevel(silent)
}

// bitsSinceLast is the rate at which bits came since the call before; called by one goroutine.
func (r *Received) bitsSinceLast(now time.Time) int {
	total := r.Bytes.Load()
	defer func() { r.lastBytes, r.lastAt = total, now }()
	if r.lastAt.IsZero() || !now.After(r.lastAt) {
		return 0
	}
	return int(float64(total-r.lastBytes) * 8 / now.Sub(r.lastAt).Seconds())
}

// publish makes the snapshot that Status returns. It runs on the owner goroutine.
func (s *Session) publish() {
	st := &Status{
		State: s.state(), Waiting: []Person{}, People: []Person{}, Sending: s.sending.Allowed,
		Started: s.started, WhenIn: s.whenIn, HubUp: s.relayUp, LineUp: s.lineUp,
	}
	if s.outcome != nil {
		st.Reason = s.outcome.Reason
	}
	if !st.Sending {
		st.NotSending = s.sending.Reason.String()
	}
	for d, k := range s.people {
		if !k.admitted {
			st.Waiting = append(st.Waiting, Person{ID: d.EID(), Role: k.role.String(), Name: k.name, Away: k.gone})
		}
	}
	slices.SortFunc(st.Waiting, func(a, b Person) int { return cmp.Compare(a.ID, b.ID) })
	if s.epoch != nil {
		st.Epoch, st.Code = s.epoch.Number, s.epoch.Code
		for _, i := range s.epoch.Pictures {
			st.Pictures = append(st.Pictures, agreement.Pictures[i])
		}
		for _, m := range s.epoch.Members {
			if !m.Self && s.member(m.EID) != nil {
				st.People = append(st.People, Person{ID: m.EID, Role: m.Role.String(), Name: m.Name,
					Confirmed: confirmed(m.Level), Compared: m.Compared, Away: s.people[m.D].gone})
			}
		}
	}
	s.snapshot.Store(st)
}

func (s *Session) state() string {
	switch {
	case s.outcome != nil && s.outcome.Failed:
		return stateFailed
	case s.outcome != nil:
		return stateEnded
	case s.started:
		return stateTalking
	case s.others():
		return stateAdmitted
	}
	for _, k := range s.people {
		if k.admitted {
			return stateAgreeing
		}
	}
	return stateOpen
}

func confirmed(level uint8) string {
	switch level {
	case agreement.LevelClinic:
		return "clinic"
	case agreement.LevelOIDC:
		return "provider"
	}
	return "server"
}
