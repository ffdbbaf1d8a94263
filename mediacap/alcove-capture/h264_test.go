package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/encode/vaapi/vaapitest"
)

// running returns the next status of a capture that runs.
func (c *child) running() mediacap.Status {
	c.t.Helper()
	for {
		if s, ok := c.read().(*mediacap.Status); ok && s.State == mediacap.Running {
			return *s
		}
	}
}

func TestCaptureH264InSoftware(t *testing.T) {
	c := start(t, "--source=test", "--codec", "h264", "--render-node", filepath.Join(t.TempDir(), "renderD128"))
	if s := c.running(); s.Video.Codec != mediacap.H264 || !strings.Contains(s.Video.Encoder, "openh264") {
		t.Fatalf("status %+v", s)
	}
	for i := range 30 {
		u := c.unit(mediacap.Video)
		if u.Codec != mediacap.H264 || u.KeyFrame != (i == 0) || u.Lost != 0 || !strings.HasPrefix(string(u.Payload), "\x00\x00\x00\x01") {
			t.Fatalf("picture %d: %v, key frame %v, %d lost", i, u.Codec, u.KeyFrame, u.Lost)
		}
	}
	c.send(mediacap.KeyFrame{})
	for n := 1; !c.unit(mediacap.Video).KeyFrame; n++ {
		if n == 3 {
			t.Fatal("no key frame within two frames of the request")
		}
	}
}

// TestCaptureSurvivesItsHardware has the hardware die in the middle: a status says what encodes now, and no picture is
// missing.
func TestCaptureSurvivesItsHardware(t *testing.T) {
	dir := t.TempDir()
	if err := vaapitest.Build("../encode/vaapi/vaapitest/testdata", dir); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LD_PRELOAD", filepath.Join(dir, "drm_shim.so"))
	t.Setenv("LIBVA_DRIVERS_PATH", dir)
	t.Setenv("LIBVA_DRIVER_NAME", "fake")
	t.Setenv("FAKE_VA_FAIL_AT", "20")
	c := start(t, "--source=test", "--size", "160x96", "--render-node", vaapitest.Node) // auto
	s := c.running()
	if s.Video.Codec != mediacap.H264 || !strings.Contains(s.Video.Encoder, "VA-API") {
		t.Fatalf("status %+v\n%s", s, c.stderr.String())
	}
	for i, after := 0, 0; after < 15; {
		switch e := c.read().(type) {
		case *mediacap.Status:
			s = *e
		case *mediacap.Unit:
			if e.Codec != mediacap.H264 {
				continue
			}
			software := strings.Contains(s.Video.Encoder, "openh264")
			if e.Lost != 0 || software != (i >= 20) || e.KeyFrame != (i == 0 || i == 20) {
				t.Fatalf("picture %d: key frame %v, %d lost, by %s", i, e.KeyFrame, e.Lost, s.Video.Encoder)
			}
			if i++; software {
				after++
			}
		}
	}
}
