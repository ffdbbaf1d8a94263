package agreement

import "slices"

// round is a commit/reveal round that is under way.
type round struct {
	e       uint32
	from    D // S
	raw     message
	prop    proposal
	p       [32]byte
	started Millis
	nonce   [32]byte
	commits map[D]message
	cs      map[D][32]byte
	k       *[32]byte // set when all commits are there, and then frozen
	frozen  Millis
	shown   Millis // when the own reveal was sent
	reveals map[D]reveal
	revRaw  map[D][]byte
	members map[D]*member // documents revealed in this round, and the own
	proofs  map[D]Proof
	t       T
	done    bool     // all checks passed, t is set
	raws    [][]byte // own messages
}

// onPropose takes a new round from S. A member knows S and judges at once; a newcomer finds out with the reveals.
func (e *Endpoint) onPropose(m message) verdict {
	if e.seq != nil {
		return done
	}
	if e.sequencer == (D{}) {
		e.proposedToNewcomer(m)
		return done
	}
	if m.from != e.sequencer || m.e <= e.lastE || !e.signedBy(m.from, m.sig, m.unsigned) {
		return done
	}
	prop, err := parseProposal(m.body, e.cfg.SID)
	if err != nil || indexOf(prop.list, m.from) < 0 {
		e.fail(ReasonProposal, m.from)
		return done
	}
	if indexOf(prop.list, e.self) < 0 {
		e.finish(ReasonRemoved)
		return done
	}
	if prop.prev != e.chain {
		if e.round != nil {
			return hold // S may have reached a T that this end is about to reach
		}
		e.fail(ReasonTranscript, m.from)
		return done
	}
	if slices.ContainsFunc(prop.list, func(d D) bool { return e.removed[d] }) {
		return done // S has not heard yet; this end does not seal to somebody who was removed
	}
	if !e.admitsHold(prop, m.from) {
		e.fail(ReasonAdmit, m.from)
		return done
	}
	e.abandonRound()
	if e.dead {
		return done
	}
	if slices.ContainsFunc(e.cur.list, func(d D) bool { return indexOf(prop.list, d) < 0 }) {
		e.suspend()
	}
	e.takeProposal(m, prop)
	return done
}

// proposedToNewcomer judges what can be judged without knowing S: the form, and that it is meant for this end.
func (e *Endpoint) proposedToNewcomer(m message) {
	prop, err := parseProposal(m.body, e.cfg.SID)
	if err != nil || indexOf(prop.list, e.self) < 0 || indexOf(prop.list, m.from) < 0 {
		return
	}
	if a := prop.admitOf(e.self); a == nil || a.role != e.cfg.Role {
		return
	}
	if prop.prev == e.chain && len(prop.list) != 2 {
		return
	}
	if r := e.round; r != nil && r.from == m.from && m.e <= r.e {
		return
	}
	e.abandonRound()
	if !e.dead {
		e.takeProposal(m, prop)
	}
}

func (e *Endpoint) takeProposal(m message, prop proposal) {
	e.round = &round{
		e: m.e, from: m.from, raw: m, prop: prop, p: proposeHash(m.unsigned), started: e.now, nonce: e.random32(),
		commits: map[D]message{}, cs: map[D][32]byte{}, reveals: map[D]reveal{}, revRaw: map[D][]byte{},
		members: map[D]*member{}, proofs: map[D]Proof{},
	}
	e.lastE = max(e.lastE, m.e)
	e.changed = true
	if e.dead {
		return
	}
	r := e.round
	if e.seq != nil {
		r.raws = append(r.raws, m.raw)
	}
	c := commit{p: r.p, c: commitHash(r.p, e.self, r.nonce)}
	raw := e.sendMessage(labelCommit, r.e, c.encode())
	if raw == nil {
		return
	}
	r.raws = append(r.raws, raw)
	r.cs[e.self] = c.c
	e.freeze()
}

// admitsHold checks that everybody who is new to this end has an admit that counts. Every document that may sign
// one is known to a member; a newcomer calls it when all are revealed.
func (e *Endpoint) admitsHold(p proposal, sequencer D) bool {
	first := p.prev == firstTranscript(e.cfg.Clinic, e.cfg.SID)
	if first && len(p.list) != 2 {
		return false
	}
	for _, d := range p.list {
		old := e.cur != nil && e.cur.members[d] != nil
		if d == sequencer || old || e.cur == nil && e.seq == nil {
			continue
		}
		if p.admitOf(d) == nil {
			return false
		}
	}
	for _, a := range p.admits {
		if !e.admitCounts(a, p, sequencer) {
			return false
		}
	}
	return true
}

func (e *Endpoint) admitCounts(a statement, p proposal, sequencer D) bool {
	if a.role == RoleDevice || a.d == sequencer || !e.signedBy(a.signer, a.sig, a.body) {
		return false
	}
	if a.signer == sequencer {
		return a.local || (a.role == RoleTherapist && len(p.list) == 2)
	}
	signer := e.known(a.signer)
	old := e.cur == nil || e.cur.members[a.signer] != nil
	return !a.local && old && signer.doc.Role == RoleTherapist && indexOf(p.list, a.signer) >= 0 && p.admitOf(a.signer) == nil
}

// ofRound sorts out a message of a round: is it of the running one, can it become so, or is it past?
func (e *Endpoint) ofRound(m message, p [32]byte) (ours bool, v verdict) {
	switch {
	case e.round != nil && e.round.p == p && m.e == e.round.e:
		return indexOf(e.round.prop.list, m.from) >= 0, done
	case e.round != nil && m.e > e.round.e, e.round == nil && m.e > e.lastE:
		return false, hold
	case e.round != nil && e.sequencer == (D{}) && m.e == e.round.e:
		return false, hold // a newcomer may have taken a false proposal
	}
	return false, done
}

func (e *Endpoint) onCommit(m message) verdict {
	c, err := parseCommit(m.body)
	if err != nil {
		return done
	}
	ours, v := e.ofRound(m, c.p)
	if !ours {
		return v
	}
	r := e.round
	if e.known(m.from) != nil && !e.signedBy(m.from, m.sig, m.unsigned) {
		return done
	}
	if have, ok := r.cs[m.from]; ok {
		// Whether or not the document is known yet: two are one too many, and nobody may choose between them.
		if have != c.c {
			e.fail(ReasonCommit, m.from)
		}
		return done
	}
	r.cs[m.from] = c.c
	r.commits[m.from] = m
	e.freeze()
	return done
}

// freeze computes K when all commits are there and reveals. Nothing of this end's nonce is known to anybody before.
func (e *Endpoint) freeze() {
	r := e.round
	if r.k != nil || len(r.cs) != len(r.prop.list) {
		return
	}
	cs := make([][32]byte, len(r.prop.list))
	for i, d := range r.prop.list {
		cs[i] = r.cs[d]
	}
	k := commitSetHash(r.p, cs)
	r.k, r.frozen = &k, e.now
	e.changed = true
	e.revealOwn()
}

func (e *Endpoint) revealOwn() {
	r := e.round
	req := ProofRequest{D: e.self, K: *r.k}
	if e.challenge != nil && e.challenge.from == r.from {
		req.Challenge = &e.challenge.dch
	}
	proof, err := e.cfg.Prove(req)
	if err != nil {
		e.fail(ReasonInternal, D{})
		return
	}
	doc, err := ParseDocument(e.doc)
	if err != nil {
		e.fail(ReasonInternal, D{})
		return
	}
	keys, err := newPeerKeys(doc)
	if err != nil {
		e.fail(ReasonInternal, D{})
		return
	}
	v := reveal{p: r.p, k: *r.k, doc: e.doc, proof: proof.encode(), nonce: r.nonce}
	r.shown = e.now
	raw := e.sendMessage(labelReveal, r.e, v.encode())
	if raw == nil {
		return
	}
	r.raws = append(r.raws, raw)
	r.reveals[e.self], r.proofs[e.self] = v, proof
	r.members[e.self] = &member{doc: doc, keys: keys}
	e.complete()
}

func (e *Endpoint) onReveal(m message) verdict {
	v, err := parseReveal(m.body)
	if err != nil {
		return done
	}
	ours, keep := e.ofRound(m, v.p)
	if !ours {
		return keep
	}
	r := e.round
	if r.k == nil {
		return hold
	}
	if r.done || HashDocument(v.doc) != m.from {
		return done
	}
	// From here on the document is D's own: what does not fit is D's fault, or the sender's if the signature says so.
	doc, err := ParseDocument(v.doc)
	if err != nil {
		e.fail(ReasonDocument, m.from)
		return done
	}
	keys, err := newPeerKeys(doc)
	if err != nil {
		e.fail(ReasonDocument, m.from)
		return done
	}
	if keys.verifier.Verify(m.sig, m.unsigned) != nil {
		return done
	}
	if raw, again := r.revRaw[m.from]; again {
		if !equalBytes(raw, m.raw) {
			e.fail(ReasonCommit, m.from)
		}
		return done
	}
	if why := e.judgeReveal(m, v, doc, keys); why != ReasonNone {
		e.fail(why, m.from)
		return done
	}
	e.changed = true
	e.complete()
	return done
}

// judgeReveal checks one signed reveal by itself and keeps it.
func (e *Endpoint) judgeReveal(m message, v reveal, doc Document, keys peerKeys) Reason {
	r, from := e.round, m.from
	c := r.commits[from]
	if keys.verifier.Verify(c.sig, c.unsigned) != nil {
		return ReasonSignature
	}
	if v.k != *r.k {
		return ReasonCommitSet
	}
	if doc.Clinic != e.cfg.Clinic || doc.SID != e.cfg.SID {
		return ReasonDocument
	}
	if commitHash(r.p, from, v.nonce) != r.cs[from] {
		return ReasonCommit
	}
	proof, err := ParseProof(v.proof)
	if err != nil {
		return ReasonProof
	}
	r.reveals[from], r.revRaw[from], r.proofs[from] = v, m.raw, proof
	r.members[from] = &member{doc: doc, keys: keys}
	return ReasonNone
}

// complete checks the whole when all reveals are there, and computes T.
func (e *Endpoint) complete() {
	r := e.round
	if r == nil || r.done || len(r.reveals) != len(r.prop.list) {
		return
	}
	if who, why := e.judgeRound(); why != ReasonNone {
		e.fail(why, who)
		return
	}
	var nonces [][32]byte
	var levels []uint8
	for _, d := range r.prop.list {
		nonces = append(nonces, r.reveals[d].nonce)
		levels = append(levels, r.members[d].level)
	}
	r.t = transcriptHash(r.prop.prev, r.p, *r.k, nonces, levels)
	r.done = true
	e.changed = true
	if e.seq != nil {
		e.enterEpoch()
	}
}

func (e *Endpoint) judgeRound() (D, Reason) {
	r := e.round
	s := r.members[r.from]
	if e.seq == nil && s.keys.verifier.Verify(r.raw.sig, r.raw.unsigned) != nil {
		return r.from, ReasonSignature
	}
	for _, d := range r.prop.list {
		if why := e.judgeMember(d); why != ReasonNone {
			return d, why
		}
		for _, other := range r.prop.list {
			a, b := r.members[d].doc, r.members[other].doc
			if d != other && (a.SigPub == b.SigPub || equalBytes(a.KEMPub, b.KEMPub)) {
				return d, ReasonDuplicate
			}
		}
	}
	if !e.admitsHold(r.prop, r.from) {
		return r.from, ReasonAdmit
	}
	return D{}, ReasonNone
}

// judgeMember checks role, proof and level. S verifies to the full level; the others the device, and what they can.
func (e *Endpoint) judgeMember(d D) Reason {
	r := e.round
	m, proof := r.members[d], r.proofs[d]
	isDevice := d == r.from
	if (m.doc.Role == RoleDevice) != isDevice || (proof.Kind == KindDevice) != isDevice {
		return ReasonRole
	}
	if a := r.prop.admitOf(d); a != nil && a.role != m.doc.Role {
		return ReasonRole
	}
	m.level = proof.Level
	if m.level < e.minLevel(m.doc.Role) {
		return ReasonLevel
	}
	if d == e.self {
		m.verified = m.level
		return ReasonNone
	}
	if e.cur != nil && e.cur.members[d] != nil && !isDevice {
		// A challenge is used once; the proof was verified when the member came.
		if e.cur.members[d].level != m.level {
			return ReasonLevel
		}
		m.verified = e.cur.members[d].verified
		return ReasonNone
	}
	claim := Claim{Document: m.doc, D: d, K: *r.k, Proof: proof}
	if isDevice || e.seq != nil {
		claim.Must = m.level
	}
	if e.seq != nil {
		claim.Challenge = e.seq.useChallenge(d, e.now)
	}
	level, err := e.cfg.Verify(claim)
	if err != nil || level < claim.Must {
		return ReasonProof
	}
	m.verified = min(level, m.level)
	return ReasonNone
}

func (e *Endpoint) minLevel(r Role) uint8 {
	if l, ok := e.cfg.MinLevel[r]; ok {
		return l
	}
	switch r {
	case RoleDevice:
		return LevelClinic
	case RoleTherapist:
		return LevelOIDC
	}
	return LevelServer
}

// abandonRound drops the running round. One that can have told an attacker whether the code fits is a guess.
func (e *Endpoint) abandonRound() {
	r := e.round
	if r == nil {
		return
	}
	e.round = nil
	e.changed = true
	if r.k == nil {
		return
	}
	e.failed = slices.DeleteFunc(e.failed, func(t Millis) bool { return e.now-t > guessWindow })
	e.failed = append(e.failed, e.now)
	e.emit(RoundFailed{Number: r.e, Count: len(e.failed)})
	if len(e.failed) >= maxFailed {
		e.fail(ReasonGuesses, D{})
	}
}

// enterEpoch puts the completed round's T in force.
func (e *Endpoint) enterEpoch() {
	r := e.round
	old, removal := e.cur, e.suspended || e.cur == nil
	next := &epoch{
		e: r.e, t: r.t, prev: r.prop.prev, list: r.prop.list, members: r.members, fresh: map[D]bool{},
		check: r.prop.flags&flagCheck != 0, raws: r.raws, since: e.now,
	}
	for _, d := range next.list {
		next.fresh[d] = old == nil || old.members[d] == nil
	}
	var left []D
	if old != nil {
		left = slices.DeleteFunc(slices.Clone(old.list), func(d D) bool { return next.members[d] != nil })
	}
	if removal || len(left) > 0 {
		e.retireAll()
		e.dropSendKeys()
	}
	for _, d := range left {
		e.keys.forgetPeer(d)
	}
	e.cur, e.chain, e.sequencer, e.round = next, r.t, r.from, nil
	e.suspended, e.changed = false, true
	e.word, e.sentWord, e.asked = nil, nil, map[D]statement{}
	e.keys.newEpoch()
	e.emit(e.describe())
	if e.seq != nil {
		e.sequenceEpoch()
	}
	e.newGeneration()
	e.inviteAgain()
}

// describe is the effect that says what is in force.
func (e *Endpoint) describe() Epoch {
	c := e.cur
	x := Epoch{Number: c.e, T: c.t, Code: Code(c.t), Pictures: ChoosePictures(c.t), Digits: Digits(c.t), Check: c.check}
	for _, d := range c.list {
		m := c.members[d]
		by, compared := e.v[d]
		x.Members = append(x.Members, Member{
			D: d, EID: d.EID(), Role: m.doc.Role, Name: m.doc.Display, Level: m.level, Verified: m.verified,
			Self: d == e.self, Compared: compared, ComparedBy: by,
		})
	}
	return x
}

// suspend stops everything at once: somebody who can read and imitate is being taken out.
func (e *Endpoint) suspend() {
	e.suspended = true
	e.setSending(Sending{Reason: ReasonChanging})
	e.retireAll()
	e.dropSendKeys()
	e.keys.message, e.keys.readyMessage = nil, nil
}
