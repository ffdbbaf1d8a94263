package mediacap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// Version of the wire that this package speaks. There is one at a time: both programs come in one release.
const Version = 1

const (
	headerSize = 8
	unitSize   = 24
	levelSize  = 12
)

const (
	typeHello    = 1
	typeStatus   = 2
	typeUnit     = 3
	typeLevel    = 4
	typeKeyFrame = 128
	typeRate     = 129
	typeStop     = 130
)

const (
	helloSynthetic = 1
	unitKeyFrame   = 1
	unitSynthetic  = 2
)

// frameWriter sends one message per Write call from a buffer that it keeps. Errors of the underlying
// writer stick, since a message may have been sent in part.
type frameWriter struct {
	w   io.Writer
	buf []byte
	err error
}

func (f *frameWriter) begin(typ uint8) {
	f.buf = append(f.buf[:0], 'A', 'C', Version, typ, 0, 0, 0, 0)
}

func (f *frameWriter) text(s string) {
	f.buf = append(f.buf, uint8(len(s)))
	f.buf = append(f.buf, s...)
}

func (f *frameWriter) send() error {
	binary.BigEndian.PutUint32(f.buf[4:], uint32(len(f.buf)-headerSize))
	if _, err := f.w.Write(f.buf); err != nil {
		f.err = fmt.Errorf("write to capture wire: %w", err)
	}
	return f.err
}

// Writer is the capture process's end: it sends events. A message that breaks the rules is refused and
// nothing of it is sent. It belongs to one goroutine and allocates nothing per unit.
type Writer struct {
	frameWriter
	order order
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{frameWriter: frameWriter{w: w}} }

// Hello sends the first message.
func (w *Writer) Hello(h Hello) error {
	if w.err != nil {
		return w.err
	}
	if err := w.order.hello(&h); err != nil {
		return err
	}
	w.begin(typeHello)
	w.buf = append(w.buf, flag(h.Synthetic, helloSynthetic))
	w.text(h.Build)
	return w.send()
}

// Status sends a change of state or streams.
func (w *Writer) Status(s Status) error {
	if w.err != nil {
		return w.err
	}
	if err := w.order.status(&s); err != nil {
		return err
	}
	w.begin(typeStatus)
	w.buf = append(w.buf, uint8(s.State))
	w.text(s.Reason)
	w.buf = append(w.buf, uint8(s.Video.Codec))
	w.buf = binary.BigEndian.AppendUint16(w.buf, s.Video.Width)
	w.buf = binary.BigEndian.AppendUint16(w.buf, s.Video.Height)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(s.Video.FrameInterval))
	w.text(s.Video.Device)
	w.text(s.Video.Encoder)
	w.buf = append(w.buf, uint8(s.Audio.Codec))
	w.buf = binary.BigEndian.AppendUint32(w.buf, s.Audio.SampleRate)
	w.buf = append(w.buf, s.Audio.Channels)
	w.text(s.Audio.Device)
	w.text(s.Audio.Encoder)
	return w.send()
}

// Unit sends u. It copies the payload before it returns.
func (w *Writer) Unit(u *Unit) error {
	if w.err != nil {
		return w.err
	}
	if _, err := w.order.unit(u); err != nil {
		return err
	}
	w.begin(typeUnit)
	w.buf = append(w.buf, uint8(u.Codec), flag(u.KeyFrame, unitKeyFrame)|flag(u.Synthetic, unitSynthetic))
	w.buf = binary.BigEndian.AppendUint16(w.buf, u.Width)
	w.buf = binary.BigEndian.AppendUint16(w.buf, u.Height)
	w.buf = append(w.buf, 0, 0)
	w.buf = binary.BigEndian.AppendUint32(w.buf, u.Seq)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(u.Duration))
	w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(u.CaptureTime))
	w.buf = append(w.buf, u.Payload...)
	return w.send()
}

// Level sends l.
func (w *Writer) Level(l Level) error {
	if w.err != nil {
		return w.err
	}
	if err := w.order.level(&l); err != nil {
		return err
	}
	w.begin(typeLevel)
	w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(l.CaptureTime))
	w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(hundredths(l.RMS)))
	w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(hundredths(l.Peak)))
	return w.send()
}

func hundredths(l DBFS) int16 { return int16(math.Round(float64(l) * 100)) }

func flag(set bool, bit uint8) uint8 {
	if set {
		return bit
	}
	return 0
}

// RequestWriter is the daemon's end for requests. It belongs to one goroutine.
type RequestWriter struct{ frameWriter }

// NewRequestWriter returns a RequestWriter on w.
func NewRequestWriter(w io.Writer) *RequestWriter {
	return &RequestWriter{frameWriter{w: w}}
}

// Send sends r.
func (w *RequestWriter) Send(r Request) error {
	if w.err != nil {
		return w.err
	}
	switch r := r.(type) {
	case KeyFrame:
		w.begin(typeKeyFrame)
	case Rate:
		if err := checkRate(r); err != nil {
			return err
		}
		w.begin(typeRate)
		w.buf = binary.BigEndian.AppendUint32(w.buf, r.Video)
		w.buf = binary.BigEndian.AppendUint32(w.buf, r.Audio)
	case Stop:
		w.begin(typeStop)
	default:
		return refuse("request of type %T", r)
	}
	return w.send()
}

// frameReader reads whole messages into a buffer that it keeps. Every error sticks.
type frameReader struct {
	r      *bufio.Reader
	header [headerSize]byte
	buf    []byte
	err    error
}

func newFrameReader(r io.Reader) frameReader {
	return frameReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// next reads one message. It returns io.EOF alone only between two messages.
func (f *frameReader) next(limit func(typ uint8) (least, most uint32)) (typ uint8, body []byte, err error) {
	if f.err != nil {
		return 0, nil, f.err
	}
	typ, body, f.err = f.read(limit)
	return typ, body, f.err
}

func (f *frameReader) read(limit func(typ uint8) (least, most uint32)) (typ uint8, body []byte, err error) {
	if _, err := io.ReadFull(f.r, f.header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("read from capture wire: %w", err)
	}
	if f.header[0] != 'A' || f.header[1] != 'C' {
		return 0, nil, refuse("not a message")
	}
	if f.header[2] != Version {
		return 0, nil, &VersionError{Peer: f.header[2], Own: Version}
	}
	typ = f.header[3]
	least, most := limit(typ)
	if most < least {
		return 0, nil, refuse("message of unknown type %d", typ)
	}
	n := binary.BigEndian.Uint32(f.header[4:])
	if n < least || n > most {
		return 0, nil, refuse("message of type %d with %d bytes", typ, n)
	}
	if uint32(cap(f.buf)) < n {
		f.buf = make([]byte, n)
	}
	body = f.buf[:n]
	if _, err := io.ReadFull(f.r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, fmt.Errorf("read from capture wire: %w", err)
	}
	return typ, body, nil
}

// Reader is the daemon's end: it reads and judges events. It belongs to one goroutine and allocates
// nothing per unit once its buffer has grown to the largest.
type Reader struct {
	frameReader
	order  order
	hello  Hello
	status Status
	unit   Unit
	level  Level
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader { return &Reader{frameReader: newFrameReader(r)} }

// Read returns the next event, which stays valid until the next call. After an error every call returns
// the same error: io.EOF when the peer closed between two messages, an ErrProtocol when it broke the rules.
func (r *Reader) Read() (Event, error) {
	typ, body, err := r.next(eventLimit)
	if err != nil {
		return nil, err
	}
	e, err := r.decode(typ, body)
	if err != nil {
		r.err = err
		return nil, err
	}
	return e, nil
}

func eventLimit(typ uint8) (least, most uint32) {
	switch typ {
	case typeHello:
		return 2, 2 + MaxText
	case typeStatus:
		return 21, 21 + 5*MaxText
	case typeUnit:
		return unitSize + 1, MaxMessage
	case typeLevel:
		return levelSize, levelSize
	}
	return 1, 0
}

func (r *Reader) decode(typ uint8, b []byte) (Event, error) {
	switch typ {
	case typeHello:
		return &r.hello, r.decodeHello(b)
	case typeStatus:
		return &r.status, r.decodeStatus(b)
	case typeUnit:
		return &r.unit, r.decodeUnit(b)
	default: // eventLimit lets nothing else pass
		r.level = Level{
			CaptureTime: Time(binary.BigEndian.Uint64(b)),
			RMS:         DBFS(int16(binary.BigEndian.Uint16(b[8:]))) / 100,
			Peak:        DBFS(int16(binary.BigEndian.Uint16(b[10:]))) / 100,
		}
		return &r.level, r.order.level(&r.level)
	}
}

func (r *Reader) decodeHello(b []byte) error {
	if b[0]&^helloSynthetic != 0 {
		return refuse("unknown flags %#x in hello", b[0])
	}
	c := cursor{b: b[1:]}
	r.hello = Hello{Synthetic: b[0]&helloSynthetic != 0, Build: c.text()}
	if !c.done() {
		return refuse("malformed hello")
	}
	return r.order.hello(&r.hello)
}

func (r *Reader) decodeStatus(b []byte) error {
	c := cursor{b: b}
	s := Status{State: State(c.u8()), Reason: c.text()}
	s.Video = VideoStream{Codec: Codec(c.u8()), Width: c.u16(), Height: c.u16(),
		FrameInterval: time.Duration(c.u32()), Device: c.text(), Encoder: c.text()}
	s.Audio = AudioStream{Codec: Codec(c.u8()), SampleRate: c.u32(), Channels: c.u8(),
		Device: c.text(), Encoder: c.text()}
	if !c.done() {
		return refuse("malformed status")
	}
	r.status = s
	return r.order.status(&r.status)
}

func (r *Reader) decodeUnit(b []byte) error {
	if b[1]&^(unitKeyFrame|unitSynthetic) != 0 || b[6] != 0 || b[7] != 0 {
		return refuse("unknown flags in unit")
	}
	r.unit = Unit{
		Codec:       Codec(b[0]),
		KeyFrame:    b[1]&unitKeyFrame != 0,
		Synthetic:   b[1]&unitSynthetic != 0,
		Width:       binary.BigEndian.Uint16(b[2:]),
		Height:      binary.BigEndian.Uint16(b[4:]),
		Seq:         binary.BigEndian.Uint32(b[8:]),
		Duration:    time.Duration(binary.BigEndian.Uint32(b[12:])),
		CaptureTime: Time(binary.BigEndian.Uint64(b[16:])),
		Payload:     b[unitSize:],
	}
	lost, err := r.order.unit(&r.unit)
	r.unit.Lost = lost
	return err
}

// cursor takes a message apart; after running short it returns zeroes and done reports false.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if len(c.b) < n {
		c.short = true
		c.b = nil
		return make([]byte, n)
	}
	head := c.b[:n]
	c.b = c.b[n:]
	return head
}

func (c *cursor) u8() uint8    { return c.take(1)[0] }
func (c *cursor) u16() uint16  { return binary.BigEndian.Uint16(c.take(2)) }
func (c *cursor) u32() uint32  { return binary.BigEndian.Uint32(c.take(4)) }
func (c *cursor) text() string { return string(c.take(int(c.u8()))) }
func (c *cursor) done() bool   { return !c.short && len(c.b) == 0 }

// RequestReader is the capture process's end for requests. It belongs to one goroutine.
type RequestReader struct{ frameReader }

// NewRequestReader returns a RequestReader on r.
func NewRequestReader(r io.Reader) *RequestReader { return &RequestReader{newFrameReader(r)} }

// Read returns the next request. Errors are as with Reader.
func (r *RequestReader) Read() (Request, error) {
	typ, body, err := r.next(requestLimit)
	if err != nil {
		return nil, err
	}
	switch typ {
	case typeKeyFrame:
		return KeyFrame{}, nil
	case typeStop:
		return Stop{}, nil
	default: // requestLimit lets nothing else pass
		rate := Rate{Video: binary.BigEndian.Uint32(body), Audio: binary.BigEndian.Uint32(body[4:])}
		if err := checkRate(rate); err != nil {
			r.err = err
			return nil, err
		}
		return rate, nil
	}
}

func requestLimit(typ uint8) (least, most uint32) {
	switch typ {
	case typeKeyFrame, typeStop:
		return 0, 0
	case typeRate:
		return 8, 8
	}
	return 1, 0
}
