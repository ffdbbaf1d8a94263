package agreement

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
)

// keyState is this end's sending key, the others' keys and who has confirmed what. It lives across epochs because
// generations only rise.
type keyState struct {
	gen     uint32
	made    Millis
	message []byte // the newest keys, for Resend

	active *ownKey // in use
	staged *ownKey // announced, waits for the others

	readyGens    []uint32
	readyMessage []byte

	confirmed map[D]uint32 // highest own generation that D says it has
	readable  map[D]bool   // D can read what is sent under active
	peers     map[D]*peerState
	seen      map[[32]byte]bool // hashes of all secrets of this session
}

type ownKey struct {
	t      T
	gen    uint32
	secret Secret
	at     Millis
}

type peerState struct {
	last uint32
	hash [32]byte // of the newest keys message, to tell a repetition from a second version
	live []recvKey
}

type recvKey struct {
	t      T
	gen    uint32
	until  Millis
	ending bool
}

func newKeyState() keyState {
	return keyState{confirmed: map[D]uint32{}, readable: map[D]bool{}, peers: map[D]*peerState{}, seen: map[[32]byte]bool{}}
}

func (k *keyState) forgetPeer(d D) {
	delete(k.confirmed, d)
	delete(k.readable, d)
	delete(k.peers, d)
}

func (k *keyState) newEpoch() {
	k.readyGens, k.readyMessage = nil, nil
}

func index(gen uint32) uint8 { return uint8(gen % 16) }

// newGeneration makes and seals a fresh secret for everybody in the list. Without a key in use it is used at once.
func (e *Endpoint) newGeneration() {
	if e.dead {
		return
	}
	k := &e.keys
	if k.gen == 1<<32-1 {
		e.fail(ReasonInternal, D{})
		return
	}
	secret := Secret(e.random32())
	if e.dead {
		return
	}
	k.gen++
	body := keysBody{t: e.cur.t, gen: k.gen, idx: index(k.gen), secret: secretHash(secret)}
	plain := append(binary.BigEndian.AppendUint32(nil, k.gen), secret[:]...)
	for _, d := range e.cur.list {
		if d == e.self {
			continue
		}
		box, err := e.cur.members[d].keys.sealer.Encrypt(plain, sealInfo(e.cur.t, e.self, d))
		if err != nil {
			e.fail(ReasonInternal, d)
			return
		}
		body.boxes = append(body.boxes, sealedFor{to: d, box: box})
	}
	clear(plain)
	k.seen[body.secret] = true
	k.message = e.sendMessage(labelKeys, e.cur.e, body.encode())
	k.made = e.now
	k.staged = &ownKey{t: e.cur.t, gen: k.gen, secret: secret, at: e.now}
	if k.active == nil {
		e.switchKey()
	}
}

// switchKey starts to send under the staged key.
func (e *Endpoint) switchKey() {
	k := &e.keys
	k.active, k.staged = k.staged, nil
	e.emit(SendKey{T: k.active.t, Gen: k.active.gen, Index: index(k.active.gen), Secret: k.active.secret})
	for _, p := range k.peers {
		for i := range p.live {
			if p.live[i].t != e.cur.t {
				p.live[i].end(e.now + drain)
			}
		}
	}
}

func (r *recvKey) end(at Millis) {
	if !r.ending || at < r.until {
		r.ending, r.until = true, at
	}
}

func (e *Endpoint) dropSendKeys() {
	k := &e.keys
	if k.active != nil {
		e.emit(DropSendKey{})
	}
	k.active, k.staged = nil, nil
	clear(k.readable)
}

// retireAll destroys every receive key now.
func (e *Endpoint) retireAll() {
	for _, d := range sortedKeys(e.keys.peers) {
		p := e.keys.peers[d]
		for _, r := range p.live {
			e.emit(RetireRecv{D: d, EID: d.EID(), Gen: r.gen, Index: index(r.gen)})
		}
		p.live = nil
	}
}

// retireDue destroys those whose time has come.
func (e *Endpoint) retireDue() {
	for _, d := range sortedKeys(e.keys.peers) {
		p := e.keys.peers[d]
		p.live = slices.DeleteFunc(p.live, func(r recvKey) bool {
			if !r.ending || e.now < r.until {
				return false
			}
			e.emit(RetireRecv{D: d, EID: d.EID(), Gen: r.gen, Index: index(r.gen)})
			return true
		})
	}
}

// ofEpoch sorts out a message that names a T.
func (e *Endpoint) ofEpoch(m message, t T) (ours bool, v verdict) {
	if e.cur == nil || m.e > e.cur.e {
		// Only of a round that is running here or may still come; what is older than that is past.
		if e.round != nil && m.e < e.round.e {
			return false, done
		}
		return false, hold
	}
	if m.e < e.cur.e || e.cur.members[m.from] == nil || !e.signedBy(m.from, m.sig, m.unsigned) {
		return false, done
	}
	if t != e.cur.t {
		e.fail(ReasonTranscript, m.from) // the same epoch, signed by a member, with another history
		return false, done
	}
	return !e.suspended, done
}

func (e *Endpoint) onKeys(m message) verdict {
	body, err := parseKeys(m.body)
	if err != nil {
		if e.cur != nil && m.e == e.cur.e && e.signedBy(m.from, m.sig, m.unsigned) {
			e.fail(ReasonKeys, m.from)
		}
		return done
	}
	ours, v := e.ofEpoch(m, body.t)
	if !ours {
		return v
	}
	p := e.keys.peers[m.from]
	if p == nil {
		p = &peerState{}
		e.keys.peers[m.from] = p
	}
	digest := hash(labelKeys, m.unsigned)
	if body.gen < p.last || (body.gen == p.last && digest == p.hash) {
		return done
	}
	secret, ok := e.openKeys(m.from, body, p)
	if !ok {
		e.fail(ReasonKeys, m.from)
		return done
	}
	p.last, p.hash = body.gen, digest
	e.keys.seen[body.secret] = true
	e.installKey(m.from, p, body, secret)
	if e.seq != nil {
		e.seq.keyed[m.from] = true
	}
	e.changed = true
	return done
}

// openKeys checks a key message that is signed and of the T in force, and opens this end's box.
func (e *Endpoint) openKeys(from D, b keysBody, p *peerState) (secret Secret, ok bool) {
	if b.gen == p.last || b.idx != index(b.gen) || len(b.boxes) != len(e.cur.list)-1 {
		return secret, false
	}
	if e.keys.seen[b.secret] || len(e.keys.seen) >= maxSecrets {
		return secret, false
	}
	var mine []byte
	for _, s := range b.boxes {
		if s.to == from || e.cur.members[s.to] == nil {
			return secret, false
		}
		if s.to == e.self {
			mine = s.box
		}
	}
	plain, err := e.own.opener.Decrypt(mine, sealInfo(b.t, from, e.self))
	if err != nil || len(plain) != 36 || binary.BigEndian.Uint32(plain) != b.gen {
		return secret, false
	}
	copy(secret[:], plain[4:])
	clear(plain)
	return secret, secretHash(secret) == b.secret
}

func (e *Endpoint) installKey(from D, p *peerState, b keysBody, secret Secret) {
	for i := range p.live {
		p.live[i].end(e.now + switchLimit + drain)
	}
	if len(p.live) >= maxRecvKeys {
		old := p.live[0]
		p.live = p.live[1:]
		e.emit(RetireRecv{D: from, EID: from.EID(), Gen: old.gen, Index: index(old.gen)})
	}
	p.live = append(p.live, recvKey{t: b.t, gen: b.gen})
	e.emit(RecvKey{D: from, EID: from.EID(), T: b.t, Gen: b.gen, Index: b.idx, Secret: secret})
}

func (e *Endpoint) onReady(m message) verdict {
	body, err := parseReady(m.body)
	if err != nil {
		return done
	}
	ours, v := e.ofEpoch(m, body.t)
	if !ours {
		return v
	}
	if len(body.gens) != len(e.cur.list) {
		return done
	}
	gen := body.gens[indexOf(e.cur.list, e.self)]
	if gen <= e.keys.gen && gen > e.keys.confirmed[m.from] {
		e.keys.confirmed[m.from] = gen
	}
	return done
}

// sendReady tells the others which keys this end has, whenever that changes.
func (e *Endpoint) sendReady() {
	if e.cur == nil || e.suspended {
		return
	}
	k := &e.keys
	gens := make([]uint32, len(e.cur.list))
	others := false
	for i, d := range e.cur.list {
		if d == e.self {
			gens[i] = k.gen
		} else if p := k.peers[d]; p != nil && len(p.live) > 0 && p.live[len(p.live)-1].t == e.cur.t {
			gens[i] = p.last
			others = true
		}
	}
	if !others || slices.Equal(gens, k.readyGens) {
		return
	}
	k.readyGens = gens
	k.readyMessage = e.sendMessage(labelReady, e.cur.e, readyBody{t: e.cur.t, gens: gens}.encode())
}

// update brings switching, readiness and the permission to send up to date; it is the last step of every call.
func (e *Endpoint) update() {
	if e.dead {
		return
	}
	k := &e.keys
	if k.staged != nil && (e.allConfirmed(k.staged.gen) || e.now >= k.staged.at+switchLimit) {
		e.switchKey()
	}
	e.retireDue()
	e.sendReady()
	if e.dead {
		return
	}
	var frames []D
	if e.cur != nil {
		for _, d := range e.cur.list {
			can := e.canRead(d)
			if can && !k.readable[d] {
				frames = append(frames, d)
			}
			k.readable[d] = can
		}
	}
	e.setSending(e.maySend())
	for _, d := range frames {
		e.emit(KeyFrame{D: d})
	}
}

func (e *Endpoint) allConfirmed(gen uint32) bool {
	for _, d := range e.cur.list {
		if d != e.self && e.keys.confirmed[d] < gen {
			return false
		}
	}
	return true
}

// canRead tells whether d has the key in use. A newcomer was never given the key of an older T.
func (e *Endpoint) canRead(d D) bool {
	a := e.keys.active
	if a == nil || d == e.self || e.keys.confirmed[d] < a.gen {
		return false
	}
	return a.t == e.cur.t || !e.cur.fresh[d]
}

// maySend is the whole rule about sending.
func (e *Endpoint) maySend() Sending {
	switch {
	case e.suspended:
		return Sending{Reason: ReasonChanging}
	case e.cur == nil:
		return Sending{Reason: ReasonNoEpoch}
	case !e.lease.fresh(e.now) && e.seq == nil:
		return Sending{Reason: ReasonNoAlive}
	}
	for _, d := range e.cur.list {
		if e.keys.readable[d] {
			return Sending{Allowed: true}
		}
	}
	return Sending{Reason: ReasonNobody}
}

func (e *Endpoint) setSending(s Sending) {
	if s != e.send {
		e.send = s
		e.emit(s)
	}
}

// Rekey rotates this end's key under the same T. While a rotation is under way it does nothing.
func (e *Endpoint) Rekey(now Millis) (out []Effect, err error) {
	out = e.run(now, func() {
		if e.cur == nil || e.suspended {
			err = ErrOutOfPlace
			return
		}
		if e.keys.staged == nil {
			e.newGeneration()
		}
	})
	return out, err
}

func sortedKeys[V any](m map[D]V) []D {
	return slices.SortedFunc(maps.Keys(m), func(a, b D) int { return bytes.Compare(a[:], b[:]) })
}
