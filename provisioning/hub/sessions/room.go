package sessions

import (
	"context"
	"errors"
	"time"
)

// attachRoom registers a room's connection and sends it its sessions.
func (s *Service) attachRoom(ctx context.Context, c *conn) {
	s.mu.Lock()
	if former := s.devices[c.room]; former != nil {
		former.shut(closeReplaced, "replaced")
	}
	s.devices[c.room] = c
	if o := s.openOfLocked(c.room); o != nil {
		o.ready = false // until this connection has opened it again
	}
	s.mu.Unlock()
	s.tellRoom(ctx, c.room)
}

func (s *Service) detachRoom(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devices[c.room] == c {
		delete(s.devices, c.room)
	}
}

// openOfLocked returns the session that a room has open. There is at most one.
func (s *Service) openOfLocked(room string) *opening {
	for _, o := range s.open {
		if o.session.Room == room {
			return o
		}
	}
	return nil
}

// fromRoom handles one text message of a room. The error, if any, closes the connection.
func (s *Service) fromRoom(ctx context.Context, c *conn, m control) error {
	switch m.T {
	case "ping":
		c.send(pongMessage{"pong", m.N})
		return nil
	case "open":
		return s.openSession(ctx, c, m)
	case "token":
		s.mu.Lock()
		o := s.openOfLocked(c.room)
		ready := o != nil && o.ready && s.devices[c.room] == c
		s.mu.Unlock()
		if !ready {
			c.fail("not_open")
			return nil
		}
		s.issueRoom(c, "token")
		return nil
	case "close":
		return s.closeSession(ctx, c, m.Reason)
	}
	d, err := ParseD(m.D)
	if err != nil {
		return errMessage
	}
	s.decide(ctx, c, m.T, d, m.Reason)
	return nil
}

// openSession makes an opening, or takes up the one that the same document has.
func (s *Service) openSession(ctx context.Context, c *conn, m control) error {
	sid, err := ParseSID(m.SID)
	if err != nil {
		return errMessage
	}
	d, err := ParseD(m.D)
	if err != nil {
		return errMessage
	}
	v, err := s.o.Store.Session(ctx, sid)
	now := time.Now()
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		s.o.Log.Error("read a session", "err", err)
		c.fail("failed")
		return nil
	case err != nil || v.Room != c.room || !v.Ended.IsZero() || !now.Before(v.Ends.Add(s.o.Overrun)):
		c.fail("unknown_session")
		return nil
	case now.Before(v.Starts.Add(-s.o.Early)):
		c.fail("early")
		return nil
	}
	s.mu.Lock()
	former := s.openOfLocked(c.room)
	s.mu.Unlock()
	if former != nil && former.SID != sid {
		if err := s.endSession(ctx, former.session, "room_busy", true); err != nil {
			s.o.Log.Error("end the session that was open", "err", err)
			c.fail("failed")
			return nil
		}
	}
	if !s.makeOpening(ctx, c, v, d) {
		return nil
	}
	s.o.Metrics.decisions.WithLabelValues("open").Inc()
	s.issueRoom(c, "opened")
	return nil
}

// makeOpening reports whether the room's document d now has the session open.
func (s *Service) makeOpening(ctx context.Context, c *conn, v Session, d D) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devices[c.room] != c {
		return false
	}
	if o := s.open[v.SID]; o != nil && o.D == d {
		o.ready = false
		return true
	}
	for _, p := range s.places {
		if p.sid == v.SID && p.state != stateNone && p.d.Identity() == d.Identity() {
			c.fail("d_taken")
			return false
		}
	}
	next := Opening{MediaRoom: random(16), SID: v.SID, D: d}
	if err := s.o.Store.Open(ctx, next, time.Now()); err != nil {
		s.o.Log.Error("store an opening", "err", err)
		c.fail("failed")
		return false
	}
	// Who was admitted to the former opening shared keys with a document that no longer exists.
	for _, p := range s.places {
		if p.sid == v.SID && p.state == stateAdmitted {
			s.finalLocked(p, "removed", "room_restarted")
		}
	}
	s.open[v.SID] = &opening{Opening: next, session: v}
	s.o.Metrics.open.Set(float64(len(s.open)))
	s.Sweep()
	return true
}

// openedLocked tells the room that it may begin, and whom to expect.
func (s *Service) openedLocked(c *conn, o *opening, m tokenMessage) {
	o.ready = true
	m.SID = o.SID.String()
	c.send(m)
	for _, participant := range o.session.Participants {
		p := s.places[participant.ID]
		page := s.pages[participant.ID]
		switch {
		case p == nil:
		case p.state == stateWaiting:
			s.presentLocked(p)
		case p.state == stateAdmitted && page == nil:
			c.send(placeMessage{"gone", p.d.String()})
		}
	}
	s.resyncLocked(o, c)
}

// finalLocked tells a page that its document is out for good.
func (s *Service) finalLocked(p *place, kind, reason string) {
	p.state, p.final = stateFinal, reason
	if page := s.pages[p.participant.ID]; page != nil {
		page.send(reasonMessage{kind, reason})
	}
}

// decide carries out what the room says about one document.
func (s *Service) decide(ctx context.Context, c *conn, decision string, d D, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.openOfLocked(c.room)
	if o == nil || !o.ready || s.devices[c.room] != c {
		c.fail("not_open")
		return
	}
	var p *place
	for _, v := range s.places {
		if v.sid == o.SID && v.d == d && (v.state == stateWaiting || v.state == stateAdmitted) {
			p = v
		}
	}
	if p == nil {
		if decision == "admit" { // refusing or removing somebody who left meanwhile is no error
			c.fail("unknown_knock")
		}
		return
	}
	s.o.Metrics.decisions.WithLabelValues(decision).Inc()
	if decision == "admit" {
		s.admitLocked(ctx, c, o, p)
		return
	}
	kind := "refused"
	if p.state == stateAdmitted {
		kind = "removed"
		s.unadmitLocked(ctx, p)
	}
	s.finalLocked(p, kind, reason)
}

// admitLocked stores the admission before anybody hears of it.
func (s *Service) admitLocked(ctx context.Context, room *conn, o *opening, p *place) {
	if p.state == stateWaiting {
		if err := s.o.Store.Admit(ctx, o.MediaRoom, Admission{D: p.d, Participant: p.participant.ID}, time.Now()); err != nil {
			s.o.Log.Error("store an admission", "err", err)
			room.fail("failed")
			return
		}
		p.state = stateAdmitted
	}
	if page := s.pages[p.participant.ID]; page != nil && s.memberLocked(page) == o {
		s.issuePageLocked(page, "admitted")
	}
}

func (s *Service) closeSession(ctx context.Context, c *conn, reason string) error {
	s.mu.Lock()
	o := s.openOfLocked(c.room)
	current := s.devices[c.room] == c
	s.mu.Unlock()
	if o == nil || !current {
		c.fail("not_open")
		return nil
	}
	s.o.Metrics.decisions.WithLabelValues("close").Inc()
	if err := s.endSession(ctx, o.session, reason, true); err != nil {
		s.o.Log.Error("end a session", "err", err)
		c.fail("failed")
	}
	return nil
}

// Recheck closes rooms that are no longer on the roster, after it changed.
func (s *Service) Recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.devices {
		if !c.listed() {
			c.shut(closeRefused, "unlisted")
		}
	}
}
