package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
)

// TestCallH264 is the line with a clinic that lists H.264 first: what the capture process encodes passes the daemon's
// sealing, the SFU, the page's worker and Chromium's decoder.
func TestCallH264(t *testing.T) {
	s := start(t, stack.Options{Codecs: []string{"h264", "vp8"}})
	b := chromium(t, browser.Options{})
	p := call(t, s, b)

	picture(t, p, 15*time.Second)
	for range 3 { // it goes on
		time.Sleep(time.Second)
		picture(t, p, 5*time.Second)
	}
	var in []struct {
		Kind          string  `json:"kind"`
		CodecID       string  `json:"codecId"`
		Decoded       int     `json:"framesDecoded"`
		Width         int     `json:"frameWidth"`
		KeyFrames     int     `json:"keyFramesDecoded"`
		FramesPerSec  float64 `json:"framesPerSecond"`
		DecoderNative string  `json:"decoderImplementation"`
	}
	ok(t, p.Eval("probe.stats('inbound-rtp')", &in))
	var codecs []struct {
		ID       string `json:"id"`
		MimeType string `json:"mimeType"`
		Fmtp     string `json:"sdpFmtpLine"`
	}
	ok(t, p.Eval("probe.stats('codec')", &codecs))
	seen := false
	for _, i := range in {
		if i.Kind != "video" {
			continue
		}
		for _, c := range codecs {
			if c.ID != i.CodecID {
				continue
			}
			t.Logf("%s (%s): %d pictures of width %d decoded by %s, %d key frames, %.0f a second",
				c.MimeType, c.Fmtp, i.Decoded, i.Width, i.DecoderNative, i.KeyFrames, i.FramesPerSec)
			seen = seen || strings.EqualFold(c.MimeType, "video/H264") && i.Decoded > 10 && i.Width == 640
		}
	}
	if !seen {
		t.Errorf("no H.264 was decoded: %+v with codecs %+v", in, codecs)
	}
	if r, rms := hear(t, p, 2); r < 0.5 || rms < 100 {
		t.Errorf("the room's voice does not arrive: correlation %.3f, RMS %.0f", r, rms)
	}
	must[stack.Status](t)(s.Press(t.Context(), "end"))
}
