package sessions

import (
	"context"
	"errors"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/people"
)

// Why an invitation did not open; the codes of PROTOCOL.md.
var (
	ErrUnknown  = errors.New("unknown")
	ErrEarly    = errors.New("early")
	ErrIsOver   = errors.New("over")
	ErrSlowDown = errors.New("slow_down")
)

// Joined is what a browser gets for its invitation.
type Joined struct {
	Bearer      string
	Browser     string // the cookie to set
	Participant Participant
	Session     Session
	Label       string
	Clinic      string
	Demo        bool
}

// Join uses an invitation up. browser is the cookie that came with the request; "" when there was none.
//
// A browser keeps the cookie it has when the hub has given it out, so that a person with two appointments can go
// back to either; an unknown value is replaced, so that nobody can choose it.
func (s *Service) Join(ctx context.Context, invitation, browser string) (Joined, error) {
	t, err := s.o.Store.Invitation(ctx, HashOf(invitation))
	if errors.Is(err, ErrNotFound) {
		return Joined{}, ErrUnknown
	}
	if err != nil {
		return Joined{}, err
	}
	now := time.Now()
	label, listed := s.o.Directory.Label(t.Session.Room)
	switch {
	case t.Used && (browser == "" || HashOf(browser) != t.Browser):
		return Joined{}, ErrUsed
	case !t.Session.Ended.IsZero() || !now.Before(t.Session.Ends) || !listed:
		return Joined{}, ErrIsOver
	case now.Before(t.Session.Starts.Add(-s.o.Early)):
		return Joined{}, ErrEarly
	case !people.Allowed(t.Participant.Role, people.JoinSession):
		return Joined{}, ErrUnknown
	}
	if browser != "" {
		known, err := s.o.Store.BrowserKnown(ctx, HashOf(browser))
		if err != nil {
			return Joined{}, err
		}
		if !known {
			browser = ""
		}
	}
	if browser == "" {
		browser = secret()
	}
	bearer := secret()
	err = s.o.Store.UseInvitation(ctx, HashOf(invitation), HashOf(browser), HashOf(bearer), now)
	if errors.Is(err, ErrNotFound) { // replaced in between
		return Joined{}, ErrUnknown
	}
	if err != nil {
		return Joined{}, err
	}
	return Joined{
		Bearer: bearer, Browser: browser, Participant: t.Participant, Session: t.Session,
		Label: label, Clinic: s.o.Directory.Clinic(), Demo: s.o.Directory.Demo(),
	}, nil
}
