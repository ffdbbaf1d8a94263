package sessions

import (
	"context"
	"errors"
	"time"

	"github.com/coder/websocket"
)

// attachPage registers a page's connection after its hello.
func (s *Service) attachPage(ctx context.Context, c *conn, bearer string) error {
	t, err := s.o.Store.Bearer(ctx, HashOf(bearer))
	if err != nil {
		return err
	}
	label, listed := s.o.Directory.Label(t.Session.Room)
	if !t.Session.Ended.IsZero() || !listed || !time.Now().Before(t.Session.Ends.Add(s.o.Overrun)) {
		c.send(reasonMessage{"ended", "over"})
		return ErrOver
	}
	c.participant, c.session = t.Participant, t.Session
	s.mu.Lock()
	defer s.mu.Unlock()
	if former := s.pages[c.participant.ID]; former != nil {
		former.shut(closeReplaced, "replaced")
	}
	s.pages[c.participant.ID] = c
	state := "waiting"
	if p := s.places[c.participant.ID]; p != nil && p.state == stateAdmitted {
		state = "admitted"
	}
	c.send(welcomeMessage{
		T: "welcome", SID: c.session.SID.String(), Clinic: s.o.Directory.Clinic(),
		Participant: personOf(c.participant), Room: roomLabel{label}, State: state,
	})
	return nil
}

// detachPage tells the room that a page's connection is gone, unless a newer one has taken its place.
func (s *Service) detachPage(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pages[c.participant.ID] != c {
		return
	}
	delete(s.pages, c.participant.ID)
	p := s.places[c.participant.ID]
	if p != nil && (p.state == stateWaiting || p.state == stateAdmitted) {
		s.toRoomLocked(p.sid, placeMessage{"gone", p.d.String()})
	}
}

// fromPage handles one text message of a page. The error, if any, closes the connection.
func (s *Service) fromPage(ctx context.Context, c *conn, m control) error {
	switch m.T {
	case "ping":
		c.send(pongMessage{"pong", m.N})
	case "knock":
		d, err := ParseD(m.D)
		if err != nil {
			return errMessage
		}
		s.knock(ctx, c, d)
	case "token":
		s.mu.Lock()
		admitted := s.memberLocked(c) != nil
		s.mu.Unlock()
		if !admitted {
			c.fail("not_admitted")
			break
		}
		s.issuePage(c, "token")
	case "leave":
		return s.leave(ctx, c)
	default: // a second hello
		return errMessage
	}
	return nil
}

// fail tells the peer what it cannot have.
func (c *conn) fail(code string) { c.send(errorMessage{"error", code, wording(code)}) }

// knock puts a page's document before the room, or takes up the place it had before its connection was lost.
func (s *Service) knock(ctx context.Context, c *conn, d D) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pages[c.participant.ID] != c {
		return
	}
	p := s.places[c.participant.ID]
	if p == nil {
		p = &place{participant: c.participant, sid: c.session.SID}
		s.places[c.participant.ID] = p
	}
	if s.takenLocked(p, d) {
		c.fail("d_taken")
		return
	}
	c.knocked, c.d = true, d
	switch {
	case p.state == stateAdmitted && p.d == d:
		s.toRoomLocked(p.sid, placeMessage{"back", d.String()})
		s.issuePageLocked(c, "admitted")
		return
	case p.state == stateFinal && p.d == d:
		c.send(reasonMessage{"refused", p.final})
		return
	case p.state == stateWaiting && p.d == d:
		s.presentLocked(p)
		return
	}
	s.leaveLocked(ctx, p)
	p.state, p.d = stateWaiting, d
	s.places[c.participant.ID] = p
	s.presentLocked(p)
}

// takenLocked refuses a document that another endpoint of the session uses: one key must not be two members.
func (s *Service) takenLocked(p *place, d D) bool {
	if o := s.open[p.sid]; o != nil && o.D.Identity() == d.Identity() {
		return true
	}
	for _, other := range s.places {
		if other != p && other.sid == p.sid && other.state != stateNone && other.d.Identity() == d.Identity() {
			return true
		}
	}
	return false
}

// presentLocked shows a waiting page to the room, or tells the page that no room has the session open.
func (s *Service) presentLocked(p *place) {
	page := s.pages[p.participant.ID]
	if page == nil {
		return
	}
	o := s.open[p.sid]
	if o == nil || !o.ready || s.devices[o.session.Room] == nil {
		page.send(bareMessage{"closed_room"})
		return
	}
	s.devices[o.session.Room].send(knockMessage{"knock", p.d.String(), personOf(p.participant)})
	page.send(bareMessage{"waiting"})
}

// leaveLocked takes a participant out of the session: nobody waits or is admitted with that document any more.
func (s *Service) leaveLocked(ctx context.Context, p *place) {
	if p == nil {
		return
	}
	if p.state == stateWaiting || p.state == stateAdmitted {
		s.toRoomLocked(p.sid, placeMessage{"left", p.d.String()})
	}
	s.unadmitLocked(ctx, p)
	delete(s.places, p.participant.ID)
}

// unadmitLocked ends an admission. Memory decides, so a failing store cannot keep anybody in; what it kept would
// come back with the next start of the hub, so the failure is loud.
func (s *Service) unadmitLocked(ctx context.Context, p *place) {
	if p.state != stateAdmitted {
		return
	}
	p.state = stateNone
	if o := s.open[p.sid]; o != nil {
		if err := s.o.Store.Unadmit(ctx, o.MediaRoom, p.d); err != nil {
			s.o.Log.Error("store the end of an admission", "err", err)
		}
	}
	s.Sweep()
}

func (s *Service) leave(ctx context.Context, c *conn) error {
	if err := s.o.Store.DropBearer(ctx, c.participant.ID); err != nil {
		s.o.Log.Error("drop a bearer", "err", err)
	}
	s.mu.Lock()
	if s.pages[c.participant.ID] == c {
		s.leaveLocked(ctx, s.places[c.participant.ID])
	}
	s.mu.Unlock()
	c.shut(websocket.StatusNormalClosure, "left")
	return errLeft
}

var errLeft = errors.New("left")

// memberLocked returns the opening that a page is a member of: admitted, with the document it knocked with on this
// very connection. A page that was loaded again is not a member before its own document is admitted.
func (s *Service) memberLocked(c *conn) *opening {
	p := s.places[c.participant.ID]
	if p == nil || p.state != stateAdmitted || s.pages[c.participant.ID] != c || !c.knocked || c.d != p.d {
		return nil
	}
	return s.open[p.sid]
}

// toRoomLocked sends to the room that has the session open, if it is connected.
func (s *Service) toRoomLocked(sid SID, m any) {
	if o := s.open[sid]; o != nil && o.ready {
		if c := s.devices[o.session.Room]; c != nil {
			c.send(m)
		}
	}
}

// resyncLocked asks all members but one to send their current messages again.
func (s *Service) resyncLocked(o *opening, except *conn) {
	for _, c := range s.membersLocked(o) {
		if c != except {
			c.send(bareMessage{"resync"})
		}
	}
}

// membersLocked lists the connections of an opening: the room and the admitted pages.
func (s *Service) membersLocked(o *opening) []*conn {
	var list []*conn
	if c := s.devices[o.session.Room]; c != nil && o.ready {
		list = append(list, c)
	}
	for _, p := range o.session.Participants {
		if c := s.pages[p.ID]; c != nil && s.memberLocked(c) == o {
			list = append(list, c)
		}
	}
	return list
}

// pass relays one binary message to the other members. What comes from elsewhere is dropped and counted.
func (s *Service) pass(from *conn, raw []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var o *opening
	if from.peer == "page" {
		o = s.memberLocked(from)
	} else if s.devices[from.room] == from {
		o = s.openOfLocked(from.room)
	}
	if o == nil || !o.ready {
		s.o.Metrics.messages.WithLabelValues(from.peer, "dropped").Inc()
		return
	}
	for _, c := range s.membersLocked(o) {
		if c != from {
			c.relay(raw)
		}
	}
}
