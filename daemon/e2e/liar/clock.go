package liar

import (
	"sync"
	"time"

	"github.com/alcove-room/alcove/daemon/session"
)

// Clock is a clock that flows like the machine's and can be made to leap.
type Clock struct {
	mu     sync.Mutex // guards all below
	ahead  time.Duration
	timers map[*timer]struct{} // those that wait
}

// NewClock returns a clock that shows the machine's time.
func NewClock() *Clock { return &Clock{timers: make(map[*timer]struct{})} }

// Now is the time of this clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *Clock) nowLocked() time.Time { return time.Now().Add(c.ahead) }

// Leap lets d pass at once: timers that are due by then fire.
func (c *Clock) Leap(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	for t := range c.timers {
		t.armLocked()
	}
}

// NewTimer makes a timer of this clock.
func (c *Clock) NewTimer(d time.Duration) session.Timer {
	t := &timer{clock: c, c: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

type timer struct {
	clock *Clock
	c     chan time.Time

	// Guarded by clock.mu.
	at     time.Time
	real   *time.Timer
	number int // of the arming; an older one that fires late counts for nothing
}

func (t *timer) C() <-chan time.Time { return t.c }

func (t *timer) Reset(d time.Duration) {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.stopLocked()
	t.at = t.clock.nowLocked().Add(d)
	t.clock.timers[t] = struct{}{}
	t.armLocked()
}

func (t *timer) Stop() {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.stopLocked()
}

func (t *timer) stopLocked() {
	delete(t.clock.timers, t)
	t.number++
	if t.real != nil {
		t.real.Stop()
	}
	select {
	case <-t.c:
	default:
	}
}

func (t *timer) armLocked() {
	if t.real != nil {
		t.real.Stop()
	}
	t.number++
	number := t.number
	t.real = time.AfterFunc(max(0, t.at.Sub(t.clock.nowLocked())), func() {
		t.clock.mu.Lock()
		defer t.clock.mu.Unlock()
		if number == t.number {
			delete(t.clock.timers, t)
			t.c <- t.clock.nowLocked() // has room: stopLocked emptied it, and one arming fires once
		}
	})
}
