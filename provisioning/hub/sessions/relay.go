package sessions

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// ServePage is GET /v1/relay. The caller has checked the Origin.
func (s *Service) ServePage(w http.ResponseWriter, r *http.Request) {
	c, done := s.accept(w, r, "page")
	if c == nil {
		return
	}
	defer done()
	ctx := s.stop
	m, err := s.hello(ctx, c)
	if err == nil {
		err = s.attachPage(ctx, c, m.Bearer)
	}
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer s.detachPage(c)
	s.serve(ctx, c, pageFields(), s.fromPage)
}

// ServeRoom is GET /v1/device/relay of an authenticated device. listed says whether the connection's key still
// stands for that device on the roster; Recheck asks it.
func (s *Service) ServeRoom(w http.ResponseWriter, r *http.Request, device string, listed func() bool) {
	c, done := s.accept(w, r, "room")
	if c == nil {
		return
	}
	defer done()
	c.room, c.listed = device, listed
	s.attachRoom(s.stop, c)
	defer s.detachRoom(c)
	if !listed() { // taken off while the connection was made; Recheck may have come too early to see it
		c.shut(closeRefused, "unlisted")
	}
	s.serve(s.stop, c, roomFields(), s.fromRoom)
}

// accept upgrades the request and starts the writer. done waits until the connection is closed.
func (s *Service) accept(w http.ResponseWriter, r *http.Request, peer string) (c *conn, done func()) {
	if !s.o.Relays.Allow(r.RemoteAddr, time.Now()) {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "slow down", http.StatusTooManyRequests)
		return nil, nil
	}
	if !offers(r, Subprotocol) {
		http.Error(w, "this relay speaks "+Subprotocol, http.StatusBadRequest)
		return nil, nil
	}
	if s.stop.Err() != nil {
		http.Error(w, "the hub is stopping", http.StatusServiceUnavailable)
		return nil, nil
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{Subprotocol},
		// The listener compares the whole Origin (scheme, host, port) before this; the library's own check compares
		// hosts only and would refuse a page on an origin of its own.
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionDisabled, // lengths of sealed messages must not depend on content
		OnPingReceived:     func(context.Context, []byte) bool { c.alive(); return true },
	})
	if err != nil {
		return nil, nil // Accept has answered
	}
	c = newConn(ws, peer, s.o.Limits)
	c.alive()
	gauge := s.o.Metrics.connections.WithLabelValues(peer)
	gauge.Inc()
	written := make(chan struct{})
	s.work.Go(func() {
		defer close(written)
		c.write(s.stop)
	})
	return c, func() {
		c.shut(websocket.StatusNormalClosure, "")
		<-written
		_ = c.ws.CloseNow()
		gauge.Dec()
	}
}

func offers(r *http.Request, protocol string) bool {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		if slices.ContainsFunc(strings.Split(line, ","), func(p string) bool { return strings.TrimSpace(p) == protocol }) {
			return true
		}
	}
	return false
}

// hello reads a page's first message.
func (s *Service) hello(ctx context.Context, c *conn) (control, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	kind, raw, err := c.read(ctx)
	if err != nil {
		return control{}, err
	}
	if kind != websocket.MessageText {
		return control{}, errMessage
	}
	m, err := parseControl(raw, pageFields())
	if err != nil {
		return control{}, err
	}
	if m.T != "hello" || m.Bearer == "" {
		return control{}, errMessage
	}
	return m, nil
}

// serve reads until the connection ends.
func (s *Service) serve(ctx context.Context, c *conn, allowed map[string]fields, handle func(context.Context, *conn, control) error) {
	text := s.o.Metrics.messages.WithLabelValues(c.peer, "text")
	binary := s.o.Metrics.messages.WithLabelValues(c.peer, "binary")
	for {
		kind, raw, err := c.read(ctx)
		if err != nil {
			s.refuse(c, err)
			return
		}
		if kind == websocket.MessageBinary {
			binary.Inc()
			s.pass(c, raw)
			continue
		}
		text.Inc()
		m, err := parseControl(raw, allowed)
		if err == nil {
			err = handle(ctx, c, m)
		}
		if err != nil {
			s.refuse(c, err)
			return
		}
	}
}

// refuse closes a connection for what its peer did, or did not do.
func (s *Service) refuse(c *conn, err error) {
	switch {
	case errors.Is(err, errMessage):
		c.fail("bad_message")
		c.shut(closeBadMessage, "bad_message")
	case errors.Is(err, errLimit):
		c.shut(closeSlowDown, "slow_down")
	case errors.Is(err, ErrNotFound):
		c.shut(closeRefused, "unknown")
	case errors.Is(err, ErrOver):
		c.shut(websocket.StatusNormalClosure, "ended")
	default:
		c.shut(closeSilent, "silent")
	}
	if reason := c.reason; reason != "" {
		s.o.Metrics.closed.WithLabelValues(closedLabel(reason)).Inc()
	}
}

// closedLabel keeps the label's values few.
func closedLabel(reason string) string {
	switch reason {
	case "replaced", "slow_reader", "slow_down", "silent", "bad_message", "ended", "unlisted":
		return reason
	}
	return "other"
}
