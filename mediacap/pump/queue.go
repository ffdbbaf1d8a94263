package pump

import (
	"sync"

	"github.com/alcove-room/alcove/mediacap"
)

// What waits for a slow socket at most. Sound is small and worth waiting for; pictures are not.
const (
	audioSlots = 50 // 1 s
	videoSlots = 8  // half a second at 15 frames per second
)

// queue holds units between the encoders and the socket. Sound goes first. When it is full of sound the
// oldest is dropped; when it is full of pictures, pictures are dropped up to the next key frame, which is
// asked for and then takes the place of all that wait. Buffers are reused.
type queue struct {
	wantKey func() // asks the video encoder for a key frame; called with mu held, so it must not wait

	mu       sync.Mutex
	changed  sync.Cond
	audio    ring
	video    ring
	level    mediacap.Level
	hasLevel bool
	dropping bool // pictures, up to the next key frame
	dropped  Dropped
	closed   bool
}

// Dropped counts units that a slow socket cost.
type Dropped struct{ Audio, Video uint64 }

func newQueue(wantKey func()) *queue {
	q := &queue{wantKey: wantKey, audio: newRing(audioSlots), video: newRing(videoSlots)}
	q.changed.L = &q.mu
	return q
}

// put copies u into the queue. It never waits.
func (q *queue) put(u *mediacap.Unit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if u.Codec.Medium() == mediacap.Audio {
		if q.audio.full() {
			q.audio.drop()
			q.dropped.Audio++
		}
		q.audio.push(u)
	} else if !q.putVideoLocked(u) {
		q.dropped.Video++
		return
	}
	q.changed.Signal()
}

func (q *queue) putVideoLocked(u *mediacap.Unit) bool {
	if u.KeyFrame && (q.dropping || q.video.full()) {
		q.dropped.Video += uint64(q.video.n)
		q.video.clear()
		q.dropping = false
	}
	if !q.dropping && q.video.full() {
		q.dropping = true
		q.wantKey()
	}
	if q.dropping {
		return false
	}
	q.video.push(u)
	return true
}

// putLevel replaces a level that still waits.
func (q *queue) putLevel(l mediacap.Level) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.level, q.hasLevel = l, true
	q.changed.Signal()
}

// take waits for the next thing to send: it fills u and returns a nil level, or returns a level. It
// returns false after close. u's buffer goes into the queue, so u is the caller's until the next take.
func (q *queue) take(u *mediacap.Unit, l *mediacap.Level) (isLevel, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch {
		case q.closed:
			return false, false
		case q.audio.n > 0:
			q.audio.pop(u)
			return false, true
		case q.hasLevel:
			*l, q.hasLevel = q.level, false
			return true, true
		case q.video.n > 0:
			q.video.pop(u)
			return false, true
		}
		q.changed.Wait()
	}
}

// close ends take; what waits is forgotten.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

func (q *queue) losses() Dropped {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// ring is a first-in, first-out buffer of units that own their payloads.
type ring struct {
	slots []mediacap.Unit
	first int
	n     int
}

func newRing(size int) ring { return ring{slots: make([]mediacap.Unit, size)} }

func (r *ring) full() bool { return r.n == len(r.slots) }

func (r *ring) push(u *mediacap.Unit) {
	s := &r.slots[(r.first+r.n)%len(r.slots)]
	payload := append(s.Payload[:0], u.Payload...)
	*s = *u
	s.Payload = payload
	r.n++
}

// pop swaps the oldest unit with u.
func (r *ring) pop(u *mediacap.Unit) {
	s := &r.slots[r.first]
	*u, *s = *s, *u
	r.drop()
}

func (r *ring) drop() {
	r.first = (r.first + 1) % len(r.slots)
	r.n--
}

func (r *ring) clear() { r.n = 0 }
