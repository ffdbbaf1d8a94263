package session

import (
	"bytes"
	"errors"
	"testing"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

// TestInjectedFramesHaveTheirOwnName: what the SFU makes itself is told from clear frames, for members who are
// there when the line joins and for those who come later.
func TestInjectedFramesHaveTheirOwnName(t *testing.T) {
	k := newKeys(Config{VideoMime: mimeVP8, Width: 640, Height: 360, AudioBPS: 32000}, [32]byte{1})
	before := k.ring("before")
	trailer := bytes.Repeat([]byte{0xa5}, 43)
	k.injected(trailer)
	for name, ring := range map[string]*e2ee.Ring{"before": before, "after": k.ring("after")} {
		dec, err := ring.NewReceiver(e2ee.Track{Codec: e2ee.Opus, Encrypted: true})
		if err != nil {
			t.Fatal(err)
		}
		frame := append(bytes.Repeat([]byte{0x78}, 40), trailer...)
		if _, err := dec.Decrypt(nil, frame); !errors.Is(err, e2ee.ErrInjected) {
			t.Errorf("%s: %v, want %v", name, err, e2ee.ErrInjected)
		}
		if _, err := dec.Decrypt(nil, frame[:60]); !errors.Is(err, e2ee.ErrTrailer) {
			t.Errorf("%s, without the whole trailer: %v, want %v", name, err, e2ee.ErrTrailer)
		}
	}
}
