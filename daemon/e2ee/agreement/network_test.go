package agreement

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"testing"
)

// world is an in-memory network with a clock of its own and a relay that may lie. After every step it checks what has
// to hold whatever the relay does.
type world struct {
	t      testing.TB
	rng    *mrand.Rand
	now    Millis
	nodes  []*node
	queue  []parcel
	last   map[[2]int]Millis // keeps the order per line
	seq    int
	lie    func(from, to *node, msg []byte) [][]byte // nil: honest
	lied   int
	sent   int
	clinic [32]byte
	sid    [16]byte
	idkey  *ecdsa.PrivateKey
}

type parcel struct {
	at   Millis
	n    int
	from int
	to   int
	msg  []byte
}

// node is an endpoint and what a session would do with its effects.
type node struct {
	w       *world
	i       int
	e       *Endpoint
	evil    bool // its effects are not held to the rules
	off     bool // gets nothing any more
	allowed bool
	reason  Reason
	epoch   *Epoch
	key     *SendKey
	recv    map[D]map[uint32]Secret
	gens    map[D]uint32
	failed  *Failed
	ended   *Ended
	frames  []D
	rounds  int
	asked   []D
	dropped map[D]Reason
	inV     map[D]D
	all     [][]byte // everything that it sent
}

var testIdentity = func() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}()

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, rng: mrand.New(mrand.NewPCG(seed, 17)), last: map[[2]int]Millis{}, idkey: testIdentity, now: 1000}
	w.clinic = sha256.Sum256([]byte("clinic"))
	copy(w.sid[:], fmt.Sprintf("session %08d", seed))
	return w
}

func spkiHash(t testing.TB, k *ecdsa.PrivateKey) [32]byte {
	point, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(append(bytes.Clone(spkiPrefix), point...))
}

func (w *world) config(role Role, name string, trusted ...*ecdsa.PrivateKey) Config {
	cfg := Config{Role: role, Clinic: w.clinic, SID: w.sid, Name: name, Prove: HubProver, MinLevel: map[Role]uint8{RoleTherapist: LevelServer}}
	if len(trusted) == 0 {
		trusted = []*ecdsa.PrivateKey{w.idkey}
	}
	cfg.Verify = Proofs{Device: func(_ Document, h [32]byte) error {
		for _, k := range trusted {
			if spkiHash(w.t, k) == h {
				return nil
			}
		}
		return errors.New("not in the roster")
	}}.Verify
	if role == RoleDevice {
		prove, err := DeviceProver(w.idkey)
		if err != nil {
			w.t.Fatal(err)
		}
		cfg.Prove = prove
	}
	return cfg
}

func (w *world) add(role Role, name string) *node { return w.addConfig(w.config(role, name)) }

func (w *world) addConfig(cfg Config) *node {
	e, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{w: w, i: len(w.nodes), e: e, recv: map[D]map[uint32]Secret{}, gens: map[D]uint32{}, dropped: map[D]Reason{}, inV: map[D]D{}}
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) do(out []Effect, err error) {
	n.w.t.Helper()
	if err != nil {
		n.w.t.Fatalf("node %d: %v", n.i, err)
	}
	n.take(out)
}

func (n *node) take(out []Effect) {
	for _, x := range out {
		n.apply(x)
	}
	n.w.check()
}

func (n *node) apply(x Effect) {
	if (n.failed != nil || n.ended != nil) && !n.evil {
		n.w.t.Fatalf("node %d: effect %T after the end", n.i, x)
	}
	switch x := x.(type) {
	case Send:
		n.all = append(n.all, x.Message)
		n.w.relay(n, x.Message)
	case Sending:
		n.allowed, n.reason = x.Allowed, x.Reason
	case SendKey:
		n.key = &x
	case DropSendKey:
		n.key = nil
	case RecvKey:
		if x.Gen <= n.gens[x.D] || x.D == n.e.D() || x.Index != uint8(x.Gen%16) {
			n.w.t.Fatalf("node %d: receive key gen %d after %d", n.i, x.Gen, n.gens[x.D])
		}
		n.gens[x.D] = x.Gen
		if n.recv[x.D] == nil {
			n.recv[x.D] = map[uint32]Secret{}
		}
		n.recv[x.D][x.Gen] = x.Secret
	case RetireRecv:
		if _, ok := n.recv[x.D][x.Gen]; !ok {
			n.w.t.Fatalf("node %d: retires gen %d that it does not have", n.i, x.Gen)
		}
		delete(n.recv[x.D], x.Gen)
	case Epoch:
		n.epoch = &x
		n.frames = nil
	case KeyFrame:
		n.frames = append(n.frames, x.D)
		for _, other := range n.w.nodes {
			if _, has := other.recv[n.e.D()][n.key.Gen]; other.e.D() == x.D && !other.evil && !has {
				n.w.t.Fatalf("node %d: key frame for node %d, which cannot read it", n.i, other.i)
			}
		}
	case Failed:
		n.failed = &x
	case Ended:
		n.ended = &x
	case RoundFailed:
		n.rounds = x.Count
	case AskGuest:
		n.asked = append(n.asked, x.D)
	case Dropped:
		n.dropped[x.D] = x.Reason
	case Compared:
		n.inV[x.D] = x.By
	}
}

// check is the invariant. Nobody sends without a key; whoever holds a key that an honest end is sending under stands
// in that end's list; two honest ends that may both send and show one code have one list.
func (w *world) check() {
	w.t.Helper()
	for _, a := range w.nodes {
		if a.evil || !a.allowed {
			continue
		}
		if a.key == nil || a.epoch == nil || a.failed != nil || a.ended != nil {
			w.t.Fatalf("at %d: node %d may send without a key or epoch, or after the end", w.now, a.i)
		}
		for _, b := range w.nodes {
			if b == a {
				continue
			}
			if s, ok := b.recv[a.e.D()][a.key.Gen]; ok && s == a.key.Secret && !a.lists(b.e.D()) {
				w.t.Fatalf("at %d: node %d can read node %d without being in its list", w.now, b.i, a.i)
			}
			if !b.evil && b.allowed && a.epoch.Code == b.epoch.Code {
				w.checkPair(a, b)
			}
		}
	}
}

func (w *world) checkPair(a, b *node) {
	w.t.Helper()
	if a.epoch.T != b.epoch.T || !slices.Equal(a.ds(), b.ds()) {
		w.t.Fatalf("at %d: nodes %d and %d show one code over two lists", w.now, a.i, b.i)
	}
	for d, keys := range a.recv {
		if len(keys) > 0 && !b.lists(d) {
			w.t.Fatalf("at %d: node %d holds a key of %s, whom node %d does not list", w.now, a.i, d, b.i)
		}
	}
}

func (n *node) ds() (out []D) {
	for _, m := range n.epoch.Members {
		out = append(out, m.D)
	}
	return out
}

func (n *node) lists(d D) bool { return n.epoch != nil && slices.Contains(n.ds(), d) }

func (w *world) relay(from *node, msg []byte) {
	for _, to := range w.nodes {
		if to == from {
			continue
		}
		copies := [][]byte{msg}
		if w.lie != nil {
			copies = w.lie(from, to, msg)
		}
		for _, c := range copies {
			w.post(from, to, c, Millis(1+w.rng.IntN(30)))
		}
	}
}

func (w *world) post(from, to *node, msg []byte, delay Millis) {
	line := [2]int{from.i, to.i}
	at := max(w.now+delay, w.last[line])
	w.last[line] = at
	w.seq++
	w.sent++
	w.queue = append(w.queue, parcel{at: at, n: w.seq, from: from.i, to: to.i, msg: msg})
}

// run lets the world go on for d.
func (w *world) run(d Millis) {
	w.t.Helper()
	end := w.now + d
	for steps := 0; ; steps++ {
		if steps > 200_000 {
			w.t.Fatal("the world does not come to rest")
		}
		at, which := end+1, -1
		for _, n := range w.nodes {
			if t, ok := n.e.NextDeadline(); ok && t < at {
				at, which = t, n.i
			}
		}
		p := -1
		for i := range w.queue {
			if q := w.queue[i]; q.at < at || (q.at == at && (p < 0 || q.n < w.queue[p].n)) {
				at, p = q.at, i
			}
		}
		if at > end {
			w.now = end
			return
		}
		w.now = max(w.now, at)
		if p < 0 {
			before, _ := w.nodes[which].e.NextDeadline()
			w.nodes[which].take(w.nodes[which].e.Tick(w.now))
			if after, ok := w.nodes[which].e.NextDeadline(); ok && after == before && after < w.now {
				w.t.Fatalf("node %d does not get past its deadline %d", which, after)
			}
			continue
		}
		q := w.queue[p]
		w.queue = slices.Delete(w.queue, p, p+1)
		if to := w.nodes[q.to]; !to.off {
			to.take(to.e.Handle(w.now, q.msg))
		}
	}
}

// settled asserts that exactly these ends are in one epoch and all may send.
func (w *world) settled(nodes ...*node) {
	w.t.Helper()
	for _, n := range nodes {
		if n.failed != nil || n.ended != nil || n.epoch == nil || !n.allowed {
			w.t.Fatalf("at %d: node %d: epoch %v allowed %v (%v) failed %v ended %v", w.now, n.i, n.epoch != nil, n.allowed, n.reason, n.failed, n.ended)
		}
		if n.epoch.T != nodes[0].epoch.T || n.epoch.Code != nodes[0].epoch.Code || len(n.epoch.Members) != len(nodes) {
			w.t.Fatalf("at %d: node %d: another epoch, %d members", w.now, n.i, len(n.epoch.Members))
		}
		for _, other := range nodes {
			if other == n {
				continue
			}
			if !n.lists(other.e.D()) {
				w.t.Fatalf("node %d does not list node %d", n.i, other.i)
			}
			if s, ok := n.recv[other.e.D()][other.key.Gen]; !ok || s != other.key.Secret {
				w.t.Fatalf("node %d cannot read node %d", n.i, other.i)
			}
		}
	}
}

// call makes a running session of S and one end per role, admitted by touch one after the other.
func (w *world) call(roles ...Role) []*node {
	w.t.Helper()
	nodes := []*node{w.add(RoleDevice, "Room 1")}
	for i, r := range roles {
		nodes = append(nodes, w.add(r, fmt.Sprintf("Person %d", i)))
	}
	for i, n := range nodes[1:] {
		nodes[0].do(nodes[0].e.Admit(w.now, n.e.D(), roles[i]))
		w.run(3000)
	}
	w.settled(nodes...)
	return nodes
}
