package capturetest

import (
	"image"
	"math"
	"strconv"
	"time"
)

// glyphs are 5×7 dots, one byte per row, the leftmost dot in bit 4.
var glyphs = map[byte][7]byte{
	'0': {14, 17, 19, 21, 25, 17, 14}, '1': {4, 12, 4, 4, 4, 4, 14}, '2': {14, 17, 1, 2, 4, 8, 31},
	'3': {31, 2, 4, 2, 1, 17, 14}, '4': {2, 6, 10, 18, 31, 2, 2}, '5': {31, 16, 30, 1, 1, 17, 14},
	'6': {6, 8, 16, 30, 17, 17, 14}, '7': {31, 1, 2, 4, 8, 8, 8}, '8': {14, 17, 17, 14, 17, 17, 14},
	'9': {14, 17, 17, 15, 1, 2, 12}, 'T': {31, 4, 4, 4, 4, 4, 4}, 'E': {31, 16, 16, 30, 16, 16, 31},
	'S': {15, 16, 16, 14, 1, 1, 30}, 'Z': {31, 1, 2, 4, 8, 16, 31}, '#': {10, 10, 31, 10, 31, 10, 10},
	':': {0, 12, 12, 0, 12, 12, 0}, '.': {0, 0, 0, 0, 0, 12, 12}, '-': {0, 0, 0, 31, 0, 0, 0},
}

// painter draws the test picture. It belongs to one goroutine.
type painter struct {
	background *image.YCbCr
	text       []byte
}

func newPainter(width, height int) *painter {
	bg := image.NewYCbCr(image.Rect(0, 0, width, height), image.YCbCrSubsampleRatio420)
	for y := range height {
		for x := range width {
			bg.Y[y*bg.YStride+x] = uint8(60 + 60*x/width + 40*y/height + 6*((x/8+y/8)%2))
		}
	}
	for y := range (height + 1) / 2 {
		for x := range (width + 1) / 2 {
			bg.Cb[y*bg.CStride+x] = uint8(110 + 60*x/width)
			bg.Cr[y*bg.CStride+x] = uint8(150 - 60*y/height)
		}
	}
	return &painter{background: bg}
}

// paint draws the picture of s into p, which has the painter's size.
func (a *painter) paint(p *image.YCbCr, s Stamp) {
	copy(p.Y, a.background.Y)
	copy(p.Cb, a.background.Cb)
	copy(p.Cr, a.background.Cr)
	a.paintBall(p, s.Counter)
	s.draw(p)
	width := p.Rect.Dx()
	line := func(cell, dotsAcross int, text []byte) {
		drawText(p, StampLeft*width/GridColumns, cell*width/GridColumns, max(1, width/dotsAcross), text)
	}
	line(5, 80, append(a.text[:0], "TEST"...))
	a.text = append(a.text[:0], '#')
	a.text = strconv.AppendUint(a.text, uint64(s.Counter), 10)
	line(9, 160, a.text)
	a.text = s.Clock.UTC().AppendFormat(a.text[:0], "2006-01-02 15:04:05.000Z")
	line(11, 180, a.text)
}

// paintBall moves a checkered disc on a closed curve through the part below the text.
func (a *painter) paintBall(p *image.YCbCr, counter uint32) {
	w, h := float64(p.Rect.Dx()), float64(p.Rect.Dy())
	top := 13 * w / GridColumns
	if h-top < 8 {
		top = h - 8
	}
	radius := (h - top) * 0.3
	phase := float64(counter%(1<<20)) * 2 * math.Pi / 90
	cx := w/2 + (w/2-radius)*math.Sin(phase)
	cy := top + (h-top)/2 + ((h-top)/2-radius)*math.Sin(2*phase)
	r := image.Rect(int(cx-radius), int(cy-radius), int(cx+radius)+1, int(cy+radius)+1).Intersect(p.Rect)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			dx, dy := float64(x)-cx, float64(y)-cy
			if dx*dx+dy*dy > radius*radius {
				continue
			}
			check := (int(dx+radius)/12 + int(dy+radius)/12 + int(counter)/8) % 2
			p.Y[y*p.YStride+x] = uint8(150 + 60*check)
			c := y/2*p.CStride + x/2
			p.Cb[c], p.Cr[c] = 90, uint8(160+30*check)
		}
	}
}

// drawText writes white dots on a black box.
func drawText(p *image.YCbCr, x, y, dot int, text []byte) {
	fill(p, image.Rect(x-dot, y-dot, x+len(text)*6*dot, y+8*dot), black)
	for i, c := range text {
		for row, bits := range glyphs[c] {
			for column := range 5 {
				if bits&(0x10>>column) != 0 {
					fill(p, image.Rect(0, 0, dot, dot).Add(image.Pt(x+(i*6+column)*dot, y+row*dot)), white)
				}
			}
		}
	}
}

// Picture returns the test picture with the given counter and clock.
func Picture(width, height int, counter uint32, clock time.Time) *image.YCbCr {
	p := image.NewYCbCr(image.Rect(0, 0, width, height), image.YCbCrSubsampleRatio420)
	newPainter(width, height).paint(p, Stamp{Counter: counter, Clock: clock})
	return p
}
