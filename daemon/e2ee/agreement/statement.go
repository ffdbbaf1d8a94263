package agreement

import (
	"bytes"
	"slices"
)

// statement is what somebody decided, signed, and not bound to a round: admit, remove, check, compared, agree.
// t, d, role, local are the fields of the label's layout; for agree, ref is the admit's hash and flag the answer.
type statement struct {
	label  string
	sid    [16]byte
	t      T
	d      D
	role   Role
	local  bool
	ref    [32]byte
	answer bool
	signer D
	raw    []byte
	body   []byte // the signed bytes
	sig    []byte
}

// admitSize is the size of an admit inside a proposal.
const admitSize = 4 + len(labelAdmit) + 16 + 32 + 32 + 2 + 32 + signatureLen

// encodeStatement is the signed bytes.
func encodeStatement(s statement) []byte {
	b := appendLabel(nil, s.label)
	b = append(b, s.sid[:]...)
	switch s.label {
	case labelAdmit, labelRemove:
		b = append(b, s.t[:]...)
		b = append(b, s.d[:]...)
		b = append(b, byte(s.role), bit(s.local))
	case labelCheck:
		b = append(b, s.t[:]...)
	case labelCompared:
		b = append(b, s.t[:]...)
		b = append(b, s.d[:]...)
	case labelAgree:
		b = append(b, s.ref[:]...)
		b = append(b, bit(s.answer))
	}
	return b
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func (r *reader) flag() bool {
	v := r.u8()
	if v > 1 {
		r.bad = true
	}
	return v == 1
}

func parseStatement(b []byte) (statement, error) {
	r := &reader{b: b}
	s := statement{label: string(r.lp(64)), raw: b}
	copy(s.sid[:], r.take(16))
	switch s.label {
	case labelAdmit, labelRemove:
		s.t, s.d = T(r.b32()), D(r.b32())
		s.role = Role(r.u8())
		s.local = r.flag()
		if !s.role.valid() {
			r.bad = true
		}
	case labelCheck:
		s.t = T(r.b32())
	case labelCompared:
		s.t, s.d = T(r.b32()), D(r.b32())
	case labelAgree:
		s.ref = r.b32()
		s.answer = r.flag()
	default:
		return statement{}, errMalformed
	}
	if r.bad {
		return statement{}, errMalformed
	}
	s.body = b[:len(b)-len(r.b)]
	s.signer = D(r.b32())
	s.sig = r.take(signatureLen)
	return s, r.end()
}

func (s statement) hash() [32]byte { return hash(labelAdmit, s.body) }

func compareD(a, b D) int { return bytes.Compare(a[:], b[:]) }

func ascending(ds []D) bool {
	for i := 1; i < len(ds); i++ {
		if compareD(ds[i-1], ds[i]) >= 0 {
			return false
		}
	}
	return true
}

// indexOf is d's place in an ascending list, -1 if it is not there.
func indexOf(ds []D, d D) int {
	if i, ok := slices.BinarySearchFunc(ds, d, compareD); ok {
		return i
	}
	return -1
}
