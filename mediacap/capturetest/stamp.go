// Package capturetest is a deterministic camera and microphone: a moving picture that says TEST and carries
// a frame counter and a clock for people and for programs, and a voice-like sound that a test can generate
// again and compare with what arrived. alcove-capture --source=test uses it; its units are synthetic.
//
// # The stamp
//
// The picture is divided into GridColumns squares across; one square is a cell, so a cell's side is
// width/GridColumns and every position below scales with the picture. The stamp is StampRows rows of
// StampColumns cells whose upper left corner lies StampLeft cells from the left and StampTop cells from
// the top. At 640×360 a cell is 16×16 pixels and the stamp covers x 64…575, y 16…63.
//
// A white cell is 1, a black cell is 0. Rows are read from top to bottom, cells from left to right, the
// most significant bit first, and give 12 bytes:
//
//	0   u32  frame counter, big-endian
//	4   u48  clock, milliseconds since 1970 (UTC), big-endian
//	10  u16  CRC-16/CCITT-FALSE of the ten bytes (polynomial 0x1021, start 0xffff, not reflected)
//
// A reader takes the mean luma over the middle half (in both directions) of each cell, calls it 1 above
// 127, and believes the stamp when the CRC agrees. In a browser: draw the video into a canvas of its own
// size, getImageData, luma = 0.299 R + 0.587 G + 0.114 B.
package capturetest

import (
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"time"
)

// Geometry of the stamp in cells; see the package documentation.
const (
	GridColumns  = 40 // cells across the whole picture
	StampLeft    = 4
	StampTop     = 1
	StampColumns = 32
	StampRows    = 3
)

const (
	stampBytes = StampColumns * StampRows / 8
	black      = 16 // BT.601 limited range
	white      = 235
)

// Stamp is what a picture says about itself.
type Stamp struct {
	Counter uint32
	Clock   time.Time // to the millisecond
}

// ErrNoStamp means that a picture carries no stamp, or an unreadable one.
var ErrNoStamp = errors.New("no readable stamp in the picture")

func (s Stamp) bytes() (b [stampBytes]byte) {
	ms := uint64(s.Clock.UnixMilli())
	binary.BigEndian.PutUint32(b[0:], s.Counter)
	binary.BigEndian.PutUint16(b[4:], uint16(ms>>32))
	binary.BigEndian.PutUint32(b[6:], uint32(ms))
	binary.BigEndian.PutUint16(b[10:], crc16(b[:10]))
	return b
}

// cellRect returns the pixels of the cell at column and row of the stamp in a picture of that width.
func cellRect(width, column, row int) image.Rectangle {
	edge := func(cell int) int { return cell * width / GridColumns }
	return image.Rect(edge(StampLeft+column), edge(StampTop+row), edge(StampLeft+column+1), edge(StampTop+row+1))
}

// draw burns the stamp into p's luma and removes the colour under it.
func (s Stamp) draw(p *image.YCbCr) {
	b := s.bytes()
	width := p.Rect.Dx()
	for row := range StampRows {
		for column := range StampColumns {
			i := row*StampColumns + column
			value := uint8(black)
			if b[i/8]&(0x80>>(i%8)) != 0 {
				value = white
			}
			fill(p, cellRect(width, column, row), value)
		}
	}
}

// fill paints a grey rectangle, clipped to the picture.
func fill(p *image.YCbCr, r image.Rectangle, luma uint8) {
	r = r.Intersect(p.Rect)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		line := p.Y[y*p.YStride+r.Min.X : y*p.YStride+r.Max.X]
		for x := range line {
			line[x] = luma
		}
	}
	for y := r.Min.Y / 2; y < (r.Max.Y+1)/2; y++ {
		for x := r.Min.X / 2; x < (r.Max.X+1)/2; x++ {
			p.Cb[y*p.CStride+x], p.Cr[y*p.CStride+x] = 128, 128
		}
	}
}

// ReadStamp reads the stamp of a picture of any size, as decoded after compression.
func ReadStamp(img image.Image) (Stamp, error) {
	bounds := img.Bounds()
	width := bounds.Dx()
	if width < GridColumns || bounds.Dy() < (StampTop+StampRows)*width/GridColumns {
		return Stamp{}, ErrNoStamp
	}
	var b [stampBytes]byte
	for row := range StampRows {
		for column := range StampColumns {
			r := cellRect(width, column, row)
			r = r.Inset(min(r.Dx(), r.Dy()) / 4).Add(bounds.Min)
			if meanLuma(img, r) > 127 {
				i := row*StampColumns + column
				b[i/8] |= 0x80 >> (i % 8)
			}
		}
	}
	if crc16(b[:10]) != binary.BigEndian.Uint16(b[10:]) {
		return Stamp{}, ErrNoStamp
	}
	ms := int64(binary.BigEndian.Uint16(b[4:]))<<32 | int64(binary.BigEndian.Uint32(b[6:]))
	return Stamp{Counter: binary.BigEndian.Uint32(b[:]), Clock: time.UnixMilli(ms)}, nil
}

func meanLuma(img image.Image, r image.Rectangle) int {
	sum, n := 0, 0
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			switch p := img.(type) {
			case *image.YCbCr:
				sum += int(p.Y[p.YOffset(x, y)])
			case *image.Gray:
				sum += int(p.GrayAt(x, y).Y)
			default:
				sum += int(color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y)
			}
			n++
		}
	}
	return sum / max(n, 1)
}

func crc16(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, v := range b {
		crc ^= uint16(v) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
