package e2ee

import (
	"crypto/sha256"
	"encoding/binary"
)

// hash is H(label, x…) = SHA-256(lp(label) || lp(x)…) with lp(x) = u32be(len x) || x, the form of every hash in a session.
func hash(label string, parts ...[]byte) [sha256.Size]byte {
	var size [4]byte
	h := sha256.New()
	binary.BigEndian.PutUint32(size[:], uint32(len(label)))
	h.Write(size[:])
	h.Write([]byte(label))
	for _, p := range parts {
		binary.BigEndian.PutUint32(size[:], uint32(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
