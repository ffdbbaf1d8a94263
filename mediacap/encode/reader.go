package encode

import (
	"fmt"

	"github.com/pion/mediadevices"

	"github.com/alcove-room/alcove/mediacap"
)

// Reader reads a mediadevices track as mediacap units.
type Reader struct {
	encoded mediadevices.EncodedReadCloser
	control Controller
	unit    mediacap.Unit
}

// Open starts encoding t with the builder of its CodecSelector for c. It waits for the first frame.
func Open(t mediadevices.Track, c mediacap.Codec) (*Reader, error) {
	encoded, err := t.NewEncodedReader(c.MimeType())
	if err != nil {
		return nil, fmt.Errorf("open %v encoder: %w", c, err)
	}
	control, ok := encoded.Controller().(Controller)
	if !ok {
		return nil, fmt.Errorf("open %v encoder: %T is not one of this package", c, encoded.Controller())
	}
	return &Reader{encoded: encoded, control: control}, nil
}

// Read returns the next unit, which stays valid until the next call.
func (r *Reader) Read() (*mediacap.Unit, error) {
	buffer, _, err := r.encoded.Read()
	if err != nil {
		return nil, err
	}
	r.unit = r.control.Describe()
	r.unit.Payload = buffer.Data
	return &r.unit, nil
}

// Controller returns the encoder's controls; they may be used by any goroutine, except Describe.
func (r *Reader) Controller() Controller { return r.control }

// Close ends the encoder. The track stays open.
func (r *Reader) Close() error { return r.encoded.Close() }
