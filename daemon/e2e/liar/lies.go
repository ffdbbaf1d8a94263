package liar

import "fmt"

// Lie is one way in which the hub lies.
type Lie struct {
	Name string
	Does string
	// Variants are the ways in which it is told; each has to come up.
	Variants []string
	// Ends are the classes in which it may end.
	Ends []Class
	// Tells is false for the truth alone.
	Tells bool
	// Media lets the page reach the SFU, with camera and microphone.
	Media bool
	Begin func(*Run) (Teller, error)
}

var refused = []Class{RefusedByRoom, RefusedByPage, RefusedByBoth}
var refusedOrDifferent = append([]Class{CodesDiffer}, refused...)

// Truth is the honest run through the liar.
func Truth() *Lie {
	return &Lie{Name: "truth", Does: "passes everything on", Variants: []string{"-"}, Ends: []Class{Equal},
		Begin: func(*Run) (Teller, error) { return truth{}, nil }}
}

// All are the lies.
func All() []*Lie {
	return []*Lie{
		swap(), replay(), withhold(), twoCommits(), commitSet(), split(), grind(), ghost(), wrongRole(),
		oldTranscript(), merged(), unequalKeys(), hoard(), suppress(),
	}
}

// victim draws which end is lied to.
func (r *Run) victim() Way {
	way := []Way{HubToRoom, HubToPage}[r.Rand.IntN(2)]
	r.vary("victim", way.String())
	return way
}

// junk is n bytes of the run's own chance.
func (r *Run) junk(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Rand.Uint32())
	}
	return b
}

// flip changes one bit of b[from:to).
func (r *Run) flip(b []byte, from, to int) []byte {
	out := append([]byte(nil), b...)
	at := from + r.Rand.IntN(to-from)
	out[at] ^= 1 << r.Rand.IntN(8)
	r.vary("offset", fmt.Sprintf("%d–", at/256*256))
	return out
}
