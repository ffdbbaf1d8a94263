package sessions

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/coder/websocket"

	"github.com/alcove-room/alcove/provisioning/hub/people"
)

// Errors of the desk that a caller tells apart; ErrNotFound is one more.
var (
	ErrRequest = errors.New("the request cannot be carried out")
	ErrOver    = errors.New("the session is over")
)

// Bounds of an appointment.
const (
	maxParticipants = 4 // remote people of one session
	maxLength       = 12 * time.Hour
	maxAhead        = 366 * 24 * time.Hour
)

// Add makes a session. Ids are chosen here; those given are ignored.
func (s *Service) Add(ctx context.Context, v Session) (Session, error) {
	now := time.Now()
	v.Starts, v.Ends = v.Starts.UTC().Truncate(time.Millisecond), v.Ends.UTC().Truncate(time.Millisecond)
	switch {
	case !v.Ends.After(v.Starts):
		return v, fmt.Errorf("%w: it must end after it starts", ErrRequest)
	case v.Ends.Sub(v.Starts) > maxLength:
		return v, fmt.Errorf("%w: a session is at most %s long", ErrRequest, maxLength)
	case !v.Ends.After(now):
		return v, fmt.Errorf("%w: its end has passed", ErrRequest)
	case v.Starts.Sub(now) > maxAhead:
		return v, fmt.Errorf("%w: it starts more than a year from now", ErrRequest)
	case len(v.Participants) == 0 || len(v.Participants) > maxParticipants:
		return v, fmt.Errorf("%w: name 1 to %d remote participants", ErrRequest, maxParticipants)
	}
	if _, ok := s.o.Directory.Label(v.Room); !ok {
		return v, fmt.Errorf("%w: no room %q is on the clinic's roster", ErrRequest, v.Room)
	}
	rand.Read(v.SID[:])
	for i := range v.Participants {
		p := &v.Participants[i]
		if !people.Allowed(p.Role, people.JoinSession) {
			return v, fmt.Errorf("%w: a %q does not take part from afar; use therapist, patient or guest", ErrRequest, p.Role)
		}
		if err := people.CheckName(p.Name); err != nil {
			return v, fmt.Errorf("%w: %w", ErrRequest, err)
		}
		p.ID = random(12)
	}
	if err := s.o.Store.AddSession(ctx, v); err != nil {
		return v, err
	}
	s.tellRoom(ctx, v.Room)
	return v, nil
}

// List returns the sessions that have not ended, by start.
func (s *Service) List(ctx context.Context) ([]Session, error) {
	return s.o.Store.Sessions(ctx, "", time.Now().Add(-s.o.Overrun))
}

// Cancel ends a session for everybody, now.
func (s *Service) Cancel(ctx context.Context, sid SID) error {
	v, err := s.o.Store.Session(ctx, sid)
	if err != nil {
		return err
	}
	if !v.Ended.IsZero() {
		return ErrOver
	}
	return s.endSession(ctx, v, "cancelled", false)
}

// Invitation is a link for one participant.
type Invitation struct {
	Link    string
	Expires time.Time
}

// Invite makes an invitation. The participant's former one stops to work, and so does what was opened with it.
func (s *Service) Invite(ctx context.Context, sid SID, participant string) (Invitation, error) {
	v, err := s.o.Store.Session(ctx, sid)
	if err != nil {
		return Invitation{}, err
	}
	if !v.Ended.IsZero() || !time.Now().Before(v.Ends) {
		return Invitation{}, ErrOver
	}
	clinic := s.o.Directory.Clinic()
	if clinic == "" {
		return Invitation{}, fmt.Errorf("%w: the hub has no owner root yet", ErrRequest)
	}
	token := secret()
	if err := s.o.Store.SetInvitation(ctx, sid, participant, HashOf(token), time.Now()); err != nil {
		return Invitation{}, err
	}
	s.mu.Lock()
	if c := s.pages[participant]; c != nil {
		c.shut(closeReplaced, "replaced")
	}
	s.leaveLocked(ctx, s.places[participant])
	s.mu.Unlock()
	s.Sweep()
	fragment := url.Values{"h": {s.o.PeopleURL}, "i": {token}, "c": {clinic}}
	return Invitation{Link: s.o.CallOrigin + "/#" + fragment.Encode(), Expires: v.Ends}, nil
}

// endSession ends a session in the store first: after a crash in between nobody is told, and nobody gets in again.
// byRoom says that the room itself wished it and need not be told.
func (s *Service) endSession(ctx context.Context, v Session, reason string, byRoom bool) error {
	if err := s.o.Store.EndSession(ctx, v.SID, time.Now(), reason); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.open, v.SID)
	s.o.Metrics.open.Set(float64(len(s.open)))
	for _, p := range v.Participants {
		delete(s.places, p.ID)
		if c := s.pages[p.ID]; c != nil {
			c.send(reasonMessage{"ended", reason})
			c.shut(websocket.StatusNormalClosure, "ended")
		}
	}
	if c := s.devices[v.Room]; c != nil && !byRoom {
		c.send(cancelledMessage{"cancelled", v.SID.String()})
	}
	s.mu.Unlock()
	s.tellRoom(ctx, v.Room)
	s.Sweep()
	return nil
}

// expire ends sessions whose window and overrun have passed.
func (s *Service) expire(ctx context.Context) {
	list, err := s.o.Store.Sessions(ctx, "", time.Time{})
	if err != nil {
		s.o.Log.Error("look for sessions that are over", "err", err)
		return
	}
	for _, v := range list {
		if time.Now().Before(v.Ends.Add(s.o.Overrun)) {
			continue
		}
		if err := s.endSession(ctx, v, "over", false); err != nil {
			s.o.Log.Error("end a session that is over", "err", err)
		}
	}
}

// maxListed bounds the list for a room, which must fit one message.
const maxListed = 40

// tellRoom sends a connected room its list of sessions.
func (s *Service) tellRoom(ctx context.Context, room string) {
	s.mu.Lock()
	c := s.devices[room]
	s.mu.Unlock()
	if c == nil {
		return
	}
	list, err := s.o.Store.Sessions(ctx, room, time.Now().Add(-s.o.Overrun))
	if err != nil {
		s.o.Log.Error("list a room's sessions", "err", err)
		return
	}
	m := sessionsMessage{T: "sessions", Sessions: []sessionEntry{}}
	for _, v := range list[:min(len(list), maxListed)] {
		m.Sessions = append(m.Sessions, entryOf(v))
	}
	c.send(m)
}
