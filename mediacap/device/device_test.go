package device

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/pion/mediadevices/pkg/driver"
	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/prop"
)

type fake struct{}

func (fake) Open() error                                  { return nil }
func (fake) Close() error                                 { return nil }
func (fake) Properties() []prop.Media                     { return nil }
func (fake) AudioRecord(prop.Media) (audio.Reader, error) { return nil, errors.New("never") }

func TestNullAndMonitorDevicesAreRefused(t *testing.T) {
	label := func(s string) string { return hex.EncodeToString([]byte(s)) }
	bad := []driver.Info{
		{Name: "NULL Capture Device", Label: ""},
		{Name: "Some card", Label: label("null")},
		{Name: "Discard all samples (playback) or generate zero samples (capture)", Label: label("x")},
		{Name: "Monitor of Built-in Audio", Label: label("y")},
		{Name: "Built-in Audio", Label: label("alsa_output.pci-0000_00_1f.3.analog-stereo.monitor")},
		{Name: "Dummy Output", Label: label("auto_null.monitor")},
		{Name: "Dummy video device (0x0000);platform:v4l2loopback", Label: "video9"},
	}
	Keep()
	defer Keep()
	for _, i := range bad {
		if unusable(i) == "" {
			t.Errorf("%q %q would be used", i.Name, i.Label)
		}
		i.DeviceType, i.Priority = driver.Microphone, driver.PriorityHigh
		if err := driver.GetManager().Register(fake{}, i); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Microphone()
	if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "monitor of an output") {
		t.Errorf("only null and monitor devices: %v", err)
	}
	good := driver.Info{Name: "Jabra Speak 510 USB", Label: label("alsa_input.usb"), DeviceType: driver.Microphone}
	if err := driver.GetManager().Register(fake{}, good); err != nil {
		t.Fatal(err)
	}
	if d, err := Microphone(); err != nil || d.Name != good.Name {
		t.Errorf("chose %+v, %v", d, err)
	}
}

func TestNoCamera(t *testing.T) {
	Keep()
	if _, err := Camera(); !errors.Is(err, ErrNone) {
		t.Errorf("without a camera: %v", err)
	}
}
