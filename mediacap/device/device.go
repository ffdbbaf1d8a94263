// Package device chooses the camera and the microphone among mediadevices' Linux drivers. It never
// falls back to something that is none: a null device delivers silence that looks like a working
// microphone, and the monitor of an output would send the remote person's own voice back.
package device

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pion/mediadevices/pkg/driver"
	_ "github.com/pion/mediadevices/pkg/driver/camera"     // registers V4L2 cameras
	_ "github.com/pion/mediadevices/pkg/driver/microphone" // registers microphones
)

// Device is one camera or microphone.
type Device struct {
	ID   string // for GetUserMedia's constraints; another one in each process
	Name string // for people
}

// ErrNone means that no usable device is there.
var ErrNone = errors.New("no device")

// Camera returns the camera to use: the system's first, else the first by name.
func Camera() (Device, error) {
	return choose("camera", driver.FilterAnd(driver.FilterVideoRecorder(), driver.FilterDeviceType(driver.Camera)))
}

// Microphone returns the microphone to use: the system's default, else the first by name.
func Microphone() (Device, error) {
	return choose("microphone", driver.FilterAnd(driver.FilterAudioRecorder(), driver.FilterDeviceType(driver.Microphone)))
}

func choose(kind string, filter driver.FilterFn) (Device, error) {
	found := driver.GetManager().Query(filter)
	slices.SortFunc(found, func(a, b driver.Driver) int {
		return cmp.Or(cmp.Compare(b.Info().Priority, a.Info().Priority), strings.Compare(a.Info().Label, b.Info().Label))
	})
	var refused []string
	for _, d := range found {
		name := Name(d.Info())
		if reason := unusable(d.Info()); reason != "" {
			refused = append(refused, fmt.Sprintf("%s is %s", name, reason))
			continue
		}
		return Device{ID: d.ID(), Name: name}, nil
	}
	if len(refused) > 0 {
		return Device{}, fmt.Errorf("find %s: %w can be used: %s", kind, ErrNone, strings.Join(refused, ", "))
	}
	return Device{}, fmt.Errorf("find %s: %w is connected, or this user may not open it", kind, ErrNone)
}

// Name returns what people call a device.
func Name(i driver.Info) string {
	name, _, _ := strings.Cut(i.Name, ";") // cameras append their bus
	return cmp.Or(strings.TrimSpace(name), i.Label, "unnamed device")
}

// unusable says why a device must not be used, or nothing.
func unusable(i driver.Info) string {
	for _, s := range []string{i.Name, i.Label, systemName(i.Label)} {
		s = strings.ToLower(strings.TrimSpace(s))
		switch {
		case s == "null" || strings.HasPrefix(s, "null ") || strings.HasPrefix(s, "discard all samples") ||
			strings.HasPrefix(s, "dummy") || strings.HasSuffix(s, ".null") || strings.HasPrefix(s, "auto_null"):
			return "a null device, not a real one"
		case strings.HasPrefix(s, "monitor of ") || strings.HasSuffix(s, ".monitor"):
			return "the monitor of an output"
		}
	}
	return ""
}

// systemName decodes a microphone's label, which is the sound system's own name in hexadecimal.
func systemName(label string) string {
	b, err := hex.DecodeString(label)
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\x00")
}

// Keep removes all drivers but the given ones, so that GetUserMedia, which opens every driver to ask for
// its properties, touches no other device.
func Keep(ids ...string) {
	for _, d := range driver.GetManager().Query(func(driver.Driver) bool { return true }) {
		if !slices.Contains(ids, d.ID()) {
			driver.GetManager().Delete(d.ID())
		}
	}
}
