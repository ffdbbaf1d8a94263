package daemon

import (
	"testing"
	"time"
)

// TestKeyFrameGate plays requests against the gate on a clock of its own.
func TestKeyFrameGate(t *testing.T) {
	start := time.Unix(1, 0)
	// sent plays one request each step for length and returns when key frames were asked for.
	sent := func(step, length time.Duration) (out []time.Duration) {
		var g keyFrameGate
		due := time.Time{}
		for now := start; now.Sub(start) < length; now = now.Add(step) {
			if g.pending && !now.Before(due) {
				g.fired(due)
				out = append(out, due.Sub(start))
			}
			switch wait, ask := g.request(now); {
			case ask && wait == 0:
				out = append(out, now.Sub(start))
			case ask:
				due = now.Add(wait)
			}
		}
		return out
	}
	storm := sent(time.Millisecond, 10*time.Second)
	for i, at := range storm[1:] {
		if at-storm[i] < keyFrameGap {
			t.Errorf("two key frames %v apart", at-storm[i])
		}
	}
	if most := keyFrameBurst + int(10*time.Second/keyFrameEvery); len(storm) < keyFrameBurst || len(storm) > most {
		t.Errorf("a storm of 10 s gives %d key frames, at most %d are allowed", len(storm), most)
	}
	if got := storm[keyFrameBurst-1]; got > keyFrameBurst*keyFrameGap {
		t.Errorf("the burst ends after %v", got)
	}
	if slow := sent(keyFrameEvery, 10*time.Second); len(slow) != 20 {
		t.Errorf("of 20 requests %v apart %d were followed", keyFrameEvery, len(slow))
	}
}
