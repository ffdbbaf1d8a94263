package session

import (
	"context"
	"fmt"
	"strings"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// What is pressed in the room.

// Admit lets a waiting person in: by name, id or the beginning of the document hash; empty means the only one.
func (s *Session) Admit(person string) error {
	return s.ask(func() error {
		d, k, err := s.waiting(person)
		if err != nil {
			return err
		}
		if err := s.conf.Ledger.Permit(audit.Admit, d.String()); err != nil {
			return fmt.Errorf("the log cannot be written, so nobody can be let in: %w", err)
		}
		effects, err := s.agree.Admit(s.now(), d, k.role)
		if err != nil {
			return &NotNow{fmt.Sprintf("%s cannot come in now: %v", k.name, err)}
		}
		k.admitted, s.touched = true, true
		s.people[d] = k
		s.tell("admit", func(ctx context.Context) error { return s.conf.Relay.Admit(ctx, d.String()) })
		s.startLine()
		s.do(effects)
		return nil
	})
}

// startLine joins the SFU, once there is somebody to meet there.
func (s *Session) startLine() {
	if !s.lineRunning {
		s.lineRunning = true
		go s.line.run(s.ctx)
	}
}

// Refuse keeps a waiting person out.
func (s *Session) Refuse(person, reason string) error {
	return s.ask(func() error {
		d, _, err := s.waiting(person)
		if err != nil {
			return err
		}
		delete(s.people, d)
		s.conf.Ledger.Record(audit.Refuse, d.String())
		s.tell("refuse", func(ctx context.Context) error {
			return s.conf.Relay.Refuse(ctx, d.String(), hubReason(reason, "refused"))
		})
		return nil
	})
}

// Remove takes a person out.
func (s *Session) Remove(person, reason string) error {
	return s.ask(func() error {
		d, _, err := s.find(person, s.inside())
		if err != nil {
			return err
		}
		s.conf.Ledger.Record(audit.Remove, d.String())
		effects, err := s.agree.Remove(s.now(), d)
		if err != nil {
			return &NotNow{err.Error()}
		}
		delete(s.people, d)
		s.tell("remove", func(ctx context.Context) error {
			return s.conf.Relay.Remove(ctx, d.String(), hubReason(reason, "removed"))
		})
		s.removing = d
		s.do(effects)
		s.removing = agreement.D{}
		return nil
	})
}

// hubReason is a reason in the form that the hub takes (PROTOCOL.md): at most 64 printable ASCII characters.
func hubReason(reason, other string) string {
	if reason == "" || len(reason) > 64 || strings.ContainsFunc(reason, func(r rune) bool { return r < ' ' || r > '~' }) {
		return other
	}
	return reason
}

// Start opens camera and microphone for the people who are in. With whenAdmitted it is a press given in
// advance: it counts once, for the next person who comes in.
func (s *Session) Start(whenAdmitted bool) error {
	return s.ask(func() error {
		if s.others() {
			return s.begin()
		}
		if !whenAdmitted {
			return &NotNow{"Nobody has been let in yet. Let somebody in first, or start with --when-admitted."}
		}
		s.whenIn = true
		return nil
	})
}

func (s *Session) begin() error {
	if s.started {
		return nil
	}
	if err := s.conf.Ledger.Permit(audit.SessionStart, ""); err != nil {
		return fmt.Errorf("the log cannot be written, so camera and microphone stay off: %w", err)
	}
	s.started = true
	return nil
}

// Pause closes camera and microphone; the session stays.
func (s *Session) Pause() error {
	return s.ask(func() error {
		s.started, s.whenIn = false, false
		s.conf.Ledger.Record(audit.Pause, "")
		return nil
	})
}

// End ends the session for everybody.
func (s *Session) End(reason string) error {
	return s.ask(func() error {
		s.end(hubReason(reason, agreement.ReasonEnded.String()))
		return nil
	})
}

// waiting finds one person in the lobby.
func (s *Session) waiting(person string) (agreement.D, knock, error) {
	lobby := make(map[agreement.D]knock)
	for d, k := range s.people {
		if !k.admitted {
			lobby[d] = k
		}
	}
	return s.find(person, lobby)
}

// inside is everybody who was admitted. Members go by their documents: the hub must not be able to move a name
// from one to the other.
func (s *Session) inside() map[agreement.D]knock {
	in := make(map[agreement.D]knock)
	for d, k := range s.people {
		if k.admitted {
			in[d] = k
		}
	}
	if s.epoch != nil {
		for _, m := range s.epoch.Members {
			if k, ok := in[m.D]; ok && !m.Self {
				k.name = m.Name
				in[m.D] = k
			}
		}
	}
	return in
}

func (s *Session) find(person string, among map[agreement.D]knock) (agreement.D, knock, error) {
	var found []agreement.D
	for d, k := range among {
		if person == "" || k.name == person || k.id == person || d.EID() == person {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], among[found[0]], nil
	case len(found) > 1:
		return agreement.D{}, knock{}, &NotNow{"More than one person fits. Name one by the id that `alcoved room status` shows."}
	case person == "":
		return agreement.D{}, knock{}, &NotNow{"Nobody is waiting."}
	}
	return agreement.D{}, knock{}, &NotNow{fmt.Sprintf("%q is not here. `alcoved room status` shows who is.", person)}
}
