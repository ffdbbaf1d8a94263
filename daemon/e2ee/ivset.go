package e2ee

import (
	"encoding/binary"
	"hash/maphash"
)

// ivSet is the set of IVs opened under one key: at most [MaxFrames], open addressing with linear probing, at most three
// quarters full. It grows by doubling and is reused by later generations, so it allocates a handful of times a session.
// The hash is seeded: a member chooses its IVs and must not be able to choose collisions.
type ivSet struct {
	seed  maphash.Seed
	table []ivEntry // length is a power of two
	count int
}

// ivEntry holds the 12 bytes of an IV; used is 1 for a taken place.
type ivEntry struct {
	hi   uint64
	lo   uint32
	used uint32
}

// firstIVs is the table's first length: 12 seconds of sound and picture.
const firstIVs = 1 << 10

func newIVSet() *ivSet {
	return &ivSet{seed: maphash.MakeSeed(), table: make([]ivEntry, firstIVs)}
}

func (s *ivSet) full() bool { return s.count >= MaxFrames }

func (s *ivSet) clear() {
	clear(s.table)
	s.count = 0
}

// find returns the place of an IV, or the free place where it belongs.
func (s *ivSet) find(e ivEntry) *ivEntry {
	var iv [ivSize]byte
	binary.BigEndian.PutUint64(iv[:], e.hi)
	binary.BigEndian.PutUint32(iv[8:], e.lo)
	mask := uint64(len(s.table) - 1)
	for i := maphash.Bytes(s.seed, iv[:]) & mask; ; i = (i + 1) & mask {
		if p := &s.table[i]; p.used == 0 || *p == e {
			return p
		}
	}
}

func entryOf(iv *[ivSize]byte) ivEntry {
	return ivEntry{hi: binary.BigEndian.Uint64(iv[:]), lo: binary.BigEndian.Uint32(iv[8:]), used: 1}
}

func (s *ivSet) contains(iv *[ivSize]byte) bool {
	return s.find(entryOf(iv)).used == 1
}

// add reports whether the IV was new. The caller checks full first.
func (s *ivSet) add(iv *[ivSize]byte) bool {
	e := entryOf(iv)
	place := s.find(e)
	if place.used == 1 {
		return false
	}
	if 4*(s.count+1) > 3*len(s.table) {
		s.grow()
		place = s.find(e)
	}
	*place = e
	s.count++
	return true
}

func (s *ivSet) grow() {
	old := s.table
	s.table = make([]ivEntry, 2*len(old))
	for _, e := range old {
		if e.used == 1 {
			*s.find(e) = e
		}
	}
}
