package encode

import (
	"bytes"
	"image"
	"testing"
	"time"
)

// written is an encoder whose output is what a driver may write: anything.
type written struct{ units [][]byte }

func (w *written) Encode(*image.YCbCr, time.Duration, bool) ([]byte, bool, error) {
	if len(w.units) == 0 {
		return nil, false, nil
	}
	u := w.units[0]
	w.units = w.units[1:]
	return u, false, nil
}
func (w *written) SetRate(int) error { return nil }
func (w *written) Name() string      { return "written" }
func (w *written) Close()            {}

func realUnits(t testing.TB) [][]byte {
	t.Helper()
	b := OpenH264()
	e, err := b.Open(Format{64, 48, 30, 100_000})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	img := image.NewYCbCr(image.Rect(0, 0, 64, 48), image.YCbCrSubsampleRatio420)
	var units [][]byte
	for i := range 4 {
		pattern(img, i)
		u, _, err := e.Encode(img, time.Duration(i)*time.Second/30, i == 3)
		if err != nil {
			t.Fatal(err)
		}
		units = append(units, bytes.Clone(u))
	}
	return units
}

// FuzzH264 reads what a driver wrote. What passes has the stream's form and passes again unchanged.
func FuzzH264(f *testing.F) {
	units := realUnits(f)
	f.Add(units[0], units[1])
	f.Add(units[3], units[1])
	f.Add([]byte{0, 0, 1, 9, 0xf0, 0, 0, 1}, []byte{0, 0, 1, 0x65})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		h := newH264(&written{units: [][]byte{first, second}})
		var passed [][]byte
		for range 2 {
			u, _, err := h.Encode(nil, 0, false)
			if err != nil {
				break
			}
			if len(u) > 0 {
				passed = append(passed, bytes.Clone(u))
			}
		}
		again := newH264(&written{units: append([][]byte(nil), passed...)})
		for i, want := range passed {
			if !bytes.HasPrefix(want, []byte{0, 0, 0, 1}) {
				t.Fatalf("unit %d does not begin with a start code: %x", i, want)
			}
			got, _, err := again.Encode(nil, 0, false)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("unit %d the second time: %v\n%x\n%x", i, err, got, want)
			}
		}
	})
}

// TestH264Form: start codes of four bytes, parameter sets with each IDR picture, nothing else but slices.
func TestH264Form(t *testing.T) {
	units := realUnits(t)
	var sps, pps, slice []byte
	for rest := units[0]; ; {
		var nal []byte
		if nal, rest = nextNAL(rest); nal == nil {
			break
		}
		switch nal[0] & 0x1f {
		case nalSPS:
			sps = nal
		case nalPPS:
			pps = nal
		case nalIDR:
			slice = nal
		}
	}
	three := func(nals ...[]byte) (out []byte) {
		for _, n := range nals {
			out = append(append(out, 0, 0, 1), n...)
		}
		return append(out, 0, 0)
	}
	delimiter, sei, filler := []byte{9, 0xf0}, []byte{6, 5, 1, 0, 0x80}, []byte{12, 0xff, 0xff, 0x80}
	h := newH264(&written{units: [][]byte{
		three(delimiter, sps, pps, sei, slice, filler),
		three(delimiter, slice), // an IDR picture whose parameter sets the encoder did not repeat
	}})
	for i := range 2 {
		got, key, err := h.Encode(nil, 0, false)
		if err != nil || !key || !bytes.Equal(got, units[0]) {
			t.Errorf("picture %d: key %v, %v\n%x\nwant\n%x", i, key, err, got, units[0])
		}
	}

	other := bytes.Clone(sps)
	other[1] = 100
	unreferenced := bytes.Clone(slice)
	unreferenced[0] &^= 0x60
	for name, units := range map[string][][]byte{
		"begins in the middle":   {units[1]},
		"without parameter sets": {three(slice)},
		"high profile":           {three(other, pps, slice)},
		"not a reference":        {three(sps, pps, unreferenced)},
		"no slice":               {three(sps, pps)},
		"empty slice":            {three(sps, pps, []byte{0x65})},
		"frame_num twice":        {units[0], units[1], units[1]},
		"picture left out":       {units[0], units[2]},
		"nothing":                {{1, 2, 3}},
	} {
		h := newH264(&written{units: units})
		var err error
		for range units {
			_, _, err = h.Encode(nil, 0, false)
		}
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
