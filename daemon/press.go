package daemon

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"encoding/json"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/session"
)

// What is pressed in the room.

// Start opens camera and microphone.
func (r *room) Start(whenAdmitted bool) error {
	return r.with(func(s *session.Session) error { return s.Start(whenAdmitted) })
}

// Pause closes them.
func (r *room) Pause() error { return r.with((*session.Session).Pause) }

// Admit lets a waiting person in.
func (r *room) Admit(person string) error {
	return r.with(func(s *session.Session) error { return s.Admit(person) })
}

// Refuse keeps a waiting person out.
func (r *room) Refuse(person, reason string) error {
	return r.with(func(s *session.Session) error { return s.Refuse(person, reason) })
}

// Remove takes a person out.
func (r *room) Remove(person, reason string) error {
	return r.with(func(s *session.Session) error { return s.Remove(person, reason) })
}

// End ends the session for everybody.
func (r *room) End(reason string) error {
	return r.with(func(s *session.Session) error { return s.End(reason) })
}

// Mute drops sound in the daemon, at once, or lets it through again.
func (r *room) Mute(muted bool) error {
	return r.with(func(*session.Session) error {
		if muted {
			r.pipeline.muted.Store(true)
			r.ledger.Record(audit.Mute, "microphone")
			return nil
		}
		if err := r.ledger.Permit(audit.Unmute, "microphone"); err != nil {
			return fmt.Errorf("the log cannot be written, so the microphone stays off: %w", err)
		}
		r.pipeline.muted.Store(false)
		return nil
	})
}

// Camera drops the picture in the daemon, at once, or lets it through again.
func (r *room) Camera(on bool) error {
	return r.with(func(*session.Session) error {
		if !on {
			r.pipeline.cameraOff.Store(true)
			r.ledger.Record(audit.Mute, "camera")
			return nil
		}
		if err := r.ledger.Permit(audit.Unmute, "camera"); err != nil {
			return fmt.Errorf("the log cannot be written, so the camera stays off: %w", err)
		}
		r.pipeline.cameraOff.Store(false)
		r.pipeline.keyFrame()
		return nil
	})
}

func (r *room) with(do func(*session.Session) error) error {
	s := r.current()
	if s == nil {
		return errNoSession
	}
	return do(s)
}

// Status is what the room is doing, for the people in it.
type Status struct {
	Room       string          `json:"room"`     // label; empty while the box belongs to no clinic
	Enrolled   bool            `json:"enrolled"` // the roster lists this box and a configuration is in force
	Demo       bool            `json:"demo"`
	HubUp      bool            `json:"hub_up"`
	Camera     string          `json:"camera"`     // off, on, trouble
	Microphone string          `json:"microphone"` // off, on, trouble
	Muted      bool            `json:"muted"`
	CameraOff  bool            `json:"camera_off"`
	Trouble    string          `json:"trouble,omitempty"`
	Session    *session.Status `json:"session,omitempty"`
	LastEnd    string          `json:"last_end,omitempty"`
}

// Status returns what the room is doing now.
func (r *room) Status() Status {
	docs := r.store.Current(time.Now())
	r.mu.Lock()
	s, last, hubUp := r.open, r.last, r.hubUp
	r.mu.Unlock()
	st := Status{HubUp: hubUp, Muted: r.pipeline.muted.Load(), CameraOff: r.pipeline.cameraOff.Load(), LastEnd: last.Reason,
		Enrolled: docs.Device != nil && docs.Config != nil}
	if docs.Trust != nil {
		st.Demo = docs.Trust.Root().Demo
	}
	if docs.Device != nil {
		st.Room = docs.Device.Label
	}
	device := "off"
	switch c := r.pipeline.state.Load(); {
	case c.Trouble != "":
		device, st.Trouble = "trouble", c.Trouble
	case c.Running:
		device = "on"
	}
	st.Camera, st.Microphone = device, device
	if s != nil {
		now := s.Status()
		st.Session = &now
	}
	return st
}

// printStatus writes a status for people, or as JSON.
func printStatus(w io.Writer, s Status, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	if !s.Enrolled {
		row("Room", "belongs to no clinic yet")
		return t.Flush()
	}
	demo := ""
	if s.Demo {
		demo = " (demonstration)"
	}
	row("Room", "%s%s", s.Room, demo)
	row("Hub", "%s", either(s.HubUp, "connected", "not reached; trying"))
	row("Camera", "%s", either(s.Camera == "on" && s.CameraOff, "on, nothing of it leaves the room", s.Camera))
	row("Microphone", "%s", either(s.Microphone == "on" && s.Muted, "on, muted: nothing of it leaves the room", s.Microphone))
	if s.Trouble != "" {
		row("Trouble", "%s", s.Trouble)
	}
	if s.Session == nil {
		row("Session", "none is open")
		return t.Flush()
	}
	printSession(row, s.Session)
	return t.Flush()
}

func printSession(row func(string, string, ...any), s *session.Status) {
	row("Session", "%s", sessionWords(s))
	for _, p := range s.Waiting {
		row("Waiting", "%s (%s), id %s%s", p.Name, p.Role, p.ID, either(p.Away, ", line lost", ""))
	}
	for _, p := range s.People {
		row("Here", "%s (%s), confirmed by the %s%s", p.Name, p.Role, p.Confirmed, either(p.Away, ", line lost", ""))
		if r := p.Received; r != nil {
			row("", "received: %d pictures %dx%d, %d packets of sound at %.0f dBFS, %d refused",
				r.VideoFrames, r.Width, r.Height, r.AudioPackets, r.Level, r.Rejected)
		}
	}
	if s.Code != "" && len(s.People) > 0 {
		row("Compare", "%s   %s", s.Code, strings.Join(s.Pictures, " · "))
	}
}

func sessionWords(s *session.Status) string {
	switch s.State {
	case "open":
		return "open, nobody is in yet"
	case "agreeing":
		return "somebody is coming in"
	case "admitted":
		return "somebody is here; camera and microphone wait for `alcoved room start`"
	case "talking":
		return either(s.Sending, "running", "running, nothing is sent: "+s.NotSending)
	}
	return s.State + ": " + s.Reason
}

func either(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}
