package agreement

// invitation is a therapist's admit that is repeated for every new T until its round has come.
type invitation struct {
	role Role
	raw  []byte
}

const (
	maxInvited = 16
	maxWord    = MaxMembers * MaxMembers
)

// Admit lets d in: at S by touch in the room, at a therapist's end by its signature.
func (e *Endpoint) Admit(now Millis, d D, role Role) (out []Effect, err error) {
	if e.seq != nil {
		return e.admitHere(now, d, role, true)
	}
	out = e.run(now, func() {
		if !e.isTherapist() || e.removed[d] || !role.valid() || role == RoleDevice || len(e.invited) >= maxInvited {
			err = ErrOutOfPlace
			return
		}
		if !e.isMember(d) {
			e.invite(d, role)
		}
	})
	return out, err
}

func (e *Endpoint) isTherapist() bool { return e.cfg.Role == RoleTherapist && e.cur != nil }

func (e *Endpoint) invite(d D, role Role) {
	s, ok := e.sendStatement(statement{label: labelAdmit, t: e.cur.t, d: d, role: role})
	if ok {
		e.invited[d] = &invitation{role: role, raw: s.raw}
	}
}

// inviteAgain signs what still waits for the new T.
func (e *Endpoint) inviteAgain() {
	for _, d := range sortedKeys(e.invited) {
		if e.dead {
			return
		}
		if e.isMember(d) {
			delete(e.invited, d)
		} else {
			e.invite(d, e.invited[d].role)
		}
	}
}

// Remove takes d out, or withdraws its admission: at S, or at a therapist's end.
func (e *Endpoint) Remove(now Millis, d D) (out []Effect, err error) {
	out = e.run(now, func() {
		switch {
		case d == e.self || (e.seq == nil && !e.isTherapist()) || d == e.sequencer:
			err = ErrOutOfPlace
		case e.seq != nil:
			e.takeOut(d, ReasonRemoved)
		case e.isMember(d):
			e.sendRemove(d, e.cur.members[d].doc.Role)
			e.excluded(d)
		case e.invited[d] != nil:
			e.sendRemove(d, e.invited[d].role)
			delete(e.invited, d)
			e.excluded(d)
		default:
			err = ErrOutOfPlace
		}
	})
	return out, err
}

func (e *Endpoint) sendRemove(d D, role Role) {
	if s, ok := e.sendStatement(statement{label: labelRemove, t: e.chain, d: d, role: role}); ok && len(e.sentWord) < maxWord {
		e.sentWord = append(e.sentWord, s.raw)
	}
}

// excluded is a member's reaction to a valid remove: nothing to d, nothing from d, at once.
func (e *Endpoint) excluded(d D) {
	e.remember(d)
	if e.isMember(d) {
		e.suspend()
		e.abandonRound()
	} else if e.round != nil && indexOf(e.round.prop.list, d) >= 0 {
		e.abandonRound()
	}
	e.changed = true
}

// Leave takes this end out. At S it is End.
func (e *Endpoint) Leave(now Millis) []Effect {
	if e.seq != nil {
		return e.End(now)
	}
	return e.run(now, func() {
		if e.cur != nil || e.round != nil {
			e.sendStatement(statement{label: labelRemove, t: e.chain, d: e.self, role: e.cfg.Role})
		}
		e.finish(ReasonLeft)
	})
}

// onStatement judges the signature and the place of a statement, then does what it says.
func (e *Endpoint) onStatement(s statement) verdict {
	m := e.known(s.signer)
	if m == nil {
		if e.sequencer == (D{}) || (e.round != nil && indexOf(e.round.prop.list, s.signer) >= 0) {
			return hold
		}
		return done
	}
	if m.keys.verifier.Verify(s.sig, s.body) != nil {
		return done
	}
	if s.label == labelRemove && s.signer == s.d {
		e.onRemove(s, m)
		return done
	}
	if !e.isMember(s.signer) || (s.label != labelAgree && s.t != e.cur.t && (s.label != labelRemove || s.t != e.cur.prev)) {
		if e.round != nil {
			return hold // may be of the T that is about to come into force
		}
		return done
	}
	switch s.label {
	case labelRemove:
		e.onRemove(s, m)
	case labelAdmit:
		e.onAdmit(s, m)
	case labelAgree:
		e.onAgree(s, m)
	case labelCheck:
		running := e.round != nil && e.round.prop.flags&flagCheck != 0
		if e.seq != nil && m.doc.Role == RoleTherapist && !running {
			e.seq.check = true
		}
	case labelCompared:
		e.onCompared(s, m)
	}
	return done
}

func (e *Endpoint) onRemove(s statement, signer *member) {
	byS := s.signer == e.sequencer
	if s.d == e.sequencer || (s.local && !byS) || e.removed[s.d] {
		return
	}
	if target := e.known(s.d); target != nil && target.doc.Role != s.role {
		return
	}
	if !byS && s.signer != s.d && signer.doc.Role != RoleTherapist {
		return
	}
	switch {
	case s.d == e.self:
		e.finish(ReasonRemoved)
	case e.seq != nil && s.signer == s.d:
		e.takeOut(s.d, ReasonLeft)
	case e.seq != nil:
		e.takeOut(s.d, ReasonRemoved)
	default:
		e.excluded(s.d)
	}
}

// onAdmit: S queues, a patient is asked about a guest.
func (e *Endpoint) onAdmit(s statement, signer *member) {
	if s.local || signer.doc.Role != RoleTherapist || e.removed[s.d] || e.isMember(s.d) {
		return
	}
	ref := s.hash()
	if e.seq != nil {
		e.want(s.d, &request{role: s.role, admit: &s, refs: map[[32]byte]bool{ref: true}})
		if r := e.seq.wanted[s.d]; r != nil && !r.local && !r.asked && s.role == RoleGuest && e.hasPatient() {
			r.asked = true
			e.emit(AskGuest{D: s.d})
		}
		return
	}
	if e.cfg.Role != RolePatient || s.role != RoleGuest || len(e.asked) >= maxInvited {
		return
	}
	_, already := e.asked[s.d]
	e.asked[s.d] = s
	if yes, answered := e.guests[s.d]; answered {
		e.answerGuest(s, yes) // the same guest, admitted again for a new T
	} else if !already {
		e.emit(AskGuest{D: s.d})
	}
}

// AgreeGuest answers [AskGuest]: at a patient's end by its signature, at S by touch.
func (e *Endpoint) AgreeGuest(now Millis, d D, yes bool) (out []Effect, err error) {
	out = e.run(now, func() {
		if e.seq != nil {
			if e.seq.wanted[d] == nil {
				err = ErrOutOfPlace
			} else {
				e.answered(d, yes)
			}
			return
		}
		s, ok := e.asked[d]
		if !ok || e.cur == nil {
			err = ErrOutOfPlace
			return
		}
		e.guests[d] = yes
		e.answerGuest(s, yes)
	})
	return out, err
}

func (e *Endpoint) answerGuest(admit statement, yes bool) {
	st, ok := e.sendStatement(statement{label: labelAgree, ref: admit.hash(), answer: yes})
	if ok && len(e.sentWord) < maxWord {
		e.sentWord = append(e.sentWord, st.raw)
	}
}

func (e *Endpoint) answered(d D, yes bool) {
	if !yes {
		e.takeOut(d, ReasonDeclined)
		return
	}
	e.seq.wanted[d].agreed = true
}

func (e *Endpoint) onAgree(s statement, signer *member) {
	if e.seq == nil || signer.doc.Role != RolePatient {
		return
	}
	for _, d := range sortedKeys(e.seq.wanted) {
		if e.seq.wanted[d].refs[s.ref] {
			e.answered(d, s.answer)
			return
		}
	}
}

// Check asks for a fresh round to compare: at S, or at a therapist's end.
func (e *Endpoint) Check(now Millis) (out []Effect, err error) {
	out = e.run(now, func() {
		switch {
		case e.cur == nil:
			err = ErrOutOfPlace
		case e.seq != nil:
			e.seq.check = true
		case e.isTherapist():
			if s, ok := e.sendStatement(statement{label: labelCheck, t: e.cur.t}); ok && len(e.sentWord) < maxWord {
				e.sentWord = append(e.sentWord, s.raw)
			}
		default:
			err = ErrOutOfPlace
		}
	})
	return out, err
}

// MarkEqual says that people compared the code of t and that it was the same: everybody in t's list is in V now. A
// therapist's end tells the others.
func (e *Endpoint) MarkEqual(now Millis, t T) (out []Effect, err error) {
	out = e.run(now, func() {
		if e.cur == nil || e.cur.t != t {
			err = ErrOutOfPlace
			return
		}
		for _, d := range e.cur.list {
			if d != e.self {
				e.compare(d, D{})
			}
		}
		e.takeWord()
		if e.isTherapist() {
			e.tellCompared()
		}
	})
	return out, err
}

func (e *Endpoint) tellCompared() {
	for _, d := range e.cur.list {
		if d == e.self || len(e.sentWord) >= maxWord {
			continue
		}
		s, ok := e.sendStatement(statement{label: labelCompared, t: e.cur.t, d: d})
		if !ok {
			return
		}
		e.sentWord = append(e.sentWord, s.raw)
	}
}

// compare puts d into V. This end's own comparison is worth more than somebody's word.
func (e *Endpoint) compare(d, by D) {
	if old, already := e.v[d]; already && (old == (D{}) || by != (D{})) {
		return
	}
	e.v[d] = by
	e.emit(Compared{D: d, By: by})
}

func (e *Endpoint) onCompared(s statement, signer *member) {
	if signer.doc.Role != RoleTherapist || s.d == e.self || s.d == s.signer || !e.isMember(s.d) || len(e.word) >= maxWord {
		return
	}
	e.word = append(e.word, s)
	e.takeWord()
}

// takeWord takes over what therapists in V have said within this T.
func (e *Endpoint) takeWord() {
	for again := true; again; {
		again = false
		for _, s := range e.word {
			_, trusted := e.v[s.signer]
			_, have := e.v[s.d]
			if trusted && !have {
				e.compare(s.d, s.signer)
				again = true
			}
		}
	}
}

// MarkDifferent says that people compared and it was not the same: the session fails on all sides that can be told.
func (e *Endpoint) MarkDifferent(now Millis) []Effect {
	return e.run(now, func() { e.fail(ReasonDifferent, D{}) })
}
