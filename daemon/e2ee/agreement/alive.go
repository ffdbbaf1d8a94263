package agreement

// lease bounds the age of S's newest alive by this end's clock and S's differences alone. The first alive{T} cannot
// have been made before this end revealed (T hangs on its nonce), so whoever holds alives back and hands them out
// slowly only makes them look as old as they are.
type lease struct {
	have   bool
	anchor Millis // when this end revealed
	first  uint64 // S's time in the first alive
	newest uint64
	n      uint64 // highest n of the session
}

func (l *lease) age(now Millis) Millis { return now - l.anchor - Millis(l.newest-l.first) }

func (l *lease) fresh(now Millis) bool { return l.have && l.age(now) <= aliveLimit }

// until is when it is too old.
func (l *lease) until() Millis { return l.anchor + Millis(l.newest-l.first) + aliveLimit + 1 }

func (l *lease) begin(revealed Millis, a aliveBody, now Millis) {
	l.have, l.anchor, l.first, l.newest, l.n = true, revealed, a.time, a.time, a.n
	l.settle(now)
}

func (l *lease) renew(a aliveBody, now Millis) {
	l.newest, l.n = a.time, a.n
	l.settle(now)
}

// settle moves the anchor when S's clock ran ahead of this one, as after a suspended laptop: nothing is from the future.
func (l *lease) settle(now Millis) {
	if a := l.age(now); a < 0 {
		l.anchor += a
	}
}

// onAlive renews the lease; the first one of a completed round puts its T in force.
func (e *Endpoint) onAlive(m message) verdict {
	a, err := parseAlive(m.body)
	if err != nil || a.n > maxSafeTime || a.time > maxSafeTime || e.seq != nil {
		return done
	}
	if r := e.round; r != nil && m.e == r.e {
		if !r.done {
			return hold
		}
		s := r.members[r.from]
		if m.from != r.from || s.keys.verifier.Verify(m.sig, m.unsigned) != nil || a.n <= e.lease.n {
			return done
		}
		if a.t != r.t {
			e.fail(ReasonTranscript, m.from)
			return done
		}
		e.lease.begin(r.shown, a, e.now)
		e.enterEpoch()
		return done
	}
	ours, v := e.ofEpoch(m, a.t)
	if !ours {
		return v
	}
	if m.from == e.sequencer && a.n > e.lease.n && a.time >= e.lease.newest {
		e.lease.renew(a, e.now)
	}
	return done
}
