package e2ee

import "math/bits"

// bitReader reads the fields of an H.264 RBSP (ITU-T H.264 section 7.2, 9.1) from bytes whose escapes are undone. Past
// the end it returns zeros and sets short; callers check once, at the end.
type bitReader struct {
	data  []byte
	pos   int // in bits
	short bool
}

func (r *bitReader) bit() uint32 {
	if r.pos >= 8*len(r.data) {
		r.short = true
		return 0
	}
	b := r.data[r.pos/8] >> (7 - r.pos%8) & 1
	r.pos++
	return uint32(b)
}

func (r *bitReader) flag() bool { return r.bit() == 1 }

// u reads n bits, at most 32.
func (r *bitReader) u(n int) uint32 {
	var v uint32
	for range n {
		v = v<<1 | r.bit()
	}
	return v
}

// ue reads an unsigned Exp-Golomb number below 2^31; a longer one counts as short.
func (r *bitReader) ue() uint32 {
	n := 0
	for r.bit() == 0 {
		if n++; n > 30 || r.short {
			r.short = true
			return 0
		}
	}
	return 1<<n - 1 + r.u(n)
}

// se reads a signed Exp-Golomb number.
func (r *bitReader) se() int32 {
	v := r.ue()
	if v&1 == 1 {
		return int32(v/2) + 1
	}
	return -int32(v / 2)
}

// ends reports whether only the trailing bits of an RBSP follow: a one, and zeros.
func (r *bitReader) ends() bool {
	if r.bit() != 1 {
		return false
	}
	for r.pos < 8*len(r.data) {
		if r.bit() != 0 {
			return false
		}
	}
	return !r.short
}

// bitWriter writes what bitReader reads.
type bitWriter struct {
	data []byte
	free int // bits left in the last byte
}

func (w *bitWriter) u(n int, v uint32) {
	for i := n - 1; i >= 0; i-- {
		if w.free == 0 {
			w.data, w.free = append(w.data, 0), 8
		}
		w.free--
		w.data[len(w.data)-1] |= byte(v>>i&1) << w.free
	}
}

func (w *bitWriter) flag(v bool) {
	if v {
		w.u(1, 1)
	} else {
		w.u(1, 0)
	}
}

func (w *bitWriter) ue(v uint32) {
	n := bits.Len32(v + 1)
	w.u(2*n-1, v+1)
}

func (w *bitWriter) se(v int32) {
	if v > 0 {
		w.ue(uint32(2*v - 1))
	} else {
		w.ue(uint32(-2 * v))
	}
}

// trail writes the trailing bits of an RBSP.
func (w *bitWriter) trail() {
	w.u(1, 1)
	w.free = 0
}
