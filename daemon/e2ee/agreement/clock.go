package agreement

// passTime does what is due.
func (e *Endpoint) passTime() {
	if e.dead {
		return
	}
	if e.seq != nil {
		e.sequence()
	} else if e.round != nil && !e.isOff && e.now >= e.round.started+roundLifetime {
		e.abandonRound()
	}
	if e.dead || e.cur == nil || e.suspended {
		return
	}
	if e.keys.staged == nil && e.now >= e.keys.made+rotateEvery {
		e.newGeneration()
	}
}

// shiftTimers takes the time without a relay connection out of what is waited for. The lease is not shifted: not
// hearing S is what it is about.
func (e *Endpoint) shiftTimers(by Millis) {
	if e.round != nil {
		e.round.started += by
		e.round.frozen += by
	}
	if e.cur != nil {
		e.cur.since += by
	}
	if e.seq != nil {
		for d := range e.seq.gone {
			e.seq.gone[d] += by
		}
	}
}

// NextDeadline is when Tick has something to do, false if nothing is waiting for time.
func (e *Endpoint) NextDeadline() (at Millis, ok bool) {
	if e.dead {
		return 0, false
	}
	next := func(t Millis) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if e.keys.staged != nil {
		next(e.keys.staged.at + switchLimit)
	}
	for _, p := range e.keys.peers {
		for _, r := range p.live {
			if r.ending {
				next(r.until)
			}
		}
	}
	if e.cur != nil && !e.suspended {
		next(e.keys.made + rotateEvery)
		if e.send.Allowed && e.seq == nil {
			next(e.lease.until())
		}
	}
	if e.seq != nil {
		e.sequencerDeadlines(next)
	} else if e.round != nil && !e.isOff {
		next(e.round.started + roundLifetime)
	}
	return at, ok
}

func (e *Endpoint) sequencerDeadlines(next func(Millis)) {
	s := e.seq
	if e.cur != nil && !e.suspended {
		next(s.aliveAt + aliveEvery)
	}
	if e.isOff {
		return
	}
	if e.round != nil {
		next(e.round.deadline())
	} else if e.cur != nil && !e.suspended && !e.allKeyed() && e.now < e.cur.since+silence {
		next(e.cur.since + silence)
	}
	for _, since := range s.gone {
		next(since + memberGone)
	}
	if e.cfg.Guests != GuestAnnounce {
		return
	}
	for _, r := range s.wanted {
		if r.admit != nil && !r.agreed && e.now < r.since+announceWait {
			next(r.since + announceWait)
		}
	}
}
