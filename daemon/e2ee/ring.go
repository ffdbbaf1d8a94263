package e2ee

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// IVStructure is how a member's client makes its IVs.
type IVStructure uint8

const (
	// RandomIV: 96 random bits, as this package's senders do.
	RandomIV IVStructure = iota
	// LiveKitIV: SSRC || RTP timestamp || timestamp − frame count mod 65535, as livekit-client does.
	LiveKitIV
)

// RingConfig is what a session knows about a member before it accepts frames from it.
type RingConfig struct {
	Kinds Kind        // the kinds of track the member may send: Audio, Video, or both; none refuses all
	IVs   IVStructure // how the member's client makes IVs
}

// Ring holds the receive keys of one other member, one for each of the 16 indices, and remembers every IV that was
// opened under each: a frame is opened once (exactly, not by a window).
//
// Its methods may be called from any goroutine.
type Ring struct {
	endpoint *Endpoint
	config   RingConfig

	mu    sync.Mutex
	slots [Indices]*slot // guarded by mu
	used  map[secretID]struct{}
	last  uint32 // highest generation installed
	begun bool   // last is valid
	sif   []byte
	spare *ivSet // an emptied set for the next generation
}

// slot is one generation's key. ivs is guarded by the ring's mutex, and by the slot still standing in the ring.
type slot struct {
	gen  uint32
	aead tink.AEAD
	ivs  *ivSet
}

// NewRing returns a ring without keys for one other member of the session.
func (e *Endpoint) NewRing(config RingConfig) *Ring {
	return &Ring{endpoint: e, config: config, used: make(map[secretID]struct{})}
}

// Install adds the member's key of a generation and destroys the one that had its index (16 generations ago).
// Generations rise ([ErrGeneration]); a key of this endpoint is [ErrOwnKey]; a secret that this ring had before is
// [ErrKeyReused], as the index is not authenticated and old frames would open again.
func (r *Ring) Install(gen uint32, key *ReceiveKey) error {
	if key == nil {
		return fmt.Errorf("installing receive key: %w", ErrNoKey)
	}
	if r.endpoint.owns(key.id) {
		return fmt.Errorf("installing receive key %d: %w", gen, ErrOwnKey)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun && gen <= r.last {
		return fmt.Errorf("installing receive key %d after %d: %w", gen, r.last, ErrGeneration)
	}
	if _, ok := r.used[key.id]; ok {
		return fmt.Errorf("installing receive key %d: %w", gen, ErrKeyReused)
	}
	r.used[key.id] = struct{}{}
	r.last, r.begun = gen, true
	r.dropLocked(Index(gen))
	ivs := r.spare
	r.spare = nil
	if ivs == nil {
		ivs = newIVSet()
	}
	r.slots[Index(gen)] = &slot{gen: gen, aead: key.aead, ivs: ivs}
	return nil
}

// Retire destroys the key of a generation; frames under it are [ErrNoKey] from now on, those being opened included.
// A generation that is not installed is none to destroy.
func (r *Ring) Retire(gen uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.slots[Index(gen)]; s != nil && s.gen == gen {
		r.dropLocked(Index(gen))
	}
}

// RetireAll destroys all keys: when any member leaves or is removed, since it held them too. Later generations can be
// installed.
func (r *Ring) RetireAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.slots {
		r.dropLocked(uint8(i))
	}
}

func (r *Ring) dropLocked(index uint8) {
	s := r.slots[index]
	if s == nil {
		return
	}
	r.slots[index] = nil
	if r.spare == nil {
		r.spare = s.ivs
		r.spare.clear()
	}
}

// SetSIFTrailer tells the random trailer that the SFU puts on frames of its own making; it changes with every
// connection. Such frames never open; the trailer only lets them be named [ErrInjected].
func (r *Ring) SetSIFTrailer(trailer []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sif = bytes.Clone(trailer)
}

// injected reports whether a frame carries the SFU's own trailer.
func (r *Ring) injected(frame []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sif) > 0 && bytes.HasSuffix(frame, r.sif)
}

// slot returns the key at an index after the checks that need no decryption.
func (r *Ring) slot(index uint8, iv *[ivSize]byte) (*slot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[index]
	switch {
	case s == nil:
		return nil, ErrNoKey
	case s.ivs.contains(iv):
		return nil, ErrReplay
	case s.ivs.full():
		return nil, ErrKeyExhausted
	}
	return s, nil
}

// spend records the IV of a frame that has authenticated. Only then: a forger must not be able to fill the set.
func (r *Ring) spend(s *slot, iv *[ivSize]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.slots[Index(s.gen)] != s:
		return ErrNoKey // retired while the frame was being opened
	case s.ivs.full():
		return ErrKeyExhausted
	case !s.ivs.add(iv):
		return ErrReplay
	}
	return nil
}
