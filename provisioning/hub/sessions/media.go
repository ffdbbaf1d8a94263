package sessions

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Bounds of calls to the media server.
const (
	mediaTimeout  = 3 * time.Second  // of one call
	mediaPatience = 10 * time.Second // for a token: a restarted media server is back within 3 s
	mediaRetry    = 200 * time.Millisecond
)

// issuePage makes a token for an admitted page and sends it as message kind; issueRoom does so for the room.
func (s *Service) issuePage(c *conn, kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuePageLocked(c, kind)
}

func (s *Service) issuePageLocked(c *conn, kind string) {
	s.issueLocked(c, kind, func() *opening { return s.memberLocked(c) }, func(o *opening, kind, token string) {
		c.send(tokenMessage{T: kind, URL: s.o.PageMediaURL, Token: token, Identity: c.d.Identity()})
		if kind == "admitted" {
			s.resyncLocked(o, nil)
		}
	}, func() string { return c.d.Identity() })
}

func (s *Service) issueRoom(c *conn, kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	current := func() *opening {
		if s.devices[c.room] != c {
			return nil
		}
		return s.openOfLocked(c.room)
	}
	s.issueLocked(c, kind, current, func(o *opening, kind, token string) {
		m := tokenMessage{T: kind, URL: s.o.RoomMediaURL, Token: token, Identity: o.D.Identity()}
		if kind == "opened" {
			s.openedLocked(c, o, m)
			return
		}
		c.send(m)
	}, func() string { return s.openOfLocked(c.room).D.Identity() })
}

// issueLocked makes sure in the background that the LiveKit room exists, because auto_create is off and a restarted
// media server has forgotten it, and then makes the token. Whether the peer is still a member is asked again, under
// the mutex, at the moment in which the token is sent. One attempt runs for each connection; later requests join it,
// and its answer is then the one that says more: opened or admitted before token.
func (s *Service) issueLocked(c *conn, kind string, current func() *opening, send func(o *opening, kind, token string), identity func() string) {
	o := current()
	if o == nil {
		return
	}
	if c.issuing != "" {
		if kind != "token" {
			c.issuing = kind
		}
		return
	}
	c.issuing = kind
	room := o.MediaRoom
	s.work.Go(func() {
		err := s.ensure(c, room)
		s.mu.Lock()
		defer s.mu.Unlock()
		kind := c.issuing
		c.issuing = ""
		now := current()
		if now == nil {
			return
		}
		if now.MediaRoom != room { // opened anew meanwhile: the request is about the new room
			s.issueLocked(c, kind, current, send, identity)
			return
		}
		var token string
		if err == nil {
			token, err = s.o.Media.Token(room, identity())
		}
		if err != nil {
			s.o.Metrics.mediaErrors.Inc()
			s.o.Log.Warn("no LiveKit token could be made", "err", err)
			c.fail("media_unavailable")
			return
		}
		s.o.Metrics.tokens.Inc()
		send(now, kind, token)
	})
}

// ensure makes the LiveKit room, waiting out a restart of the media server.
func (s *Service) ensure(c *conn, room string) error {
	ctx, cancel := context.WithTimeout(s.stop, mediaPatience)
	defer cancel()
	for {
		call, done := context.WithTimeout(ctx, mediaTimeout)
		err := s.o.Media.Ensure(call, room)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-c.done:
			return err
		case <-time.After(mediaRetry):
		}
	}
}

// sweep removes LiveKit participants that are not admitted, makes rooms again that the media server has forgotten,
// and deletes rooms of sessions that are over.
func (s *Service) sweep(ctx context.Context) {
	s.mu.Lock()
	rooms := make(map[string]SID, len(s.open))
	for sid, o := range s.open {
		rooms[o.MediaRoom] = sid
	}
	s.mu.Unlock()
	for room, sid := range rooms {
		s.sweepRoom(ctx, room, sid)
	}
	closed, err := s.o.Store.ClosedRooms(ctx)
	if err != nil {
		s.o.Log.Error("list closed rooms", "err", err)
		return
	}
	for _, room := range closed {
		if s.media(ctx, func(ctx context.Context) error { return s.o.Media.Delete(ctx, room) }) != nil {
			continue // the next sweep tries again
		}
		if err := s.o.Store.ForgetRoom(ctx, room); err != nil {
			s.o.Log.Error("forget a closed room", "err", err)
		}
	}
}

func (s *Service) sweepRoom(ctx context.Context, room string, sid SID) {
	var present []string
	err := s.media(ctx, func(ctx context.Context) (err error) {
		present, err = s.o.Media.Identities(ctx, room)
		if errors.Is(err, ErrNoRoom) {
			return s.o.Media.Ensure(ctx, room)
		}
		return err
	})
	if err != nil {
		return
	}
	for _, identity := range present {
		// Asked for each one and after the listing: who was admitted in between must not be removed.
		if slices.Contains(s.admitted(sid, room), identity) {
			continue
		}
		err := s.media(ctx, func(ctx context.Context) error { return s.o.Media.Remove(ctx, room, identity) })
		if err == nil {
			s.o.Metrics.swept.Inc()
			s.o.Log.Warn("removed a LiveKit participant that was not admitted")
		}
	}
}

// admitted lists the identities that may be in a LiveKit room now.
func (s *Service) admitted(sid SID, room string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.open[sid]
	if o == nil || o.MediaRoom != room {
		return nil
	}
	list := []string{o.D.Identity()}
	for _, p := range o.session.Participants {
		if v := s.places[p.ID]; v != nil && v.state == stateAdmitted {
			list = append(list, v.d.Identity())
		}
	}
	return list
}

// media makes one bounded call and counts its failure.
func (s *Service) media(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, mediaTimeout)
	defer cancel()
	err := call(ctx)
	if err != nil {
		s.o.Metrics.mediaErrors.Inc()
		s.o.Log.Debug("a call to the media server failed", "err", err)
	}
	return err
}
