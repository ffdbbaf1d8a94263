package session

import (
	"sync"
	"time"
)

// inboxSize is how many steps may wait for the owner goroutine. Whoever brings one more waits: for the relay's
// reader that is the hub's own back-pressure.
const inboxSize = 64

// post runs fn on the owner goroutine, in the order of the calls. It reports false, and fn never runs, when the
// session is over. It must not be called on the owner goroutine.
func (s *Session) post(fn func()) bool {
	select {
	case <-s.over:
		return false
	default:
	}
	select {
	case s.inbox <- fn:
		return true
	case <-s.over:
		return false
	}
}

// ask runs fn on the owner goroutine and returns its error.
func (s *Session) ask(fn func() error) error {
	done := make(chan error, 1)
	if !s.post(func() { done <- fn() }) {
		return errOver()
	}
	select {
	case err := <-done:
		return err
	case <-s.over:
	}
	select {
	case err := <-done: // it was the last step
		return err
	default:
		return errOver()
	}
}

func errOver() error { return &NotNow{"The session has just ended."} }

// ticketFresh is how long a ticket is used after it came; the hub's last for ten minutes.
const ticketFresh = 5 * time.Minute

// tickets holds the newest ticket for the SFU until it is taken. An answer that comes too late for one attempt
// serves the next.
type tickets struct {
	mu     sync.Mutex
	newest *Ticket
	at     time.Time
	came   chan struct{}
}

func newTickets() *tickets { return &tickets{came: make(chan struct{}, 1)} }

func (t *tickets) put(ticket Ticket) {
	t.mu.Lock()
	t.newest, t.at = &ticket, time.Now()
	t.mu.Unlock()
	select {
	case t.came <- struct{}{}:
	default:
	}
}

// take returns the ticket that waits, and forgets it: each is for one joining.
func (t *tickets) take() (Ticket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.newest == nil || time.Since(t.at) > ticketFresh {
		return Ticket{}, false
	}
	ticket := *t.newest
	t.newest = nil
	return ticket, true
}
