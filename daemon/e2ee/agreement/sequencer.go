package agreement

import (
	"maps"
	"slices"
)

// sequencing is what only S keeps.
type sequencing struct {
	wanted     map[D]*request
	order      []D // of wanted, first come first served
	keyed      map[D]bool
	gone       map[D]Millis
	challenges map[D]issuedChallenge
	check      bool // a fresh round is wanted for a comparison

	aliveN   uint64
	aliveAt  Millis
	aliveRaw []byte
}

// request is somebody who may come in with the next round.
type request struct {
	role   Role
	local  bool       // by touch in the room
	admit  *statement // a therapist's signature; nil when S signs itself
	since  Millis
	asked  bool // the person in the room has been asked
	agreed bool
	refs   map[[32]byte]bool // hashes of the admits that a patient may have agreed to
}

type issuedChallenge struct {
	dch    [32]byte
	expiry Millis
}

func newSequencing() *sequencing {
	return &sequencing{
		wanted: map[D]*request{}, keyed: map[D]bool{}, gone: map[D]Millis{}, challenges: map[D]issuedChallenge{},
	}
}

func (s *sequencing) forget(d D) {
	delete(s.wanted, d)
	delete(s.gone, d)
	delete(s.challenges, d)
	s.order = slices.DeleteFunc(s.order, func(o D) bool { return o == d })
}

func (s *sequencing) useChallenge(d D, now Millis) *[32]byte {
	c, ok := s.challenges[d]
	if !ok || now > c.expiry {
		return nil
	}
	delete(s.challenges, d)
	return &c.dch
}

// want queues d, or adds to what is known of its request.
func (e *Endpoint) want(d D, r *request) bool {
	s := e.seq
	if d == e.self || e.removed[d] || r.role == RoleDevice || !r.role.valid() {
		return false
	}
	if e.cur != nil && e.cur.members[d] != nil {
		return true
	}
	old := s.wanted[d]
	if old == nil {
		if len(s.wanted) >= maxPending {
			return false
		}
		s.order = append(s.order, d)
		r.since = e.now
		s.wanted[d] = r
		return true
	}
	if r.admit == nil {
		old.role, old.local, old.admit = r.role, r.local || old.local, nil
	} else if old.admit != nil {
		old.role, old.admit = r.role, r.admit
		maps.Copy(old.refs, r.refs)
	}
	return true
}

// admitHere is S's own word: with a touch, or for a signed-in therapist.
func (e *Endpoint) admitHere(now Millis, d D, role Role, local bool) (out []Effect, err error) {
	out = e.run(now, func() {
		if e.seq == nil || !e.want(d, &request{role: role, local: local}) {
			err = ErrOutOfPlace
		}
	})
	return out, err
}

// AdmitTherapist (S only) lets a signed-in therapist in without a touch, into a list of exactly two.
func (e *Endpoint) AdmitTherapist(now Millis, d D) ([]Effect, error) {
	return e.admitHere(now, d, RoleTherapist, false)
}

// Challenge (S only) sends d a fresh challenge for its proof, valid for 120 s; it replaces the one before.
func (e *Endpoint) Challenge(now Millis, d D) (out []Effect, err error) {
	out = e.run(now, func() {
		if e.seq == nil || (len(e.seq.challenges) >= maxPending && e.seq.challenges[d] == issuedChallenge{}) {
			err = ErrOutOfPlace
			return
		}
		c := issuedChallenge{dch: e.random32(), expiry: e.now + challengeLife}
		if e.dead {
			return
		}
		e.seq.challenges[d] = c
		e.sendMessage(labelChallenge, 0, challengeBody{d: d, dch: c.dch, expiry: uint64(c.expiry)}.encode())
	})
	return out, err
}

// Gone is the hub's hint that d's relay connection was lost. Its membership is kept for 60 s.
func (e *Endpoint) Gone(now Millis, d D) []Effect {
	return e.run(now, func() {
		if e.seq != nil && (e.isMember(d) || e.seq.wanted[d] != nil) {
			if _, already := e.seq.gone[d]; !already {
				e.seq.gone[d] = e.now
			}
		}
	})
}

// Back is the hub's hint that d is connected again.
func (e *Endpoint) Back(now Millis, d D) []Effect {
	return e.run(now, func() {
		if e.seq == nil {
			return
		}
		if since, was := e.seq.gone[d]; was && e.cur != nil {
			// The time it was away does not count as its silence.
			e.cur.since = max(e.cur.since, min(e.now, e.cur.since+e.now-since))
		}
		delete(e.seq.gone, d)
	})
}

// Left is the hub's hint that d left for good: closing is believed to anybody.
func (e *Endpoint) Left(now Millis, d D) []Effect {
	return e.run(now, func() {
		if e.seq != nil {
			e.takeOut(d, ReasonLeft)
		}
	})
}

func (e *Endpoint) isMember(d D) bool { return e.cur != nil && e.cur.members[d] != nil }

// takeOut removes d from the session, the running round and what waits (S).
func (e *Endpoint) takeOut(d D, why Reason) {
	if d == e.self || e.dead {
		return
	}
	member := e.isMember(d)
	inRound := e.round != nil && indexOf(e.round.prop.list, d) >= 0
	if !member && !inRound && e.seq.wanted[d] == nil {
		return
	}
	e.seq.forget(d)
	if e.removed[d] {
		return
	}
	e.emit(Dropped{D: d, Reason: why})
	if why != ReasonSilent || member {
		e.remember(d)
	}
	if member {
		role := e.cur.members[d].doc.Role
		e.sendStatement(statement{label: labelRemove, t: e.cur.t, d: d, role: role, local: why == ReasonRemoved})
		e.suspend()
	}
	if member || inRound {
		e.abandonRound()
	}
	e.changed = true
}

func (e *Endpoint) remember(d D) {
	if len(e.removed) < maxRemoved {
		e.removed[d] = true
	} else if !e.removed[d] {
		e.fail(ReasonInternal, D{}) // rather than let a removed one come back
	}
}

// sequence is S's part of passing time: who is silent, who is gone, alive, the next round.
func (e *Endpoint) sequence() {
	s := e.seq
	if !e.isOff {
		e.dropSilent()
		for _, d := range sortedKeys(s.gone) {
			if e.now-s.gone[d] >= memberGone {
				delete(s.gone, d)
				e.takeOut(d, ReasonGone)
			}
		}
	}
	if e.dead {
		return
	}
	e.startRound()
	if !e.dead && e.cur != nil && !e.suspended && e.now >= s.aliveAt+aliveEvery {
		e.sendAlive()
	}
}

// roundDeadline is when the step of the running round has lasted too long.
func (r *round) deadline() Millis {
	if r.k == nil {
		return r.started + silence
	}
	return r.frozen + silence
}

func (e *Endpoint) dropSilent() {
	var silent []D
	if r := e.round; r != nil && e.now >= r.deadline() {
		for _, d := range r.prop.list {
			_, committed := r.cs[d]
			_, revealed := r.reveals[d]
			if !committed || (r.k != nil && !revealed) {
				silent = append(silent, d)
			}
		}
		e.abandonRound()
	} else if r == nil && e.cur != nil && !e.suspended && e.now >= e.cur.since+silence {
		for _, d := range e.cur.list {
			if _, gone := e.seq.gone[d]; !gone && d != e.self && !e.seq.keyed[d] {
				silent = append(silent, d)
			}
		}
	}
	for _, d := range silent {
		e.takeOut(d, ReasonSilent)
	}
}

func (e *Endpoint) allKeyed() bool {
	for _, d := range e.cur.list {
		if d != e.self && !e.seq.keyed[d] {
			return false
		}
	}
	return true
}

// startRound proposes when something is wanted and nothing runs.
func (e *Endpoint) startRound() {
	s := e.seq
	if e.round != nil || e.isOff || e.dead {
		return
	}
	if e.cur != nil && !e.suspended && !e.allKeyed() {
		return
	}
	list := []D{e.self}
	if e.cur != nil {
		for _, d := range e.cur.list {
			if d != e.self && !e.removed[d] {
				list = append(list, d)
			}
		}
	}
	list, admits := e.addJoiners(list)
	if len(list) < 2 {
		e.aloneNow()
		return
	}
	if len(admits) == 0 && !e.suspended && !s.check || e.dead {
		return
	}
	slices.SortFunc(list, compareD)
	slices.SortFunc(admits, func(a, b statement) int { return compareD(a.d, b.d) })
	prop := proposal{prev: e.chain, list: list, admits: admits}
	if s.check {
		prop.flags |= flagCheck
	}
	raw := e.sendMessage(labelPropose, e.lastE+1, prop.encode())
	m, err := parseMessage(raw)
	if err != nil {
		return // only a signer that failed, and that has ended the session
	}
	s.check = false
	e.takeProposal(m, prop)
}

// addJoiners adds those who may come in now, with their admits for the next round's prevT.
func (e *Endpoint) addJoiners(list []D) ([]D, []statement) {
	var admits []statement
	room := MaxMembers
	if e.chain == firstTranscript(e.cfg.Clinic, e.cfg.SID) {
		room = 2
	}
	for _, d := range e.seq.order {
		r := e.seq.wanted[d]
		if len(list) >= room || !e.mayJoin(r, list) {
			continue
		}
		a, ok := e.admitFor(d, r)
		if !ok {
			return list, nil
		}
		list, admits = append(list, d), append(admits, a)
		if !r.local && r.admit == nil {
			room = 2 // a therapist without a touch comes into a list of two
		}
	}
	return list, admits
}

func (e *Endpoint) mayJoin(r *request, list []D) bool {
	if r.local {
		return true
	}
	if r.admit == nil {
		return len(list) == 1
	}
	if !e.isMember(r.admit.signer) || !slices.Contains(list, r.admit.signer) || r.admit.t != e.chain {
		return false
	}
	if r.role != RoleGuest || !e.hasPatient() || r.agreed {
		return true
	}
	return e.cfg.Guests == GuestAnnounce && e.now >= r.since+announceWait
}

// hasPatient counts a patient who comes in with the same round: nobody slips in beside them.
func (e *Endpoint) hasPatient() bool {
	for _, r := range e.seq.wanted {
		if r.role == RolePatient {
			return true
		}
	}
	if e.cur == nil {
		return false
	}
	return slices.ContainsFunc(e.cur.list, func(d D) bool { return e.cur.members[d].doc.Role == RolePatient })
}

func (e *Endpoint) admitFor(d D, r *request) (statement, bool) {
	if r.admit != nil && !r.local {
		return *r.admit, true
	}
	return e.signStatement(statement{label: labelAdmit, t: e.chain, d: d, role: r.role, local: r.local})
}

// aloneNow: everybody else has left. The chain goes on from the last T.
func (e *Endpoint) aloneNow() {
	if e.cur == nil {
		return
	}
	e.cur, e.suspended, e.seq.aliveRaw = nil, false, nil
	e.seq.check = false
	clear(e.keys.peers)
	clear(e.keys.confirmed)
	e.setSending(Sending{Reason: ReasonNoEpoch})
}

// sequenceEpoch is S's first word under a new T: the alive that puts it in force everywhere.
func (e *Endpoint) sequenceEpoch() {
	clear(e.seq.keyed)
	for _, d := range e.cur.list {
		gone, was := e.seq.gone[d]
		e.seq.forget(d)
		if was {
			e.seq.gone[d] = gone
		}
	}
	e.sendAlive()
}

func (e *Endpoint) sendAlive() {
	s := e.seq
	s.aliveN++
	s.aliveAt = e.now
	s.aliveRaw = e.sendMessage(labelAlive, e.cur.e, aliveBody{t: e.cur.t, n: s.aliveN, time: uint64(e.now)}.encode())
}

// End (S only) ends the session for everybody.
func (e *Endpoint) End(now Millis) []Effect {
	return e.run(now, func() {
		if e.seq != nil {
			e.sendMessage(labelEnd, e.epochNumber(), []byte{byte(ReasonEnded)})
			e.finish(ReasonEnded)
		}
	})
}
