package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// outboxLetters and outboxBytes bound what waits for the hub. An honest round of five members fits many times.
	outboxLetters = 256
	outboxBytes   = 4 << 20
	// owedLetters bounds the decisions that wait for the hub to come back.
	owedLetters = 64
	sendTimeout = 5 * time.Second
	// farewell is how long an ended session waits for its last words to be written.
	farewell = time.Second
)

// outbox carries what the session says to the hub, in order, on a goroutine of its own: a hub that does not read
// must not hold up the key agreement, nor a press. Agreement messages that are lost are made again by Resend when
// the connection is back; decisions about people (letter.keep) wait for that.
type outbox struct {
	log      *slog.Logger
	overflow func() // called when messages were dropped and the queue is empty again

	mu    sync.Mutex // guards all below
	up    bool
	queue []letter
	bytes int
	owed  []letter
	lost  bool
	busy  bool
	wake  chan struct{}
	idle  chan struct{} // closed while nothing waits and nothing is being written
}

// letter is one message to the hub.
type letter struct {
	what string
	size int
	keep bool // a decision that the hub must hear of, if need be after the next opening
	send func(context.Context) error
}

func newOutbox(log *slog.Logger, overflow func()) *outbox {
	o := &outbox{log: log, overflow: overflow, wake: make(chan struct{}, 1), idle: make(chan struct{})}
	close(o.idle)
	return o
}

// put queues a letter; it never waits.
func (o *outbox) put(l letter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !o.up:
		o.oweLocked(l)
	case len(o.queue) >= outboxLetters || o.bytes+l.size > outboxBytes:
		o.lost = true
		o.oweLocked(l)
	default:
		o.addLocked(l)
	}
}

func (o *outbox) addLocked(l letter) {
	if len(o.queue) == 0 && !o.busy {
		o.idle = make(chan struct{})
	}
	o.queue = append(o.queue, l)
	o.bytes += l.size
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) oweLocked(l letter) {
	if l.keep && len(o.owed) < owedLetters {
		o.owed = append(o.owed, l)
	}
}

// setUp tells that the connection is new, or gone. What waited was for the former one.
func (o *outbox) setUp(up bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.up, o.lost = up, false
	for _, l := range o.queue {
		o.oweLocked(l)
	}
	o.queue, o.bytes = nil, 0
	o.settleLocked()
}

// settleOwed queues the decisions that the hub has not heard of.
func (o *outbox) settleOwed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	owed := o.owed
	o.owed = nil
	for _, l := range owed {
		o.addLocked(l)
	}
}

// settleLocked closes idle when there is nothing left to write.
func (o *outbox) settleLocked() {
	if len(o.queue) > 0 || o.busy {
		return
	}
	select {
	case <-o.idle:
	default:
		close(o.idle)
	}
}

// run writes letters until ctx ends.
func (o *outbox) run(ctx context.Context) {
	for {
		l, ok := o.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-o.wake:
			}
			continue
		}
		writeCtx, cancel := context.WithTimeout(ctx, sendTimeout)
		err := l.send(writeCtx)
		cancel()
		o.wrote(l, err)
		if ctx.Err() != nil {
			return
		}
	}
}

func (o *outbox) next() (letter, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return letter{}, false
	}
	l := o.queue[0]
	o.queue, o.bytes, o.busy = o.queue[1:], o.bytes-l.size, true
	return l, true
}

func (o *outbox) wrote(l letter, err error) {
	o.mu.Lock()
	o.busy = false
	if err != nil {
		o.oweLocked(l)
	}
	again := o.lost && len(o.queue) == 0
	if again {
		o.lost = false
	}
	o.settleLocked()
	o.mu.Unlock()
	if err != nil && !errors.Is(err, context.Canceled) {
		o.log.Info("hub not told", "what", l.what, "err", err)
	}
	if again {
		o.overflow()
	}
}

// flush waits until everything is written, at most for the given time.
func (o *outbox) flush(most time.Duration) {
	o.mu.Lock()
	idle := o.idle
	o.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}
