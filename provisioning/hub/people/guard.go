package people

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Our tuning of how fast somebody may guess. A code of six digits with three valid steps is hit with a chance of
// 3·10⁻⁶ by each try: strangers get at most 20 tries an hour for each person, whatever number of addresses they have.
const (
	freeTries      = 5
	firstWait      = 10 * time.Second
	longestWait    = 15 * time.Minute
	forgetTries    = time.Hour
	strangersBurst = 20
	strangersEvery = 3 * time.Minute
	maxTries       = 10_000 // entries of about 100 bytes
	roomBurst      = 60     // tries of PINs for one room
	roomEvery      = 10 * time.Second
	browserBurst   = 30 // attempts of one known browser, whatever else comes from its address
	browserEvery   = 2 * time.Second
)

// guard slows guessing down: for each credential and place (a known browser, or else an address) by doubling waits,
// and for each credential over all places of strangers by a budget. Nothing is locked for good, and what strangers
// spend does not touch known browsers (the device cookies of OWASP's Authentication Cheat Sheet).
type guard struct {
	mu    sync.Mutex
	tries map[Hash]*tries // by subject and place; guarded by mu

	strangers *budget
}

// budget bounds how often something happens for each name. Names share by hash a fixed number of places, known to us
// or not: memory is bounded, nothing can be pushed out, and the answer tells nothing about a name.
type budget [4096]*rate.Limiter

func newBudget(every time.Duration, burst int) *budget {
	b := new(budget)
	for i := range b {
		b[i] = rate.NewLimiter(rate.Every(every), burst)
	}
	return b
}

func (b *budget) allow(name string, t time.Time) bool {
	h := HashOf(name)
	return b[(int(h[0])<<8|int(h[1]))%len(b)].AllowN(t, 1)
}

type tries struct {
	failed int
	until  time.Time
	last   time.Time
}

func newGuard() *guard {
	return &guard{tries: make(map[Hash]*tries), strangers: newBudget(strangersEvery, strangersBurst)}
}

// triesOf is a key of one size, whatever a stranger writes as a subject.
func triesOf(subject, place string) Hash { return HashOf(place + "\x00" + subject) }

// take counts a try as failed, before it is judged: many at once cannot all be the first. It returns how long to wait
// when the try is refused, and then counts nothing.
func (g *guard) take(subject, place string, known bool, t time.Time) (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := triesOf(subject, place)
	e := g.tries[key]
	if e == nil || t.Sub(e.last) > forgetTries {
		if e == nil && len(g.tries) >= maxTries {
			g.forgetLocked(t)
		}
		e = &tries{}
		g.tries[key] = e
	}
	if wait := e.until.Sub(t); wait > 0 {
		return wait, false
	}
	if !known {
		if !g.strangers.allow(subject, t) {
			return strangersEvery, false
		}
	}
	e.failed++
	e.last = t
	if over := e.failed - freeTries; over >= 0 {
		e.until = t.Add(min(firstWait<<min(over, 10), longestWait))
	}
	return 0, true
}

// succeeded forgets the failures of one place.
func (g *guard) succeeded(subject, place string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.tries, triesOf(subject, place))
}

// forgetLocked makes room. Dropping entries that still count costs little: the strangers' budget stands behind them.
func (g *guard) forgetLocked(t time.Time) {
	for key, e := range g.tries {
		if t.Sub(e.last) > forgetTries {
			delete(g.tries, key)
		}
	}
	if len(g.tries) >= maxTries {
		clear(g.tries)
	}
}
